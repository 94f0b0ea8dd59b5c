package connectplugin

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/inflight"
	"github.com/masegraye/connect-plugin-go/internal/launches"
	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// CallerFromContext returns the authenticated caller of the request that ctx
// belongs to, as a copy. It reports false where the request carried no runtime
// identity. It is how capability handlers and the host's own plugin services
// learn who calls, and those of [ServePlugin] in the plugin's process, where the
// host states RuntimeID, SelfID and SelfVersion and nothing else.
func CallerFromContext(ctx context.Context) (Caller, bool) {
	c, ok := callerFrom(ctx)
	if !ok {
		return statedCaller(ctx)
	}
	out := Caller{RuntimeID: c.id.RuntimeID(), SelfID: c.id.SelfID(), SelfVersion: c.id.SelfVersion()}
	if fp := c.id.Fingerprint(); fp != (tokenstore.Fingerprint{}) {
		out.Fingerprint = hex.EncodeToString(fp[:])
	}
	out.Rights = Rights(c.hub.rules.Load().Rights(subjectOf(c.id)))
	return out, true
}

// caller is the authenticated caller as the services see it.
type caller struct {
	context.Context //nolint:containedctx // of the request: a caller is the context in which it is known

	id    *tokenstore.Identity
	hub   *hub
	token string          // as presented, for renewal
	call  *inflight.Call  // the request, nil where no middleware serves it
	own   inflight.Call   // where one does
	end   tokenstore.Hook // of the identity
	came  time.Time       // when the request was looked at, zero where nobody took note
}

// Value implements context.Context.
func (c *caller) Value(key any) any {
	if key == (callerKey{}) {
		return c
	}
	return c.Context.Value(key)
}

// Happen ends the request when the identity has ended.
func (c *caller) Happen() { c.call.End(errIdentityEnded) }

type callerKey struct{}

func callerFrom(ctx context.Context) (*caller, bool) {
	c, ok := ctx.Value(callerKey{}).(*caller)
	return c, ok
}

// rateKeyFromContext returns the key under which a request's identity is rate
// limited.
func rateKeyFromContext(ctx context.Context) (string, bool) {
	if c, ok := callerFrom(ctx); ok {
		return c.id.LimiterKey(), true
	}
	if a := GetAuthContext(ctx); a != nil && a.Identity != "" {
		return "identity:" + a.Provider + ":" + a.Identity, true
	}
	return "", false
}

// declaration is what a plugin declared in its handshake, and how it proved
// itself. It is immutable.
type declaration struct {
	selfID             string // as it claims; its name is the identity's
	provides, requires policy.Set
	within             *narrowing       // survives renewals
	certIdentity       string           // of the certificate that it showed
	certEnds           time.Time        // when that ends, zero for none
	enrolled           time.Time        // survives renewals
	failure            *lastFailure     // of a call to it; survives renewals
	drained            *atomic.Bool     // an operator took its services out; survives renewals
	version            string           // of an adopted plugin, as it says; empty for others
	addr               string           // from which it made its last handshake, empty where it made none
	secret             Secret           // that it proved, nil for none
	endpoint           *ownEndpoint     // survives renewals
	adopted            *likeness        // nil unless the host adopted it; survives renewals
	share              *share           // survives renewals
	launch             *launches.Launch // nil unless the host started it or was told of it; survives renewals
	dependencies       []ServiceDependency
	modern             bool // it speaks more than the first wire version
	inGRPC             bool // it made its handshake in gRPC
}

// addrOf is from where the audit has an identity: an address where it is known.
func addrOf(id *tokenstore.Identity) string { return cmp.Or(declared(id).addr, id.Peer()) }

// narrowing is what the operator left a plugin of what it may provide, nil for all of
// that.
type narrowing struct{ atomic.Pointer[policy.Set] }

// ownEndpoint is where a plugin asked to be dialled, nil for nowhere, when
// policy let it.
type ownEndpoint struct {
	atomic.Pointer[string]

	turn   chan struct{} // capacity one: held while the host finds out whether the plugin answers there
	proves atomic.Bool   // the plugin proved once that it answers, and so can
}

func newOwnEndpoint() *ownEndpoint { return &ownEndpoint{turn: make(chan struct{}, 1)} }

// text returns the endpoint, empty for none.
func (e *ownEndpoint) text() string {
	if at := e.Load(); at != nil {
		return *at
	}
	return ""
}

// rememberEndpoint notes that the plugin named its endpoint itself.
func rememberEndpoint(id *tokenstore.Identity, endpoint string) {
	declared(id).endpoint.Store(&endpoint)
}

// newDeclaration is the declaration of a plugin that could not declare anything (the
// first wire version): policy alone decides.
func newDeclaration(selfID string) *declaration {
	return &declaration{
		selfID: selfID, provides: policy.Everything(), requires: policy.Everything(),
		within: new(narrowing), endpoint: newOwnEndpoint(), enrolled: time.Now(), failure: new(lastFailure),
		drained: new(atomic.Bool), share: new(share),
	}
}

// versionOf is the version of a plugin: what it enrolled with, or said when it was adopted.
func versionOf(id *tokenstore.Identity) string { return cmp.Or(id.SelfVersion(), declared(id).version) }

// declared returns what an identity declared. Whoever issues one attaches that.
func declared(id *tokenstore.Identity) *declaration {
	if d, ok := id.Attributes().(*declaration); ok && d != nil {
		return d
	}
	return newDeclaration(id.SelfID())
}

// proofOf stands for what an identity proved when it enrolled: the secret, or else the
// certificate that it showed. Equal proofs have equal texts, from which nobody learns the
// secret.
func (h *hub) proofOf(id *tokenstore.Identity) string {
	return h.proofIn(declared(id), id.Fingerprint())
}

// proofIn is proofOf for an identity with a declaration and a certificate's key.
func (h *hub) proofIn(d *declaration, key tokenstore.Fingerprint) string {
	switch {
	case len(d.secret) > 0:
		mac := hmac.New(sha256.New, h.decoy)
		_, _ = mac.Write(d.secret)
		return "secret " + string(mac.Sum(nil))
	case d.certIdentity != "":
		return "certificate " + d.certIdentity
	case key != (tokenstore.Fingerprint{}):
		return "key " + string(key[:])
	}
	return ""
}

// full reports whether an identity was not issued because there are as many as there may be.
func full(err error) bool {
	return errors.Is(err, tokenstore.ErrFull) || errors.Is(err, tokenstore.ErrTooManyInstances) || errors.Is(err, tokenstore.ErrTooManyForPeer)
}

// fullError says which limit keeps an identity from being issued.
type fullError struct {
	err   error         // of the store
	field string        // that sets the limit
	life  time.Duration // after which one ends that shows no sign of life
	told  error         // to the peer
	wait  time.Duration // when the next may end
}

func (e *fullError) Unwrap() error { return e.err }
func (e *fullError) Error() string {
	return fmt.Sprintf("%v: raise %s; one that shows no sign of life ends after %v", e.err, e.field, e.life)
}

// tooMany says which limit a request for an identity met.
func (h *hub) tooMany(r *tokenstore.Request, err error) error {
	s := h.settings()
	e := &fullError{err: err, told: errManyIdentities, life: cmp.Or(time.Duration(h.lease.Load()), s.tokenTTL)}
	e.field = fmt.Sprintf("Limits.MaxIdentities (%d)", s.limits.MaxIdentities)
	if e.wait = min(e.life, maxRateWait); r.Proven || errors.Is(err, tokenstore.ErrTooManyInstances) {
		e.wait = min(e.wait, beginning) // so soon one that is dead gives its place to the next
	}
	switch {
	case errors.Is(err, tokenstore.ErrTooManyInstances):
		e.field, e.told = fmt.Sprintf("PluginPolicy.MaxInstances, or Limits.MaxIdentitiesPerSelfID where that is zero (%d)",
			cmp.Or(max(r.MaxInstances, 0), s.limits.MaxIdentitiesPerSelfID)), errManyInstances
	case errors.Is(err, tokenstore.ErrTooManyForPeer):
		e.field, e.told = fmt.Sprintf("Limits.MaxIdentitiesPerPeer (%d)", s.limits.MaxIdentitiesPerPeer), errManyFromPeer
	}
	return e
}

// maxPredecessors bounds how many dead ones are asked whether they are.
const maxPredecessors = 4

// reasonSucceeded says that another life of the same plugin took the place of an identity.
const reasonSucceeded tokenstore.Reason = "its process enrolled anew"

// succeed ends up to so many identities of a self id that proved the same and seem to be dead: they
// have no connection open, make no call, and where they are reached they do not answer. It returns
// how many ended. Of several those end first that were silent for longest. has says of which ones
// there is anything to be had.
func (h *hub) succeed(ctx context.Context, selfID, proof string, most int, has func(*tokenstore.Identity) bool) (ended int) {
	if proof == "" {
		return 0
	}
	var silent []*tokenstore.Identity
	h.store.Each(func(id *tokenstore.Identity) bool {
		if id.SelfID() == selfID && h.seemsDead(id) && has(id) && equalStrings(h.proofOf(id), proof) {
			silent = append(silent, id)
		}
		return true
	})
	slices.SortFunc(silent, func(a, b *tokenstore.Identity) int { return a.LastSeen().Compare(b.LastSeen()) })
	for _, id := range silent[:min(len(silent), maxPredecessors)] {
		answers := h.answers.Load()
		if answers != nil && (*answers)(ctx, id) || !h.seemsDead(id) {
			continue
		}
		if h.store.Revoke(id.RuntimeID(), reasonSucceeded) {
			ended++
		}
		if ended == most {
			break
		}
	}
	return ended
}

func anyIdentity(*tokenstore.Identity) bool { return true }

// beginning is how long an instance may take between its handshake and the first use of its
// identity, where nobody said over which connection it came.
const beginning = 3 * time.Second

// seemsDead reports whether nothing shows that an instance lives. The host's own plugins
// are its launcher's to judge.
func (h *hub) seemsDead(id *tokenstore.Identity) bool {
	if last := id.LastSeen(); !id.Met() && last.Equal(id.IssuedAt()) && time.Since(last) < beginning {
		return false
	}
	return !id.Attached() && !id.Busy() && id.Peer() != "" && h.launchOf(id) == nil
}

// subjectOf is an identity as policy sees it.
func subjectOf(id *tokenstore.Identity) policy.Subject {
	d := declared(id)
	return policy.Subject{
		SelfID: d.selfID, Certificate: d.certIdentity, Provides: d.provides, Requires: d.requires, Within: d.within.Load(),
	}
}

// rulesOf returns the current rules of an identity, nil where policy no longer
// knows it.
func (h *hub) rulesOf(id *tokenstore.Identity) *policy.Rules { return h.rules.Load().Of(subjectOf(id)) }

func (h *hub) mayProvide(id *tokenstore.Identity, serviceType string) bool {
	return h.rules.Load().MayProvide(subjectOf(id), serviceType)
}

func (h *hub) mayRequire(id *tokenstore.Identity, serviceType string) bool {
	return h.rules.Load().MayRequire(subjectOf(id), serviceType)
}

func (h *hub) mayUse(id *tokenstore.Identity, capabilityType string) bool {
	return h.rules.Load().MayUse(subjectOf(id), capabilityType)
}

func (h *hub) mayCallHostPlugin(id *tokenstore.Identity, name string) bool {
	return h.rules.Load().MayCallHostPlugin(subjectOf(id), name)
}

// denial is why a request is not served. The reason is for the audit.
type denial struct {
	kind             AuditKind
	code             connect.Code
	err              error
	runtimeID        string // as claimed
	wrong            bool   // there was a credential, and it is not good
	provider, reason string // the former of AuthProviders, empty where none refused
}

// hide is the denial of what a plugin may not use: it is answered as what does not exist is.
func (h *hub) hide(id *tokenstore.Identity, right AuditRight, name string) *denial {
	return &denial{
		kind: AuditDenied, code: connect.CodeNotFound, err: errNotAvailable, reason: h.notAllowed(id, right, name),
	}
}

func unauthenticated(runtimeID, reason string) *denial {
	return &denial{
		kind: AuditAuthFailed, code: connect.CodeUnauthenticated, err: errUnauthenticated, runtimeID: claimedID(runtimeID), reason: reason,
	}
}

// unverified is the denial of an identity that the store did not find right. One that it
// merely does not know is most likely of the host before this one.
func unverified(runtimeID, token string, err error) *denial {
	no := unauthenticated(runtimeID, err.Error())
	if errors.Is(err, tokenstore.ErrUnknown) && tokenstore.Issuable(runtimeID, token) {
		no.kind, no.reason = AuditUnknownIdentity, reasonUnknown
	}
	return no
}

const reasonUnknown = "the identity ended, or is one of the host before this one; its plugin enrols again"

// maxClaimedIDLen is more than a runtime id has.
const maxClaimedIDLen = 128

// claimedID returns what the audit says of a runtime id that proved to be nobody's.
// What cannot be one may be a token that its sender put there by mistake.
func claimedID(claimed string) string {
	foreign := func(r rune) bool { return r != '-' && (r < 'a' || r > 'z') && (r < '0' || r > '9') }
	if len(claimed) > maxClaimedIDLen || strings.ContainsFunc(claimed, foreign) {
		return redacted
	}
	return claimed
}

// authenticate proves the runtime identity that a request claims, puts the caller
// into the context, and takes the token away from whoever serves the request.
func (h *hub) authenticate(ctx context.Context, p *peer, r *http.Request) (context.Context, *caller, *denial) {
	runtimeID, token, ok := credentials(r.Header)
	if !ok {
		return ctx, nil, unauthenticated("", "missing or malformed credentials")
	}
	id, err := h.store.Verify(runtimeID, token, p.fingerprint())
	if err != nil {
		return ctx, nil, unverified(runtimeID, token, err)
	}
	r.Header.Del(headerAuthorization)
	p.conn.carry(id)
	h.sign(id)
	c := &p.caller
	if c.id != nil { // there was another one before
		c = new(caller)
	}
	c.Context, c.id, c.hub, c.token = ctx, id, h, token
	return c, c, nil
}

// bareCaller proves the caller of a service that was mounted with its generated
// constructor, so that no middleware has. Such a service sees nothing of TLS, and serves
// nobody where plaintext is not allowed.
func (h *hub) bareCaller(ctx context.Context, procedure string, header http.Header) (*caller, error) {
	p, err := h.barePeer(ctx)
	if err != nil {
		return nil, err
	}
	ctx = withPeer(ctx, p)
	_, c, no := h.authenticate(ctx, p, &http.Request{Header: header})
	switch {
	case no != nil:
		h.auditEvent(ctx, AuditEvent{Kind: no.kind, Procedure: procedure, RuntimeID: no.runtimeID, Reason: no.reason})
		return nil, connect.NewError(no.code, no.err)
	case !h.spend(h.requestBudget(c)):
		h.auditCall(ctx, AuditLimited, procedure, tooManyRequests)
		return nil, connect.NewError(connect.CodeResourceExhausted, errTooMany)
	}
	return c, nil
}

// attend has a stream end with the identity of its caller, or with the policy that allows it,
// where no middleware sees to that. The caller is nil for the host itself.
func (c *caller) attend(ctx context.Context) (bounded context.Context, done func()) {
	if c == nil || c.call != nil {
		return ctx, func() {}
	}
	bounded, call := inflight.New(ctx, nil)
	c.call = call
	c.id.Hang(&c.end, c)
	c.id.Enter()
	return bounded, func() {
		c.id.Leave()
		c.id.Unhang(&c.end)
		call.Done()
	}
}

// barePeer returns the peer of a call to a service that no middleware stands before.
func (h *hub) barePeer(ctx context.Context) (*peer, error) {
	p, ok := peerFrom(ctx)
	if !ok || !h.settings().allowInsecure {
		h.bare.Do(func() {
			danger(h.settings().configured).ErrorContext(ctx, "a service is mounted with its generated constructor, which shows it nothing of TLS: "+
				"for plaintext, in development only, set ServeConfig.AllowInsecure; for TLS set ServeConfig.TLS or Authority and mount what "+
				"HandshakeServerHandler, ServiceRegistryHandler, LifecycleServerHandler, HealthServerHandler "+
				"or CapabilityBroker.Handler return, or serve NewHost")
		})
		return nil, connect.NewError(connect.CodeUnauthenticated, errBare)
	}
	return p, nil
}

// askProviders returns the context of a caller that an auth provider knows. Of plugins
// they are not asked: what those may do policy says.
func askProviders(ctx context.Context, h *hub, p *peer, req *headerRequest) (context.Context, *denial) {
	chain := h.settings().chain
	switch {
	case h.presentsToken(req.Header()):
		no := unauthenticated("", "a plugin, by its token, without its runtime identity")
		no.wrong = true
		return ctx, no
	case chain == nil:
		return ctx, unauthenticated("", "no runtime identity")
	case h.isPlugin(h.rules.Load(), p.certificate):
		return ctx, unauthenticated("", "a plugin, by its certificate, without its runtime identity")
	}
	no := unauthenticated("", "no auth provider knows the caller")
	noted := withAuthObserver(ctx, func(_ context.Context, f authFailure) {
		no.provider, no.reason, no.wrong = f.Provider, f.Err.Error(), f.isOfCredential(req.Header())
	})
	out, err := chain.authenticate(noted, req)
	if err != nil {
		return ctx, no
	}
	return out, nil
}

// sign notes a sign of life of an identity, and ends the doubt about it.
func (h *hub) sign(id *tokenstore.Identity) {
	id.Seen()
	if !id.Trust() {
		return
	}
	if trust := h.trust.Load(); trust != nil {
		(*trust)(id.RuntimeID())
	}
}

// setCallerHeader states the caller to the host's own plugins and capabilities, as the
// router does to other plugins. Nobody else does.
func setCallerHeader(header http.Header, id *tokenstore.Identity) {
	for name := range header {
		if strings.HasPrefix(name, callerPrefix) {
			delete(header, name)
		}
	}
	if id == nil {
		return
	}
	header.Set(headerCallerID, id.RuntimeID())
	header.Set(headerCallerSelfID, id.SelfID())
	if v := id.SelfVersion(); v != "" {
		header.Set(headerCallerVersion, v)
	}
}
