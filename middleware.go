package connectplugin

import (
	"context"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/inflight"
)

// middleware stands in front of one route. It knows peers, budgets, the audit and
// the ends of calls; who calls is the route's own business.
type middleware struct {
	hub     func() *hub // nil until the service is bound
	unbound func(r *http.Request)
	route   route
}

// serve puts the middleware in front of a route of a service that the user mounts.
func (m *member) serve(rt route) http.Handler {
	tell := func(r *http.Request) { m.unbound(r.Context(), r.URL.Path) }
	return &middleware{hub: m.bound.Load, unbound: tell, route: rt}
}

// ServeHTTP identifies the caller before anything of the message is read.
func (m *middleware) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := m.hub()
	if h == nil {
		m.unbound(r)
		refuse(w, r, connect.CodeUnauthenticated, errUnbound)
		return
	}
	p := h.newPeer(r)
	ctx := withPeer(r.Context(), p)
	if !p.secure && !h.settings().allowInsecure {
		no := unauthenticated("", "plaintext request")
		no.err = errPlaintext
		m.deny(ctx, h, p, no, w, r)
		return
	}
	if p.disowned != nil {
		m.deny(ctx, h, p, unauthenticated("", p.disowned.Error()), w, r)
		return
	}
	if p.certificate != nil {
		ctx = withPeerCertificates(ctx, p.certificate.chains)
	}
	ctx, a, no := m.route.identify(ctx, h, p, r)
	if no != nil {
		m.deny(ctx, h, p, no, w, r)
		return
	}
	proveHolder(ctx, h, p, a.caller)
	if !h.spend(a.budget) {
		refusedOn(ctx)
		h.auditCall(ctx, AuditLimited, r.URL.Path, "", "request rate")
		refuse(w, r, connect.CodeResourceExhausted, busy(a.budget.rate.wait()))
		return
	}
	m.call(ctx, h, &a, w, r)
}

// deny refuses a request and records it. However often a peer is refused, it is told the
// same: what fills no log is no matter of the answer.
func (m *middleware) deny(ctx context.Context, h *hub, p *peer, no *denial, w http.ResponseWriter, r *http.Request) {
	refusedOn(ctx)
	event := AuditEvent{
		Kind: no.kind, Peer: p.addr, RuntimeID: no.runtimeID, Procedure: r.URL.Path, Subject: m.route.subject, Reason: no.reason,
	}
	if event.Subject != "" {
		event.Right = RightHostPlugins
	}
	c, known := callerFrom(ctx)
	if known {
		event.RuntimeID, event.SelfID = c.id.RuntimeID(), c.id.SelfID()
	}
	h.recordRefusal(p, c, event)
	refuse(w, r, no.code, no.err)
}

// call runs the handler in a context that ends with the identity and, for unary
// calls, with the deadline.
func (m *middleware) call(ctx context.Context, h *hub, a *admission, w http.ResponseWriter, r *http.Request) {
	bounded := m.route.unary != nil && m.route.unary(r.URL.Path)
	if bounded {
		var cancel context.CancelFunc
		ctx, cancel = withDeadline(ctx, h.settings().limits.CallTimeout, w)
		defer cancel()
	}
	ctx, running := inflight.New(ctx, w)
	defer running.Done()
	defer a.endWith(running)()
	if a.caller != nil {
		a.caller.call = running
		a.caller.id.Enter()
		defer a.caller.id.Leave()
	}
	if m.route.unary != nil && !bounded {
		h.streams.Add(running)
		defer h.streams.Remove(running)
	}
	if a.allowed != nil {
		release, ok := h.permit(running, a.allowed)
		if !ok {
			refuse(w, r, connect.CodePermissionDenied, errDenied)
			return
		}
		defer release()
	}
	r = r.WithContext(ctx)
	if m.route.reads {
		r = running.WithBody(r, endOfStream)
	}
	m.route.next.ServeHTTP(w, r)
	servedOn(ctx)
}

// withDeadline cuts off a body that trickles in as well as a handler that hangs.
func withDeadline(ctx context.Context, limit time.Duration, w http.ResponseWriter) (context.Context, context.CancelFunc) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(limit))
	return context.WithTimeout(ctx, limit)
}
