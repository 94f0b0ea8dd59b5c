package connectplugin

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/inflight"
	"github.com/masegraye/connect-plugin-go/internal/procedures"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
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
		h.auditCall(ctx, AuditLimited, r.URL.Path, "request rate")
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
	seen := m.see(h, a, w, r)
	defer seen.end(ctx)
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
			refuse(seen.writer(w), r, connect.CodePermissionDenied, errDenied)
			seen.returned()
			return
		}
		defer release()
	}
	r = seen.request(r.WithContext(ctx))
	if m.route.reads {
		r = running.WithBody(r, endOfStream)
	}
	m.route.next.ServeHTTP(seen.writer(w), r)
	seen.returned()
	servedOn(ctx)
}

// servedCall sees what an observer is told of a call that the host serves. A nil one sees
// nothing. It is the response writer and the request's body of the handler, and so is never
// used for another call.
type servedCall struct {
	http.ResponseWriter
	io.ReadCloser

	observer Observer
	names    *procedures.Set
	group    string // of the procedure
	path     string
	call     ServedCall
	outcome  proxy.Outcome
	wrote    bool

	mu   sync.Mutex
	read int64 // bytes; handlers may read in a goroutine of their own
}

// see begins to look at a call, where anybody wants to know.
func (m *middleware) see(h *hub, a *admission, w http.ResponseWriter, r *http.Request) *servedCall {
	o := h.observer()
	if o == nil || m.route.tells {
		return nil
	}
	s := &servedCall{ResponseWriter: w, observer: o, names: &h.answered, group: m.route.prefix, path: r.URL.Path}
	s.call = ServedCall{Start: time.Now(), Protocol: protocolOf(r), Trace: traceOf(r.Header)}
	if a.caller != nil {
		s.call.Caller, s.call.CallerRuntimeID = a.caller.id.SelfID(), a.caller.id.RuntimeID()
	}
	return s
}

// writer returns what the handler writes to.
func (s *servedCall) writer(w http.ResponseWriter) http.ResponseWriter {
	if s == nil {
		return w
	}
	return s
}

// request returns the request as the handler gets it.
func (s *servedCall) request(r *http.Request) *http.Request {
	if s != nil && r.Body != nil {
		s.ReadCloser = r.Body
		r.Body = s
	}
	return r
}

// Read reads the request's body.
func (s *servedCall) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read += int64(n)
	return n, err //nolint:wrapcheck // the body's own error
}

// WriteHeader implements http.ResponseWriter.
func (s *servedCall) WriteHeader(status int) {
	s.head(status)
	s.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (s *servedCall) Write(p []byte) (int, error) {
	s.head(http.StatusOK)
	n, err := s.ResponseWriter.Write(p)
	s.outcome.Body(p[:n])
	return n, err //nolint:wrapcheck // the writer's own error
}

// Flush implements http.Flusher.
func (s *servedCall) Flush() {
	s.head(http.StatusOK)
	_ = http.NewResponseController(s.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController.
func (s *servedCall) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s *servedCall) head(status int) {
	if !s.wrote && status >= http.StatusOK {
		s.wrote = true
		s.outcome.Head(status, s.Header())
	}
}

// returned takes note that the handler returned, and did not panic: what it wrote is whole.
func (s *servedCall) returned() {
	if s == nil {
		return
	}
	s.head(http.StatusOK)
	for _, name := range [...]string{http.TrailerPrefix + headerGRPCStatus, headerGRPCStatus} {
		if values := s.Header()[name]; len(values) > 0 {
			s.outcome.Trailer(headerGRPCStatus, values[0])
		}
	}
}

// end tells the observer.
func (s *servedCall) end(ctx context.Context) {
	if s == nil {
		return
	}
	s.mu.Lock()
	s.call.RequestBytes = s.read
	s.mu.Unlock()
	s.call.ResponseBytes, s.call.Code = s.outcome.ResponseBytes, connect.Code(s.outcome.Code())
	s.call.Procedure = s.names.Name(s.group, s.path)
	if s.call.Procedure == "" && answersProcedure(s.call.Code) {
		s.call.Procedure = s.names.Learn(s.group, s.path)
	}
	s.call.Duration = time.Since(s.call.Start)
	s.observer.CallServed(ctx, s.call)
}

// answersProcedure reports whether an answer shows that there is such a procedure: it is none
// that servers give before they look at the path.
func answersProcedure(code connect.Code) bool {
	switch code {
	case connect.CodeUnimplemented, connect.CodeUnauthenticated, connect.CodePermissionDenied, connect.CodeResourceExhausted,
		connect.CodeUnavailable, connect.CodeCanceled, connect.CodeDeadlineExceeded, connect.CodeUnknown:
		return false
	case connect.CodeInvalidArgument, connect.CodeNotFound, connect.CodeAlreadyExists, connect.CodeFailedPrecondition,
		connect.CodeAborted, connect.CodeOutOfRange, connect.CodeInternal, connect.CodeDataLoss:
	}
	return true
}

// withDeadline cuts off a body that trickles in as well as a handler that hangs.
func withDeadline(ctx context.Context, limit time.Duration, w http.ResponseWriter) (context.Context, context.CancelFunc) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(limit))
	return context.WithTimeout(ctx, limit)
}
