package connectplugin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/procedures"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
	"github.com/masegraye/connect-plugin-go/internal/seats"
	"github.com/masegraye/connect-plugin-go/internal/stack"
	"github.com/masegraye/connect-plugin-go/internal/swell"
	"github.com/masegraye/connect-plugin-go/internal/target"
)

// ingress is the host's outermost handler: it refuses what was not meant for this
// host and finds the route of the rest.
type ingress struct {
	hub   *hub
	names atomic.Pointer[target.Names]
	tls   *tls.Config // that the host serves with; nil in plaintext
	table routeTable
	// draining reports that the host takes no new work.
	draining func() bool
}

// ServeHTTP refuses foreign hosts and origins, unclean paths and unknown routes.
func (in *ingress) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	stack.Grow()
	if c := edgeOf(r.Context()); c != nil {
		c.Began()
		r.TLS = c.TLS()
		defer afterwards(w, c.Ended)
	}
	if !strings.HasPrefix(r.URL.Path, pathServices) { // of routed calls providers say what may be kept
		w.Header().Set(headerCacheControl, noStore)
	}
	switch {
	case !in.named(r) && !isProbe(r.URL.Path):
		in.hub.refusedOn(r.Context())
		in.note(r, fmt.Sprintf("foreign Host or Origin: the request is for %q: if that is this host, add it to ServeConfig.Hosts",
			clipped(r.Host)))
		refuse(w, r, connect.CodePermissionDenied, errDenied)
		return
	case !target.SameOrigin(r, in.hub.settings().allowInsecure):
		in.hub.refusedOn(r.Context())
		in.note(r, fmt.Sprintf("foreign Host or Origin: the request for %q comes from a page of %q",
			clipped(r.Host), clipped(r.Header.Get("Origin"))))
		refuse(w, r, connect.CodePermissionDenied, errDenied)
		return
	case !in.clean(r):
		in.hub.refusedOn(r.Context())
		in.note(r, "unclean path")
		refuse(w, r, connect.CodeNotFound, errNotAvailable)
		return
	case in.draining():
		decline(w, r)
		return
	}
	handler, ok := in.table.lookup(r.URL.Path)
	if !ok {
		in.hub.refusedOn(r.Context())
		in.nowhere(r)
		refuse(w, r, connect.CodeNotFound, errNotAvailable)
		return
	}
	handler.ServeHTTP(w, r)
}

// tooLarge refuses a request whose headers are larger than is taken, of which little is known.
func (in *ingress) tooLarge(w http.ResponseWriter, r *http.Request) {
	if c := edgeOf(r.Context()); c != nil {
		r.TLS = c.TLS()
		defer c.Ended()
	}
	in.hub.refusedOn(r.Context())
	in.hub.auditBound(in.hub.newPeer(r), r.URL.Path, tooLargeHead)
	tooLarge(w, r)
}

// exceeded records that a body is larger than it may be, if reading it gave that.
func exceeded(r *http.Request, err error) {
	p, ok := peerFrom(r.Context())
	if !ok || p.home == nil {
		return
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		p.home.auditBound(r.Context(), p.path, tooLargeCall)
	} else if errors.Is(err, swell.ErrSwollen) {
		p.home.auditBound(r.Context(), p.path, tooSwollen)
	}
}

// exceededField records that a field of a message has more than it may.
func exceededField(ctx context.Context, procedure string) {
	if p, ok := peerFrom(ctx); ok && p.home != nil {
		p.home.auditBound(ctx, procedure, tooLargeField)
	}
}

// swellBounded keeps what a handler of the user's decompresses within bounds, which are not its
// own to set: for who makes handlers with Connect has none without asking for them.
func swellBounded(next http.Handler, l *Limits) http.Handler {
	bounds, most := l.swelling(), l.MaxCallBytes
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		guarded, err := swell.Guard(r, bounds, swellError)
		if errors.Is(err, swell.ErrSwollen) {
			exceeded(r, err)
		}
		switch {
		case err == nil && guarded == r && r.ContentLength >= 0 && r.ContentLength <= most:
			next.ServeHTTP(w, r) // it cannot be too large
		case err == nil:
			next.ServeHTTP(w, told(guarded))
		case errors.Is(err, swell.ErrEncoding) && !errorWriter.IsSupported(r):
			http.Error(w, err.Error(), http.StatusUnsupportedMediaType)
		default:
			refuse(w, r, connect.CodeOf(swellError(err)), err)
		}
	})
}

// told returns a request of which it is recorded that its body is larger than it may be.
func told(r *http.Request) *http.Request {
	if r.Body == nil || r.Body == http.NoBody {
		return r
	}
	out := r.WithContext(r.Context())
	out.Body = &toldBody{r.Body, r}
	return out
}

// toldBody is the body of such a request.
type toldBody struct {
	io.ReadCloser

	of *http.Request
}

// Read implements io.Reader.
func (b *toldBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		exceeded(b.of, err)
	}
	return n, err //nolint:wrapcheck // the body's own error
}

// named reports whether a request is for a name of this host: one that is configured, or
// that stands in the certificate which was shown on the request's connection. A server of
// the user's own does not tell which that was; it follows from the name that its client
// asked for in TLS.
func (in *ingress) named(r *http.Request) bool {
	names := in.names.Load()
	if conn, ok := connectionOf(r.Context()); ok {
		return names.Known(r.Host, conn.served)
	}
	if names.Known(r.Host, nil) {
		return true
	}
	return in.tls != nil && r.TLS != nil && names.Known(r.Host, certs.ServerLeafFor(in.tls, r.TLS.ServerName))
}

// clean reports whether the path of a request can mean one thing alone. A server of the user's own may have taken off what
// the host is mounted below.
func (in *ingress) clean(r *http.Request) bool {
	if _, own := connectionOf(r.Context()); own {
		return target.CleanPath(r)
	}
	return target.CleanPathBelow(r)
}

// isProbe reports whether a path is that of a probe, which asks for an address and not
// for a name, learns one bit and changes nothing.
func isProbe(path string) bool { return path == pathHealthz || path == pathReadyz }

func (in *ingress) note(r *http.Request, reason string) {
	in.hub.auditCall(in.hub.newPeer(r), AuditDenied, r.URL.Path, reason)
}

// nothingServed is the reason of a request for a path at which there is nothing.
const nothingServed = "nothing is served at this path; if a client's calls come here, it has a wrong path in its HostURL"

// nowhere records such a request: the first one of a peer, and counted beyond that.
func (in *ingress) nowhere(r *http.Request) {
	in.hub.tellRefusal(nil, AuditDenied, RefusedRequest)
	p := in.hub.newPeer(r)
	e := AuditEvent{Kind: AuditDenied, Peer: p.addr, Procedure: r.URL.Path, Reason: nothingServed}
	in.hub.auditCounted(e.by(p.conn), e)
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
	if m.route.tells || o == nil && !m.mayBeTooLarge(h, r) {
		return nil
	}
	s := &servedCall{ResponseWriter: w, observer: o, names: &h.answered, group: m.route.prefix, path: procedureOf(r.URL.Path)}
	s.call = ServedCall{Start: time.Now(), Protocol: protocolOf(contentType(r)), Trace: traceOf(r.Header)}
	if a.caller != nil {
		s.call.Caller, s.call.CallerRuntimeID = a.caller.id.SelfID(), a.caller.id.RuntimeID()
	}
	return s
}

// procedureOf is a path as an observer is told of it: of a call with a grant it has the type and
// the procedure, since there are any number of grants.
func procedureOf(path string) string {
	granted, ok := strings.CutPrefix(path, pathCapabilities)
	if !ok {
		return path
	}
	capType, rest, _ := strings.Cut(granted, "/")
	_, rest, _ = strings.Cut(rest, "/")
	return pathCapabilities + capType + "/" + rest
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
	if s == nil || s.observer == nil {
		return
	}
	s.mu.Lock()
	s.call.RequestBytes = s.read
	s.mu.Unlock()
	s.call.ResponseBytes, s.call.Code = s.outcome.ResponseBytes, connect.Code(s.outcome.Code())
	s.call.Procedure = s.names.Name(s.group, s.path)
	brokenOff := s.call.Code == connect.CodeCanceled && s.call.ResponseBytes > 0 // by its caller, as most streams end
	if s.call.Procedure == "" && (brokenOff || answersProcedure(s.call.Code)) {
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

// servedOn says that a request was served, and refusedOn that it was not: who only asks for
// what it does not get is cut off. A request that its peer gave up explains nothing.
func servedOn(ctx context.Context, by *caller) {
	if c := edgeOf(ctx); c != nil && ctx.Err() == nil {
		c.Served(by != nil)
	}
}

// messageSeats are those that the message of a call takes while it comes, beside the one of the call: one for each seatHolds bytes,
// as its head does, but no more than half of what its caller may have.
type messageSeats struct {
	h     *hub
	key   string // empty for who has no seat
	of    *share
	bytes int
	took  int
}

// messageSeatsOf are those of the message of a call that was admitted.
func (h *hub) messageSeatsOf(a *admission) messageSeats {
	s := messageSeats{h: h, key: a.seatKey()}
	if a.caller != nil {
		s.of = h.shareOf(a.caller.id)
	}
	return s
}

// came takes account of bytes of the message. The error is for its caller.
func (s *messageSeats) came(ctx context.Context, n int) error {
	if s.bytes += n; s.key == "" {
		return nil
	}
	for need := min(s.bytes/seatHolds, s.h.settings().limits.MaxOpenCallsPerIdentity/2); s.took < need; {
		took, met := s.h.sit(s.key, s.of, 1)
		if met != seats.None {
			if p, ok := peerFrom(ctx); ok {
				s.h.auditBound(ctx, p.path, tooManySeats[met])
			}
			return busyFor(errTooManyCalls, seatWait)
		}
		s.took += took
	}
	return nil
}

// leave gives them back.
func (s *messageSeats) leave() {
	if s != nil && s.took > 0 {
		s.h.rise(s.key, s.of, s.took)
		s.took = 0
	}
}

// unheard reports that no message of the service's came, though its peer did not give up: it is compressed or encoded in a way
// that nobody speaks, or malformed, or for a procedure that there is not.
func (u *undo) unheard() bool {
	return u.bound != "" && !u.streams && !u.p.arrived.Load() && u.ctx.Err() == nil
}

// begin begins a call, in the context that it returns.
func (u *undo) begin(ctx, root context.Context, a *admission, w http.ResponseWriter) context.Context {
	u.running = a.call()
	u.ctx = u.running.Begin(ctx, root, w)
	u.ends = a.endWith(u.running)
	if a.caller != nil {
		a.caller.id.Enter()
	}
	return u.ctx
}

// request is who makes a request, with what the middleware needs of it as long as it is served: in one piece, as there is one
// for each watch. It is the context in which both are known.
type request struct {
	peer
	serving
}

// serving is what the middleware needs of a request.
type serving struct {
	body  promptBody
	stay  stay
	watch watchSeat
	undo  undo
}

// newRequest returns a request with who makes it, as newPeer does.
func (h *hub) newRequest(r *http.Request) *request {
	if conn, ok := connectionOf(r.Context()); ok {
		own := new(request)
		own.undo.p = &own.peer
		h.meet(&own.peer, conn, r)
		return own
	}
	own := &struct {
		request

		conn connection
	}{conn: connection{foreign: true}}
	own.undo.p = &own.peer
	h.meet(&own.peer, &own.conn, r)
	return &own.request
}

type servingKey struct{}

// Value implements context.Context. What there is of serving is that of this request, even if it was made while another one
// is served.
func (q *request) Value(key any) any {
	if key == (servingKey{}) {
		return &q.serving
	}
	return q.peer.Value(key)
}

// servingOf returns what the middleware has of a request, nil where no middleware serves it.
func servingOf(ctx context.Context) *serving {
	s, _ := ctx.Value(servingKey{}).(*serving)
	return s
}

func (h *hub) refusedOn(ctx context.Context) {
	c := edgeOf(ctx)
	if c == nil {
		return
	}
	c.Refused()
	conn, _ := connectionOf(ctx)
	if id := conn.held.Load(); id != nil && h.shareOf(id).carried.Waits(time.Now()) {
		h.auditWait(id, tooManyRefusals)
	}
}

// decline refuses a request of a host that ends in words that say that nothing was done with it, as no answer does that its caller may take
// for one of a call which was begun. A probe has an answer.
func decline(w http.ResponseWriter, r *http.Request) {
	if refuser, ok := w.(interface{ Refuse() bool }); ok && !isProbe(r.URL.Path) && refuser.Refuse() {
		return
	}
	refuse(w, r, connect.CodeUnavailable, errShuttingDown)
}
