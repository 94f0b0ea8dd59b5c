package connectplugin

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
	"github.com/masegraye/connect-plugin-go/internal/transcript"
)

// errHandshakeRefused is all that a stranger learns of a refused claim.
var errHandshakeRefused = errors.New("handshake refused")

// HandshakeServer issues and renews runtime identities. It is safe for
// concurrent use. Called from Go in the host's process it trusts its caller and
// asks for no proof.
type HandshakeServer struct {
	hub    *hub // fixed at creation
	nonces atomic.Pointer[nonces]
	others []service
	offer  *offer    // set before serving
	warned sync.Once // of what is dangerous about the configuration, where no Host warns
}

// NewHandshakeServer makes a handshake server of a host's configuration. Nil
// means the zero configuration, whose nil policy accepts no plugin. It tells plugins of the
// configuration's Plugins, as far as policy lets them call these; to serve them is the mux's.
func NewHandshakeServer(cfg *ServeConfig) *HandshakeServer {
	if cfg == nil {
		cfg = &ServeConfig{}
	}
	s := &HandshakeServer{hub: newHub(cfg.withDefaults().settings()), others: cfg.services()}
	s.offer = &offer{hub: s.hub, plugins: maps.Clone(cfg.Plugins), broker: cfg.CapabilityBroker}
	s.remember(s.hub.settings())
	return s
}

// replayShare is the part of the replay cache that one self id may fill: one of
// so many.
const replayShare = 16

// nonces are the handshakes that were accepted. A proof that is bound to its TLS
// connection is of no use on another one; an unbound proof issued before this
// host began may have been used with the host before it and is refused.
type nonces struct {
	bound   *transcript.Bound
	unbound *transcript.Replay
	clock   transcript.Clock
}

// HandshakeServerHandler returns the path and the handler of the handshake, for
// a server of your own. It demands TLS unless the configuration allows
// plaintext. The services that the configuration names belong to the same host from
// then on.
func HandshakeServerHandler(server *HandshakeServer) (string, http.Handler) {
	mustBeMade("HandshakeServerHandler: the server", server != nil && server.hub != nil, "NewHandshakeServer")
	server.mount()
	server.warn()
	rt := server.routes()[0]
	return rt.prefix, &middleware{hub: func() *hub { return server.hub }, route: rt}
}

// identifyEnrolling admits a stranger that asks for an identity, who pays when it is known
// what it proves, and a caller that renews its own, which pays itself.
func identifyEnrolling(ctx context.Context, h *hub, p *peer, r *http.Request) (context.Context, admission, *denial) {
	if !claimsIdentity(r.Header) {
		stranger := &enrolling{hub: h, peer: p, size: seatsOf(r)}
		return context.WithValue(ctx, enrollingKey{}, stranger), admission{lease: lease{onEnd: stranger.enter, cause: errTooManyPending}}, nil
	}
	ctx, c, no := h.authenticate(ctx, p, r)
	if no != nil {
		return ctx, admission{}, no
	}
	pays := callerBudget("renewal:", c.id, h.settings().limits.handshakeRate())
	pays.renewal = true
	return ctx, admission{caller: c, budget: pays}, nil
}

// ValidateToken reports whether token is a live token of runtimeID. It does not
// look at the client certificate that the token may be bound to; requests over
// the wire are checked against it too.
func (s *HandshakeServer) ValidateToken(runtimeID string, token string) bool {
	mustBeMade("the HandshakeServer", s != nil && s.hub != nil, "NewHandshakeServer")
	_, err := s.hub.store.Match(runtimeID, token)
	return err == nil
}

// Handshake agrees on versions and issues a runtime identity, or renews the one
// whose current token the request presents. Whatever is wrong with a claim of
// identity, the peer gets the same error; the log says what it was.
func (s *HandshakeServer) Handshake(ctx context.Context, req *connect.Request[connectpluginv1.HandshakeRequest]) (*connect.Response[connectpluginv1.HandshakeResponse], error) {
	if req == nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, errNoRequest)
	}
	mustBeMade("the HandshakeServer", s != nil && s.hub != nil, "NewHandshakeServer")
	hs, begun := &handshake{server: s, hub: s.hub, cfg: s.hub.settings(), req: req.Msg, protocol: req.Peer().Protocol}, time.Now()
	resp, err := s.shake(ctx, hs, req)
	hs.tell(begun, err)
	return resp, err
}

func (s *HandshakeServer) shake(ctx context.Context, hs *handshake, req *connect.Request[connectpluginv1.HandshakeRequest]) (*connect.Response[connectpluginv1.HandshakeResponse], error) {
	if req.Spec().Procedure != "" {
		var err error
		if ctx, hs.peer, err = s.peerOf(ctx, req); err != nil {
			return nil, err
		}
	}
	if req.Msg.GetSelfId() == "" && hs.peer != nil {
		hs.stranger = newHeaderRequest(req.Spec(), req.Peer(), req.Header())
	}
	if err := hs.run(ctx); err != nil {
		return nil, hs.refusal(ctx, err, req.Spec().Procedure)
	}
	resp := connect.NewResponse(hs.resp)
	if lease := time.Duration(s.hub.lease.Load()); lease > 0 && hs.resp.GetRuntimeId() != "" {
		resp.Header().Set(headerLease, lease.String())
	}
	return resp, nil
}

// mount ties the services that the configuration names to this one, for a host that its
// user puts together. One that belongs to another host already stays there.
func (s *HandshakeServer) mount() {
	for _, other := range s.others {
		_ = other.bind(s.hub)
	}
}

// warn tells the operator once what is dangerous or useless about the configuration.
func (s *HandshakeServer) warn() { s.warned.Do(func() { warnConfig(s.hub.settings()) }) }

// peerOf returns who makes a handshake. Where no middleware stands before the service,
// it also proves a caller that renews, and spends what the middleware would.
func (s *HandshakeServer) peerOf(ctx context.Context, req connect.AnyRequest) (context.Context, *peer, error) {
	if p, ok := peerFrom(ctx); ok && isGuarded(ctx) {
		return ctx, p, nil
	}
	s.warn() // with a generated constructor nothing is told when it is mounted
	p, err := s.hub.barePeer(ctx)
	if err != nil {
		return ctx, nil, err
	}
	ctx = withPeer(ctx, p)
	ctx, a, no := identifyEnrolling(ctx, s.hub, p, &http.Request{Header: req.Header()})
	switch {
	case no != nil:
		s.hub.auditEvent(ctx, AuditEvent{Kind: no.kind, Procedure: req.Spec().Procedure, RuntimeID: no.runtimeID, Reason: no.reason})
		return ctx, nil, connect.NewError(no.code, no.err)
	case !s.hub.spend(a.budget):
		s.hub.auditCall(ctx, AuditLimited, req.Spec().Procedure, a.budget.limit())
		return ctx, nil, connect.NewError(connect.CodeResourceExhausted, errTooMany)
	}
	return ctx, p, nil
}

func (s *HandshakeServer) routes(opts ...connect.HandlerOption) []route {
	opts = append(opts, s.hub.settings().limits.handshakes(), counting(&handshakeFields))
	path, h := connectpluginv1connect.NewHandshakeServiceHandler(s, opts...)
	return []route{{
		prefix: path, identify: observed(identifyEnrolling), unary: unaryProcedure, reads: true, vital: true, bound: tooLargeHandshake,
		next: s.delivering(prescanned(h, s.hub.settings().limits)),
	}}
}

// configure takes over the configuration of the host.
func (s *HandshakeServer) configure(cfg *settings) {
	s.hub.configure(cfg)
	s.hub.store.Configure(cfg.storeConfig())
	s.remember(cfg)
}

func (s *HandshakeServer) remember(cfg *settings) {
	rc := transcript.ReplayConfig{
		Skew:       cfg.handshake.MaxClockSkew,
		MaxTotal:   cfg.handshake.ReplayCacheSize,
		MaxPerSelf: max(cfg.handshake.ReplayCacheSize/replayShare, 1),
	}
	n := &nonces{bound: transcript.NewBound(rc), clock: transcript.NewClock()}
	rc.Since = time.Now()
	n.unbound = transcript.NewReplay(rc)
	s.nonces.Store(n)
}

// handshake is one handshake being served.
type handshake struct {
	server *HandshakeServer
	hub    *hub
	cfg    *settings
	req    *connectpluginv1.HandshakeRequest
	peer   *peer // nil in the host's own process

	protocol string // that req came in, empty in the host's own process
	mismatch string // why it is no handshake with this host, for the audit

	stranger *headerRequest // as auth providers see it; nil for who asks for an identity

	book     *policy.Book // by which the claim is judged
	known    policy.Match // whom it knows the peer as
	version  int32
	warnings []string
	proven   bool   // that the peer is who it says
	secret   Secret // nil where nothing is proven by a secret
	binding  []byte // the channel binding that the proof was made with
	resp     *connectpluginv1.HandshakeResponse
	renewed  bool // the peer had an identity, and keeps it
}

// refused is a claim of identity that is not accepted; the text is for the log.
type refused string

func (r refused) Error() string { return string(r) }

func (hs *handshake) run(ctx context.Context) error {
	if err := validateHandshake(hs.req); err != nil {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	if err := hs.agree(); err != nil {
		return err
	}
	id, token, err := hs.identity(ctx)
	if err != nil {
		return err
	}
	if d, ok := ctx.Value(deliveryKey{}).(*delivery); ok && id != nil && !renews(ctx) {
		d.issued = id
	}
	if hs.stranger != nil { // not before it paid: what providers do may cost much
		ctx = hs.asStranger(ctx)
	}
	return hs.answer(ctx, id, token)
}

// tell tells the observer of a handshake that was answered, and not of what a peer claimed.
func (hs *handshake) tell(begun time.Time, err error) {
	o := hs.hub.observer()
	if o == nil {
		return
	}
	e := HandshakeEvent{Renewed: hs.renewed, Duration: time.Since(begun)}
	if err != nil {
		e.Code = connect.CodeOf(err)
	} else if id, ok := hs.hub.store.Lookup(hs.resp.GetRuntimeId()); ok {
		e.SelfID, e.RuntimeID = id.SelfID(), id.RuntimeID()
	}
	o.Handshake(e)
}

// renews reports whether the caller of a handshake has an identity already.
func renews(ctx context.Context) bool {
	_, ok := callerFrom(ctx)
	return ok
}

// agree checks the cookie and the versions.
func (hs *handshake) agree() error {
	if !equalStrings(hs.req.GetMagicCookieKey(), hs.cfg.cookieKey) ||
		!equalStrings(hs.req.GetMagicCookieValue(), hs.cfg.cookieValue) {
		hs.mismatch = "magic cookie: the plugin was made for another host, or MagicCookieKey or MagicCookieValue differs"
		return errorf(connect.CodeInvalidArgument, "magic cookie does not match: this is not the host that the program was made for")
	}
	if hs.req.GetCoreProtocolVersion() != coreProtocolVersion {
		return errorf(connect.CodeFailedPrecondition, "core protocol version %d is not spoken here; write %d",
			hs.req.GetCoreProtocolVersion(), coreProtocolVersion)
	}
	agreed, err := negotiateVersion(hs.req, hs.cfg.versions)
	if err != nil {
		hs.mismatch = "application version: " + err.Error()
		return connect.NewError(connect.CodeFailedPrecondition, err)
	}
	hs.version = agreed
	if w := deprecationWarning(agreed, hs.cfg.deprecatedBelow); w != "" {
		hs.warnings = append(hs.warnings, w)
	}
	return nil
}

// identity issues or renews the identity that the request claims; a request
// without self id gets none.
func (hs *handshake) identity(ctx context.Context) (*tokenstore.Identity, string, error) {
	selfID := hs.req.GetSelfId()
	if selfID == "" {
		return nil, "", hs.anonymous(ctx)
	}
	certIdentity := hs.certIdentity()
	hs.book = hs.hub.rules.Load()
	hs.known = hs.book.Match(selfID, certIdentity)
	if err := hs.admit(selfID); err != nil {
		return nil, "", err
	}
	if hs.peer != nil {
		hs.hub.remember(hs.peer.certificate)
	}
	if hs.isBarred() {
		return nil, "", hs.barred()
	}
	c, renews := callerFrom(ctx)
	renews = renews && hs.peer != nil
	if err := hs.take(ctx, renews); err != nil {
		return nil, "", err
	}
	d := hs.declare(hs.known.Rules, certIdentity)
	if err := hs.asLaunched(d); err != nil {
		return nil, "", err
	}
	if renews {
		return hs.renew(c, d)
	}
	return hs.issue(ctx, d)
}

// isBarred reports whether the operator revoked the plugin, by its name or by the self id
// that it claims.
func (hs *handshake) isBarred() bool {
	return hs.hub.launches.Barred(hs.known.Name) || hs.hub.launches.Barred(hs.req.GetSelfId())
}

// barred refuses a plugin that the operator revoked; it is no use to try again.
func (hs *handshake) barred() error {
	hs.record(AuditEvent{Kind: AuditDenied, SelfID: hs.known.Name, Reason: "the self id is revoked until Readmit or SetPolicy"})
	return connect.NewError(connect.CodePermissionDenied, errDenied)
}

func (hs *handshake) issue(ctx context.Context, d *declaration) (*tokenstore.Identity, string, error) {
	r := tokenstore.Request{SelfID: hs.known.Name, SelfVersion: hs.req.GetSelfVersion(), Attributes: d}
	if rules := hs.known.Rules; rules != nil {
		r.MaxInstances = rules.MaxInstances
	}
	if hs.peer != nil {
		r.Peer, r.Proven, r.Fingerprint = addressKey(hs.peer.addr), hs.proven, hs.peer.fingerprint()
	}
	id, token, err := hs.hub.store.Issue(r)
	if full(err) && hs.hub.succeed(ctx, r.SelfID, hs.hub.proofIn(d, r.Fingerprint), 1, anyIdentity) > 0 {
		id, token, err = hs.hub.store.Issue(r)
	}
	if full(err) {
		return nil, "", hs.hub.tooMany(&r, err)
	}
	if err != nil {
		return nil, "", err
	}
	if hs.peer != nil {
		hs.peer.conn.carry(id)
		heldBy(ctx, hs.hub, hs.peer, id) // it may say nothing for long
	}
	if err := hs.recheck(id); err != nil {
		return nil, "", err
	}
	if launched := hs.hub.launchOf(id); launched != nil {
		if before := launched.Enrolled(id); before != nil {
			hs.hub.store.Revoke(before.RuntimeID(), reasonAgain)
		}
	}
	hs.hub.audit(AuditEvent{Kind: AuditIssued, Peer: addrOf(id), RuntimeID: id.RuntimeID(), SelfID: id.SelfID()})
	return id, token, nil
}

// asStranger has the auth providers say who asks for no identity. Whom they do not know
// learns what is public; that a credential was wrong is in the audit, by address.
func (hs *handshake) asStranger(ctx context.Context) context.Context {
	if _, plugin := callerFrom(ctx); plugin {
		return ctx
	}
	known, no := askProviders(ctx, hs.hub, hs.peer, hs.stranger)
	if no == nil {
		return known
	}
	if no.wrong {
		hs.hub.auditOnce(hs.peer, nil, AuditEvent{
			Kind: no.kind, Peer: hs.peer.addr, Procedure: hs.stranger.Spec().Procedure, AuthProvider: no.provider,
			Reason: "a handshake without self id: " + no.reason,
		})
	}
	return ctx
}

func (hs *handshake) renew(c *caller, d *declaration) (*tokenstore.Identity, string, error) {
	hs.renewed = true
	was := declared(c.id)
	switch {
	case was.selfID != hs.req.GetSelfId():
		return nil, "", refused("a renewal names another self id than the identity")
	case c.id.SelfID() != hs.known.Name:
		return nil, "", refused("policy knows the plugin by another name by now")
	}
	id, token, err := hs.hub.store.Renew(c.id.RuntimeID(), c.token, hs.peer.fingerprint())
	switch {
	case errors.Is(err, tokenstore.ErrRandom):
		return nil, "", err
	case err != nil:
		return nil, "", refused("renewal: " + err.Error())
	}
	d.endpoint, d.within, d.launch, d.share = was.endpoint, was.within, was.launch, was.share
	d.enrolled, d.failure, d.drained, d.version = was.enrolled, was.failure, was.drained, was.version
	id.SetAttributes(d)
	if err := hs.recheck(id); err != nil {
		return nil, "", err
	}
	hs.hub.audit(AuditEvent{Kind: AuditRenewed, Peer: addrOf(id), RuntimeID: id.RuntimeID(), SelfID: id.SelfID()})
	return id, token, nil
}

// reasonAgain says that the same launch of a plugin enrolled again.
const reasonAgain tokenstore.Reason = "enrolled again"

// record records that the handshake is refused.
func (hs *handshake) record(e AuditEvent) {
	if hs.peer == nil {
		hs.hub.audit(e)
		return
	}
	e.Peer, hs.peer.proven = hs.peer.addr, hs.proven
	hs.hub.recordRefusal(hs.peer, nil, e)
}

// answer builds the response and proves it.
func (hs *handshake) answer(ctx context.Context, id *tokenstore.Identity, token string) error {
	hs.resp = &connectpluginv1.HandshakeResponse{
		CoreProtocolVersion: coreProtocolVersion,
		AppProtocolVersion:  hs.version,
		MinProtocolVersion:  hs.cfg.versions.min,
		Warnings:            hs.warnings,
	}
	if id != nil {
		hs.resp.RuntimeId, hs.resp.RuntimeToken = id.RuntimeID(), token
		hs.resp.TokenExpiresAt = timestamppb.New(id.ExpiresAt())
		if hs.peer != nil && hs.peer.certificate != nil {
			hs.cfg.vigil.Saw("plugin "+id.SelfID()+", when it calls this host", hs.peer.certificate.leaf)
		}
	}
	l := hs.server.offer.list(ctx, id, hs.req.GetRequestedPlugins())
	hs.resp.Plugins, hs.resp.HostCapabilities = l.plugins, l.capabilities
	if l.known {
		hs.resp.ServerMetadata = maps.Clone(hs.cfg.serverMetadata)
	}
	if len(hs.req.GetClientNonce()) == 0 {
		return nil
	}
	hs.resp.ServerNonce = make([]byte, nonceBytes)
	_, _ = rand.Read(hs.resp.GetServerNonce())
	if hs.secret != nil {
		return signHandshakeResponse(hs.req, hs.resp, hs.secret, hs.binding)
	}
	return nil
}

// refusal turns an internal error into what the peer may learn and tells the
// operator the rest.
func (hs *handshake) refusal(ctx context.Context, err error, procedure string) error {
	if coded, ok := errors.AsType[*connect.Error](err); ok {
		if hs.mismatch != "" {
			hs.record(AuditEvent{Kind: AuditAuthFailed, SelfID: hs.req.GetSelfId(), Procedure: procedure, Reason: hs.mismatch})
		} else {
			hs.countFaulty(coded, procedure)
		}
		return coded
	}
	event := AuditEvent{Kind: AuditAuthFailed, SelfID: cmp.Or(hs.known.Name, hs.req.GetSelfId()), Procedure: procedure, Reason: err.Error()}
	if limited, ok := errors.AsType[tooManyError](err); ok {
		hs.hub.auditEvent(ctx, AuditEvent{Kind: AuditLimited, SelfID: hs.req.GetSelfId(), Procedure: procedure, Reason: limited.reason})
		return busy(limited.wait)
	}
	if hs.peer != nil && hs.peer.certificate != nil {
		if launched := hs.hub.launches.Find(hs.peer.certificate.identity); launched != nil {
			launched.Refuse(err.Error())
		}
	}
	if limit, ok := errors.AsType[*fullError](err); ok {
		event.Kind = AuditLimited
		hs.record(event)
		return busyFor(limit.told, limit.wait)
	}
	hs.record(event)
	if _, ok := errors.AsType[refused](err); ok {
		return connect.NewError(connect.CodeUnauthenticated, errHandshakeRefused)
	}
	return connect.NewError(connect.CodeInternal, errNotAvailable)
}

// countFaulty counts messages that are no handshake with this host, of which the audit has
// nothing unless an address sends many.
func (hs *handshake) countFaulty(err *connect.Error, procedure string) {
	faulty := err.Code() == connect.CodeInvalidArgument || err.Code() == connect.CodeFailedPrecondition
	if faulty && hs.peer != nil && !hs.hub.mayRecord(hs.peer, nil) {
		hs.hub.auditOnce(hs.peer, nil, AuditEvent{Kind: AuditLimited, Peer: hs.peer.addr, Procedure: procedure, Reason: reasonCounted})
	}
}
