package connectplugin

import (
	"context"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// access says who may call a route.
type access int

const (
	// accessAnyone serves everybody and limits the rate of each peer.
	accessAnyone access = iota
	// accessEnrol is the handshake: a stranger asks for an identity, a caller
	// renews its own.
	accessEnrol
	// accessCaller demands a runtime identity.
	accessCaller
	// accessGrant demands a capability grant.
	accessGrant
	// accessHostPlugin demands a caller that policy lets call the plugin, or
	// one that an auth provider knows, unless the plugin is public.
	accessHostPlugin
)

// guarded is a handler behind the middleware.
type guarded struct {
	hub    func() *hub // nil until the service is bound
	access access
	name   string            // of the host's own plugin
	unary  func(string) bool // whether the call at a path has the unary deadline
	next   http.Handler
}

// ServeHTTP identifies the caller before anything of the message is read.
func (g *guarded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := g.hub()
	if h == nil {
		refuse(w, r, connect.CodeUnauthenticated, errUnauthenticated)
		return
	}
	p := newPeer(r)
	ctx := withPeer(r.Context(), p)
	if !p.secure && !h.config().AllowInsecure {
		g.deny(ctx, h, p, unauthenticated("", "plaintext request"), w, r)
		return
	}
	if p.certificate != nil {
		ctx = withPeerCertificates(ctx, p.certificate.chains)
	}
	ctx, id, no := g.identify(ctx, h, p, r)
	if no != nil {
		g.deny(ctx, h, p, no, w, r)
		return
	}
	if !h.allowRate(ctx, p, id, g.access) {
		h.auditCall(ctx, AuditLimited, r.URL.Path, "", "request rate")
		refuse(w, r, connect.CodeResourceExhausted, errTooMany)
		return
	}
	g.serve(ctx, h, id, w, r)
}

// denial is why a request is not served. The reason is for the audit.
type denial struct {
	kind      AuditKind
	code      connect.Code
	err       error
	runtimeID string // as claimed
	reason    string
}

func unauthenticated(runtimeID, reason string) *denial {
	return &denial{AuditAuthFailed, connect.CodeUnauthenticated, errUnauthenticated, claimedID(runtimeID), reason}
}

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

// deny refuses a request and records it. A peer that is refused too often is
// told so, and fills no log.
func (g *guarded) deny(ctx context.Context, h *hub, p *peer, no *denial, w http.ResponseWriter, r *http.Request) {
	if !h.allowStranger("refused:", p, h.refusalRate()) {
		refuse(w, r, connect.CodeResourceExhausted, errTooMany)
		return
	}
	event := AuditEvent{
		Kind: no.kind, Peer: p.addr, RuntimeID: no.runtimeID, Procedure: r.URL.Path, Subject: g.name, Reason: no.reason,
	}
	if c, ok := callerFrom(ctx); ok {
		event.RuntimeID, event.SelfID = c.id.RuntimeID(), c.id.SelfID()
	}
	h.audit(event)
	refuse(w, r, no.code, no.err)
}

// observeAuth records what auth providers among the interceptors refuse.
func (h *hub) observeAuth(ctx context.Context, f authFailure) {
	h.auditCall(ctx, AuditAuthFailed, f.Procedure, f.Provider, f.Err.Error())
}

// serve runs the handler in a context that ends with the identity and, for unary
// calls, with the deadline.
func (g *guarded) serve(ctx context.Context, h *hub, id *tokenstore.Identity, w http.ResponseWriter, r *http.Request) {
	if g.unary != nil || g.access == accessHostPlugin {
		ctx = withAuthObserver(ctx, h.observeAuth)
	}
	if g.unary != nil && g.unary(r.URL.Path) {
		var cancel context.CancelFunc
		ctx, cancel = withDeadline(ctx, h.config().Limits.CallTimeout, w)
		defer cancel()
	}
	ctx, running := newCall(ctx, w)
	defer running.done()
	defer running.endWith(ctx, id)()
	if c, ok := callerFrom(ctx); ok {
		c.call = running
	}
	if g.unary != nil && !g.unary(r.URL.Path) {
		h.streams.add(running)
		defer h.streams.remove(running)
	}
	if g.access == accessHostPlugin {
		release, ok := h.hold(running, g.permission(ctx))
		if !ok {
			refuse(w, r, connect.CodePermissionDenied, errDenied)
			return
		}
		defer release()
	}
	r = r.WithContext(ctx)
	if g.access == accessHostPlugin || g.access == accessGrant {
		r = running.withBody(r)
	}
	g.next.ServeHTTP(w, r)
}

// withDeadline cuts off a body that trickles in as well as a handler that hangs.
func withDeadline(ctx context.Context, limit time.Duration, w http.ResponseWriter) (context.Context, context.CancelFunc) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(limit))
	return context.WithTimeout(ctx, limit)
}

// permission says until when policy lets a call to one of the host's own plugins
// go on.
func (g *guarded) permission(ctx context.Context) func(*ruleBook) bool {
	if c, ok := callerFrom(ctx); ok {
		return func(b *ruleBook) bool { return b.mayCallHostPlugin(c.id, g.name) }
	}
	authenticated := GetAuthContext(ctx) != nil
	return func(b *ruleBook) bool { return authenticated || b.public.has(g.name) }
}

// identify returns the context that carries the caller, as the route's access
// demands.
func (g *guarded) identify(ctx context.Context, h *hub, p *peer, r *http.Request) (context.Context, *tokenstore.Identity, *denial) {
	presented := len(r.Header[headerRuntimeID]) > 0
	switch g.access {
	case accessAnyone:
		return ctx, nil, nil
	case accessGrant:
		grant, no := h.authenticateGrant(p, r)
		if no != nil {
			return ctx, nil, no
		}
		stateCaller(r.Header, grant.Owner)
		return withGrant(ctx, h, grant), grant.Owner, nil
	case accessEnrol:
		if !presented {
			return ctx, nil, nil
		}
	case accessHostPlugin:
		stateCaller(r.Header, nil)
		if !presented {
			ctx, no := g.identifyStranger(ctx, h, r)
			return ctx, nil, no
		}
	case accessCaller:
	}
	c, no := h.authenticate(p, r)
	if no != nil {
		return ctx, nil, no
	}
	ctx = withCaller(ctx, c)
	r.Header.Del(headerAuthorization)
	if g.access == accessHostPlugin {
		ctx, no = g.admitPlugin(ctx, c, r)
	}
	return ctx, c.id, no
}

// admitPlugin admits a plugin to one of the host's own.
func (g *guarded) admitPlugin(ctx context.Context, c *caller, r *http.Request) (context.Context, *denial) {
	if !c.hub.mayCallHostPlugin(c.id, g.name) {
		return ctx, &denial{AuditDenied, connect.CodePermissionDenied, errDenied, "", "host plugin not allowed by policy"}
	}
	stateCaller(r.Header, c.id)
	return WithAuthContext(ctx, &AuthContext{
		Identity: c.id.SelfID(), Provider: "runtime-token",
		Claims: map[string]string{"runtime_id": c.id.RuntimeID()},
	}), nil
}

// stateCaller states the caller to the host's own plugins and capabilities, as the
// router does to other plugins. Nobody else does.
func stateCaller(header http.Header, id *tokenstore.Identity) {
	header.Del(headerCallerID)
	if id != nil {
		header.Set(headerCallerID, id.RuntimeID())
	}
}

// identifyStranger admits callers without a runtime identity to the host's own
// plugins.
func (g *guarded) identifyStranger(ctx context.Context, h *hub, r *http.Request) (context.Context, *denial) {
	if h.rules.Load().public.has(g.name) {
		return ctx, nil
	}
	chain := h.settings.Load().chain
	if chain == nil {
		return ctx, unauthenticated("", "no runtime identity")
	}
	reason := "no auth provider knows the caller"
	observed := withAuthObserver(ctx, func(_ context.Context, f authFailure) { reason = f.Provider + ": " + f.Err.Error() })
	req := newHeaderRequest(connect.Spec{Procedure: r.URL.Path}, connect.Peer{Addr: r.RemoteAddr}, r.Header)
	out, err := chain.authenticate(observed, req)
	if err != nil {
		return ctx, unauthenticated("", reason)
	}
	return out, nil
}

// authenticate proves the runtime identity that the request claims.
func (h *hub) authenticate(p *peer, r *http.Request) (*caller, *denial) {
	runtimeID, token, ok := credentials(r.Header)
	if !ok {
		return nil, unauthenticated("", "missing or malformed credentials")
	}
	id, err := h.store.Verify(runtimeID, token, p.fingerprint())
	if err != nil {
		return nil, unauthenticated(runtimeID, err.Error())
	}
	return &caller{id: id, hub: h, token: token}, nil
}

// credentials reads the runtime id and the bearer token; each must be there
// exactly once.
func credentials(header http.Header) (runtimeID, token string, ok bool) {
	ids, auth := header[headerRuntimeID], header[headerAuthorization]
	if len(ids) != 1 || len(auth) != 1 {
		return "", "", false
	}
	token, ok = bearer(auth[0])
	return ids[0], token, ok && ids[0] != ""
}

// bearer returns the token of a bearer credential (RFC 6750; the scheme is
// case-insensitive, RFC 9110).
func bearer(value string) (string, bool) {
	if len(value) <= len(bearerPrefix) || !strings.EqualFold(value[:len(bearerPrefix)], bearerPrefix) {
		return "", false
	}
	return value[len(bearerPrefix):], true
}

// allowRate spends one request of the budget that the caller, or the peer of a
// stranger, has.
func (h *hub) allowRate(ctx context.Context, p *peer, id *tokenstore.Identity, a access) bool {
	l := h.config().Limits
	if a == accessEnrol {
		return h.allowStranger("handshake:", p, Rate{RequestsPerSecond: l.HandshakesPerSecond, Burst: l.HandshakeBurst})
	}
	rate := Rate{RequestsPerSecond: l.RequestsPerSecond, Burst: l.RequestBurst}
	if id != nil {
		return h.allow("runtime:"+id.RuntimeID(), rate)
	}
	if key, ok := rateKeyFromContext(ctx); ok {
		return h.allow(key, rate)
	}
	return h.allowStranger("peer:", p, rate)
}

var errorWriter = connect.NewErrorWriter()

// refuse answers in the protocol of the request. The error's text is one of the
// constants in errors.go.
func refuse(w http.ResponseWriter, r *http.Request, code connect.Code, err error) {
	if code == connect.CodeUnauthenticated {
		w.Header().Set(headerChallenge, bearerChallenge) // RFC 6750, section 3
	}
	if errorWriter.IsSupported(r) {
		if _, ok := err.(*connect.Error); !ok { //nolint:errorlint // wrapped errors keep their own text
			err = connect.NewError(code, err)
		}
		_ = errorWriter.Write(w, r, err)
		return
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	http.Error(w, err.Error(), httpStatus(code))
}

// httpStatus is the HTTP status of a code outside the RPC protocols.
func httpStatus(code connect.Code) int {
	switch code {
	case connect.CodeUnauthenticated:
		return http.StatusUnauthorized
	case connect.CodePermissionDenied:
		return http.StatusForbidden
	case connect.CodeNotFound:
		return http.StatusNotFound
	case connect.CodeResourceExhausted:
		return http.StatusTooManyRequests
	case connect.CodeInvalidArgument, connect.CodeFailedPrecondition, connect.CodeOutOfRange:
		return http.StatusBadRequest
	case connect.CodeUnavailable:
		return http.StatusServiceUnavailable
	case connect.CodeCanceled, connect.CodeUnknown, connect.CodeDeadlineExceeded, connect.CodeAlreadyExists,
		connect.CodeAborted, connect.CodeUnimplemented, connect.CodeInternal, connect.CodeDataLoss:
	}
	return http.StatusInternalServerError
}
