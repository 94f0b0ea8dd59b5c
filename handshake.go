package connectplugin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
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
	list   func(ctx context.Context, id *tokenstore.Identity, requested []string) listing // set before serving; may be nil
}

// listing is what a handshake tells a plugin about the host.
type listing struct {
	plugins      []*connectpluginv1.PluginInfo
	capabilities []*connectpluginv1.Capability
}

// NewHandshakeServer makes a handshake server of a host's configuration. Nil
// means the zero configuration, whose nil policy accepts no plugin.
func NewHandshakeServer(cfg *ServeConfig) *HandshakeServer {
	if cfg == nil {
		cfg = &ServeConfig{}
	}
	s := &HandshakeServer{hub: newHub(cfg.withDefaults().settings())}
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
// plaintext.
func HandshakeServerHandler(server *HandshakeServer) (string, http.Handler) {
	rt := server.routes(boundedMessages(server.hub.settings().limits.MaxMessageBytes))[0]
	return rt.prefix, &middleware{hub: func() *hub { return server.hub }, route: rt}
}

// identifyEnrolling admits a stranger that asks for an identity and a caller that
// renews its own. Either way the peer pays.
func identifyEnrolling(ctx context.Context, h *hub, p *peer, r *http.Request) (context.Context, admission, *denial) {
	a := admission{budget: peerBudget("handshake:", p, h.settings().limits.handshakeRate())}
	if !claimsIdentity(r.Header) {
		return ctx, a, nil
	}
	ctx, c, no := h.authenticate(ctx, p, r)
	if no != nil {
		return ctx, admission{}, no
	}
	a.caller = c
	return ctx, a, nil
}

// ValidateToken reports whether token is a live token of runtimeID. It does not
// look at the client certificate that the token may be bound to; requests over
// the wire are checked against it too.
func (s *HandshakeServer) ValidateToken(runtimeID string, token string) bool {
	_, err := s.hub.store.Match(runtimeID, token)
	return err == nil
}

// Handshake agrees on versions and issues a runtime identity, or renews the one
// whose current token the request presents. Whatever is wrong with a claim of
// identity, the peer gets the same error; the log says what it was.
func (s *HandshakeServer) Handshake(ctx context.Context, req *connect.Request[connectpluginv1.HandshakeRequest]) (*connect.Response[connectpluginv1.HandshakeResponse], error) {
	hs := &handshake{server: s, hub: s.hub, cfg: s.hub.settings(), req: req.Msg}
	if req.Spec().Procedure != "" {
		p, ok := peerFrom(ctx)
		if !ok {
			return nil, connect.NewError(connect.CodeUnauthenticated, errUnauthenticated)
		}
		hs.peer = p
	}
	if err := hs.run(ctx); err != nil {
		return nil, hs.refusal(err, req.Spec().Procedure)
	}
	resp := connect.NewResponse(hs.resp)
	if lease := time.Duration(s.hub.lease.Load()); lease > 0 && hs.resp.GetRuntimeId() != "" {
		resp.Header().Set(headerLease, lease.String())
	}
	return resp, nil
}

func (s *HandshakeServer) routes(opts ...connect.HandlerOption) []route {
	path, h := connectpluginv1connect.NewHandshakeServiceHandler(s, opts...)
	return []route{{prefix: path, identify: observed(identifyEnrolling), unary: unaryProcedure, next: h}}
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

	book     *policy.Book // by which the claim is judged
	version  int32
	warnings []string
	secret   Secret // nil where nothing is proven by a secret
	binding  []byte // the channel binding that the proof was made with
	resp     *connectpluginv1.HandshakeResponse
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
	return hs.answer(ctx, id, token)
}

// agree checks the cookie and the versions.
func (hs *handshake) agree() error {
	if !equalStrings(hs.req.GetMagicCookieKey(), hs.cfg.cookieKey) ||
		!equalStrings(hs.req.GetMagicCookieValue(), hs.cfg.cookieValue) {
		return errorf(connect.CodeInvalidArgument, "magic cookie does not match: this is not the host that the program was made for")
	}
	if hs.req.GetCoreProtocolVersion() != coreProtocolVersion {
		return errorf(connect.CodeFailedPrecondition, "core protocol version %d is not spoken here; write %d",
			hs.req.GetCoreProtocolVersion(), coreProtocolVersion)
	}
	agreed, err := negotiateVersion(hs.req, hs.cfg.versions)
	if err != nil {
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
		return nil, "", hs.anonymous()
	}
	hs.book = hs.hub.rules.Load()
	rules, certIdentity, err := hs.admit(selfID)
	if err != nil {
		return nil, "", err
	}
	d := hs.declare(rules, certIdentity)
	if err := hs.asLaunched(d); err != nil {
		return nil, "", err
	}
	if hs.hub.launches.Barred(selfID) {
		return nil, "", hs.barred()
	}
	if c, ok := callerFrom(ctx); ok && hs.peer != nil {
		return hs.renew(c, d)
	}
	return hs.issue(ctx, rules, d)
}

func (hs *handshake) issue(ctx context.Context, rules *policy.Rules, d *declaration) (*tokenstore.Identity, string, error) {
	r := tokenstore.Request{SelfID: hs.req.GetSelfId(), SelfVersion: hs.req.GetSelfVersion(), Attributes: d}
	if rules != nil {
		r.MaxInstances = rules.MaxInstances
	}
	if hs.peer != nil {
		r.Peer, r.Fingerprint = addressKey(hs.peer.addr), hs.peer.fingerprint()
	}
	id, token, err := hs.hub.store.Issue(r)
	if full(err) && hs.hub.succeed(ctx, r.SelfID, hs.hub.proofIn(d, r.Fingerprint)) {
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
	}
	if err := hs.recheck(id); err != nil {
		return nil, "", err
	}
	if launched := hs.hub.launchOf(id); launched != nil {
		if before := launched.Enrolled(id); before != nil {
			hs.hub.store.Revoke(before.RuntimeID(), reasonAgain)
		}
	}
	hs.hub.audit(AuditEvent{Kind: AuditIssued, Peer: id.Peer(), RuntimeID: id.RuntimeID(), SelfID: id.SelfID()})
	return id, token, nil
}

// anonymous admits a client that asks for no identity: it learns what the host
// offers to everybody and gets no token.
func (hs *handshake) anonymous() error {
	if hs.peer != nil && hs.cfg.handshake.RequireCertificate && hs.peer.certificate == nil {
		return refused("a client certificate is required and none was verified")
	}
	return nil
}

func (hs *handshake) renew(c *caller, d *declaration) (*tokenstore.Identity, string, error) {
	if c.id.SelfID() != hs.req.GetSelfId() {
		return nil, "", refused("a renewal names another self id than the identity")
	}
	id, token, err := hs.hub.store.Renew(c.id.RuntimeID(), c.token, hs.peer.fingerprint())
	switch {
	case errors.Is(err, tokenstore.ErrRandom):
		return nil, "", err
	case err != nil:
		return nil, "", refused("renewal: " + err.Error())
	}
	d.endpoint, d.launch = declared(id).endpoint, declared(id).launch
	id.SetAttributes(d)
	if err := hs.recheck(id); err != nil {
		return nil, "", err
	}
	hs.hub.audit(AuditEvent{Kind: AuditRenewed, Peer: id.Peer(), RuntimeID: id.RuntimeID(), SelfID: id.SelfID()})
	return id, token, nil
}

// recheck ends an identity that policy stopped accepting while the handshake was
// being served.
func (hs *handshake) recheck(id *tokenstore.Identity) error {
	if hs.hub.launches.Barred(id.SelfID()) {
		hs.hub.store.Revoke(id.RuntimeID(), tokenstore.ReasonRevoked)
		return hs.barred()
	}
	if hs.hub.rules.Load() == hs.book || hs.hub.accepts(id) {
		return nil
	}
	hs.hub.store.Revoke(id.RuntimeID(), tokenstore.ReasonPolicy)
	return refused("policy changed during the handshake")
}

// reasonAgain says that the same launch of a plugin enrolled again.
const reasonAgain tokenstore.Reason = "enrolled again"

// barred refuses a self id that the operator revoked; it is no use to try again.
func (hs *handshake) barred() error {
	hs.hub.audit(AuditEvent{Kind: AuditDenied, SelfID: hs.req.GetSelfId(), Reason: "the self id is revoked until Readmit or SetPolicy"})
	return connect.NewError(connect.CodePermissionDenied, errDenied)
}

// asLaunched refuses a launched plugin that provides other services than it was
// launched for: what the host is configured with wins.
func (hs *handshake) asLaunched(d *declaration) error {
	launched := d.launch
	if launched == nil || len(launched.Provides) == 0 || d.provides.Has(policy.Any) {
		return nil
	}
	if is, want := d.provides.List(), policy.NewSet(launched.Provides).List(); !slices.Equal(is, want) {
		return refused(fmt.Sprintf("it was launched to provide %q and declares %q", want, is))
	}
	return nil
}

// declare intersects nothing: it keeps what the plugin declared and warns of
// what policy will cut. Policy is asked again at every use.
func (hs *handshake) declare(rules *policy.Rules, certIdentity string) *declaration {
	d := undeclared
	d.certIdentity, d.secret, d.endpoint = certIdentity, hs.secret, new(ownEndpoint)
	d.launch = hs.hub.launches.Find(certIdentity)
	if len(hs.req.GetClientNonce()) == 0 {
		return &d // the first wire version declares nothing
	}
	var provides, requires []string
	for _, p := range hs.req.GetProvides() {
		provides = append(provides, p.GetType())
		if rules != nil && !rules.Provides.Has(p.GetType()) {
			hs.warnings = append(hs.warnings, fmt.Sprintf("provides %q: not allowed by the host's policy", p.GetType()))
		}
	}
	for _, r := range hs.req.GetRequires() {
		requires = append(requires, r.GetType())
		d.dependencies = append(d.dependencies, ServiceDependency{
			Type: r.GetType(), MinVersion: r.GetMinVersion(),
			RequiredForStartup: r.GetRequiredForStartup(), WatchForChanges: r.GetWatchForChanges(),
		})
		if rules != nil && !rules.Requires.Has(r.GetType()) {
			hs.warnings = append(hs.warnings, fmt.Sprintf("requires %q: not allowed by the host's policy", r.GetType()))
		}
	}
	d.provides, d.requires = policy.NewSet(provides), policy.NewSet(requires)
	return &d
}

// answer builds the response and proves it.
func (hs *handshake) answer(ctx context.Context, id *tokenstore.Identity, token string) error {
	hs.resp = &connectpluginv1.HandshakeResponse{
		CoreProtocolVersion: coreProtocolVersion,
		AppProtocolVersion:  hs.version,
		ServerMetadata:      maps.Clone(hs.cfg.serverMetadata),
		MinProtocolVersion:  hs.cfg.versions.min,
		Warnings:            hs.warnings,
	}
	if id != nil {
		hs.resp.RuntimeId, hs.resp.RuntimeToken = id.RuntimeID(), token
		hs.resp.TokenExpiresAt = timestamppb.New(id.ExpiresAt())
	}
	if hs.server.list != nil {
		l := hs.server.list(ctx, id, hs.req.GetRequestedPlugins())
		hs.resp.Plugins, hs.resp.HostCapabilities = l.plugins, l.capabilities
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
func (hs *handshake) refusal(err error, procedure string) error {
	if coded, ok := errors.AsType[*connect.Error](err); ok {
		return coded
	}
	event := AuditEvent{Kind: AuditAuthFailed, SelfID: hs.req.GetSelfId(), Procedure: procedure, Reason: err.Error()}
	if hs.peer != nil {
		event.Peer = hs.peer.addr
	}
	if hs.peer != nil && hs.peer.certificate != nil {
		if launched := hs.hub.launches.Find(hs.peer.certificate.identity); launched != nil {
			launched.Refuse(err.Error())
		}
	}
	if limit, ok := errors.AsType[*fullError](err); ok {
		event.Kind = AuditLimited
		hs.hub.audit(event)
		return connect.NewError(connect.CodeResourceExhausted, limit.told)
	}
	hs.hub.audit(event)
	if _, ok := errors.AsType[refused](err); ok {
		return connect.NewError(connect.CodeUnauthenticated, errHandshakeRefused)
	}
	return connect.NewError(connect.CodeInternal, errNotAvailable)
}
