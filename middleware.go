package connectplugin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/h2serve"
	"github.com/masegraye/connect-plugin-go/internal/inflight"
	"github.com/masegraye/connect-plugin-go/internal/seats"
	"github.com/masegraye/connect-plugin-go/internal/swell"
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

// ServeHTTP identifies the caller before anything of the message is read. While a request is
// served its goroutine holds as little as can be: a host has one for each watch.
func (m *middleware) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := m.hub()
	if h == nil {
		m.unbound(r)
		refuse(w, r, connect.CodeUnauthenticated, errUnbound)
		return
	}
	var a admission
	if ctx := m.receive(h, &a, w, r); ctx != nil {
		m.admit(ctx, h, &a, w, r)
	}
}

// receive finds out who makes a request and has it paid for. What is returned is nil where
// the request was refused.
func (m *middleware) receive(h *hub, a *admission, w http.ResponseWriter, r *http.Request) context.Context {
	own := h.newRequest(r)
	p := &own.peer
	var ctx context.Context = own
	if !p.secure && !h.settings().allowInsecure {
		no := unauthenticated("", "plaintext request")
		no.err = errPlaintext
		m.deny(ctx, h, p, no, w, r)
		return nil
	}
	if no := p.conn.disowned; no != nil {
		m.deny(ctx, h, p, unauthenticated("", no.Error()), w, r)
		return nil
	}
	ctx, admitted, no := m.route.identify(ctx, h, p, r)
	if no != nil {
		m.deny(ctx, h, p, no, w, r)
		return nil
	}
	*a = admitted
	a.serving = &own.serving
	proveHolder(ctx, h, p, a.caller)
	if short := m.pay(h, a, r); short.what != "" {
		tooMuch(ctx, h, short, w, r)
		return nil
	}
	return ctx
}

// pay takes a request from its budget, and looks whether the bytes of its caller are paid.
// What is returned says of what there is not enough, the zero value for nothing, and until when.
func (m *middleware) pay(h *hub, a *admission, r *http.Request) limited {
	if !h.spend(a.budget) || a.budget.renewal && !h.spend(h.together("renewals:", a.caller.id, a.budget.rate)) {
		return limited{a.budget.limit(), a.budget.rate.wait()}
	}
	if a.caller == nil || m.route.vital {
		return limited{}
	}
	a.caller.came = h.clock.Now()
	carried := h.shareOf(a.caller.id).carried
	if debt := carried.Debt(a.caller.came); debt > 0 {
		return limited{tooManyBytes, carried.After(debt, bytesOf(r))}
	}
	return limited{}
}

// bytesOf is what a request takes to carry, about: its head once more, which was paid for before
// it was refused, and its message twice, of which the first is still on its way.
func bytesOf(r *http.Request) int64 {
	const (
		overhead = 32      // of a field, as HTTP/2 counts it
		most     = 1 << 40 // a peer states what it likes
	)
	n := int64(len(r.URL.Path)) + 2*min(max(r.ContentLength, 0), most)
	for name, values := range r.Header {
		for _, v := range values {
			n += int64(len(name) + len(v) + overhead)
		}
	}
	return n
}

// admit serves a request unless its caller has as much open as it may, and counts it among
// those that are open before anything of its message is read. A watch counts among watches, and here for a large head alone.
func (m *middleware) admit(ctx context.Context, h *hub, a *admission, w http.ResponseWriter, r *http.Request) {
	key := a.seatKey()
	if key == "" { // of a stranger who asks for an identity, of whom others take care
		m.call(ctx, h, a, w, r)
		return
	}
	var of *share
	if a.caller != nil {
		of = h.shareOf(a.caller.id)
	}
	n, watch := seatsOf(r), m.route.unary != nil && !m.route.unary(r.URL.Path)
	if watch { // which has a seat elsewhere
		n--
	}
	if n > 0 {
		took, met := h.sit(key, of, n)
		if met != seats.None {
			tooMuch(ctx, h, limited{tooManySeats[met], seatWait}, w, r)
			return
		}
		defer func() { leaveSeats(w, h, key, of, took) }()
	}
	if watch {
		m.admitWatch(ctx, h, a, of, w, r)
		return
	}
	m.call(ctx, h, a, w, r)
}

// seatsOf is how many requests one counts as, whose head is held as long as it is open.
func seatsOf(r *http.Request) int {
	const (
		field = 128 // bytes that one holds besides its text
		value = 16  // and each of its values
	)
	held := len(r.RequestURI)
	for name, values := range r.Header {
		held += field + len(name)
		for _, v := range values {
			held += value + len(v)
		}
	}
	for name := range r.Trailer {
		held += field + len(name)
	}
	return 1 + held/seatHolds
}

// admitWatch counts a request among the watches as well.
func (m *middleware) admitWatch(ctx context.Context, h *hub, a *admission, of *share, w http.ResponseWriter, r *http.Request) {
	seat := &a.serving.watch
	if short := h.seatWatch(seat, a.seatKey(), of); short != "" {
		tooMuch(ctx, h, limited{short, seatWait}, w, r)
		return
	}
	defer seat.leave()
	m.call(ctx, h, a, w, r)
}

// limited is what there is too much of, and when whoever asks may come again.
type limited struct {
	what string
	wait time.Duration
}

// tooMuch refuses a request. What that takes on the stack is apart from those that are served.
//
//go:noinline
func tooMuch(ctx context.Context, h *hub, of limited, w http.ResponseWriter, r *http.Request) {
	h.refusedOn(ctx)
	h.auditCall(ctx, AuditLimited, r.URL.Path, of.what)
	what := errTooMany
	switch of.what {
	case tooManyBytes:
		what = errTooManyBytes
	case tooManyCalls, tooManyCallsOfFleet, tooManyInAll:
		what = errTooManyCalls
	case tooManyWatches, tooManyWatchesOfFleet, tooManyWatchesInAll:
		what = errTooManyWatches
	}
	refuse(w, r, connect.CodeResourceExhausted, busyFor(what, of.wait))
}

// seatWait is when whoever has too much open is asked to come again.
const seatWait = time.Second

// seatKey is for whom a request takes a seat, empty for nobody.
func (a *admission) seatKey() string {
	if a.budget.key != "" && a.caller != nil {
		return a.caller.id.RuntimeID()
	}
	return a.budget.key
}

// handOver gives the seat of a watch back whose message is there.
func handOver(ctx context.Context) {
	if s := servingOf(ctx); s != nil {
		s.watch.leave()
	}
}

// deny refuses a request and records it. However often a peer is refused, it is told the
// same: what fills no log is no matter of the answer.
func (m *middleware) deny(ctx context.Context, h *hub, p *peer, no *denial, w http.ResponseWriter, r *http.Request) {
	c, known := callerFrom(ctx)
	if known { // what it may not is refused on its account
		heldBy(ctx, h, p, c.id)
	}
	h.refusedOn(ctx)
	event := AuditEvent{
		Kind: no.kind, Peer: p.addr, RuntimeID: no.runtimeID, Procedure: r.URL.Path, Subject: m.route.subject,
		AuthProvider: no.provider, Reason: no.reason,
	}
	if event.Subject != "" {
		event.Right = RightHostPlugins
	}
	if known {
		event.RuntimeID, event.SelfID = c.id.RuntimeID(), c.id.SelfID()
	}
	h.recordRefusal(p, c, event)
	refuse(w, r, no.code, no.err)
}

// call runs the handler in a context that ends with the identity and, for unary
// calls, with the deadline.
func (m *middleware) call(ctx context.Context, h *hub, a *admission, w http.ResponseWriter, r *http.Request) {
	own, p := a.serving, a.serving.undo.p
	u := &own.undo
	*u = undo{p: p, seen: m.see(h, a, w, r), around: ctx, caller: a.caller, bound: m.route.bound}
	defer u.after(w)
	bounded := m.route.unary != nil && m.route.unary(r.URL.Path)
	var root context.Context
	if bounded {
		ctx, u.cancel = context.WithTimeout(ctx, h.settings().limits.CallTimeout)
	}
	body := &own.body
	if m.route.unary != nil && (bounded || r.ProtoMajor > 1) { // in HTTP/1 the deadline is the connection's
		body.begin(ctx, h, a, r, w)
		u.seats = &body.seats
	}
	if !bounded && a.caller != nil {
		root = p.Context // a caller and its peer add values to it, and nothing else
	}
	ctx = u.begin(ctx, root, a, w)
	if r = r.WithContext(ctx); u.seats != nil {
		r.Body = body
	}
	if m.route.unary != nil && !bounded {
		u.streams = true
		h.streams.Add(u.running)
		own.stay.begin(ctx, w, u.seen)
	}
	if a.allowed != nil {
		release, ok := h.permit(u.running, a.allowed)
		if !ok {
			refuse(u.seen.writer(w), r, connect.CodeNotFound, errNotAvailable) // policy changed meanwhile
			u.refused = true
			return
		}
		u.release = release
	}
	r = u.seen.request(r)
	if m.route.reads {
		r, u.ending = endable(u.running, r, m.route.unary == nil)
	}
	m.route.next.ServeHTTP(u.seen.writer(w), r)
	u.served = true
}

// undo is what is to be done when a call has ended.
type undo struct {
	p       *peer           // who makes the request
	around  context.Context //nolint:containedctx // the call is in it
	ctx     context.Context //nolint:containedctx // of the call
	seen    *servedCall
	caller  *caller
	running *inflight.Call
	ending  *endingContext // nil for none
	ends    ends
	seats   *messageSeats      // of its message; nil for none
	cancel  context.CancelFunc // nil for none
	release func()             // nil for none
	streams bool               // it is among those that end before the host does
	bound   string             // of its message, if it is unary

	served, refused bool // the handler returned; it was not asked
}

// after does it: now, or at the end of a response that outlasts the call.
func (u *undo) after(w http.ResponseWriter) {
	if l := h2serve.LastingOf(w); l != nil {
		l.After(u.do)
		return
	}
	u.do()
}

func (u *undo) do() {
	if u.served || u.refused {
		u.seen.returned()
	}
	u.size()
	u.time()
	switch h := u.p.home; {
	case !u.served:
	case u.p.refused.Load() || u.unheard():
		h.refusedOn(u.ctx)
	default:
		servedOn(u.ctx, u.caller)
	}
	if u.release != nil {
		u.release()
	}
	if u.streams {
		u.p.home.streams.Remove(u.running)
	}
	if u.caller != nil {
		u.caller.id.Leave()
	}
	u.ends.untie()
	u.ending.over()
	u.running.Done()
	u.seats.leave()
	if u.cancel != nil {
		u.cancel()
	}
	u.seen.end(u.around)
}

// size records that the message was too large: it came to no handler, and for no reason that was recorded.
func (u *undo) size() {
	if !u.served || u.seen == nil || u.bound == "" || u.streams || u.p.arrived.Load() || u.p.refused.Load() {
		return
	}
	if connect.Code(u.seen.outcome.Code()) == connect.CodeResourceExhausted {
		u.p.home.auditBound(u.around, u.seen.path, u.bound)
	}
}

// time records that a unary call took longer than it may, and not for what its caller did.
func (u *undo) time() {
	over := func(ctx context.Context) bool { return errors.Is(ctx.Err(), context.DeadlineExceeded) }
	if u.cancel != nil && over(u.ctx) && !over(u.around) && !u.p.refused.Load() {
		u.p.home.auditMet(u.around, u.p, u.p.path, tooSlowCall)
	}
}

// mayBeTooLarge reports whether the message of a unary call may turn out to be larger than it may be.
func (m *middleware) mayBeTooLarge(h *hub, r *http.Request) bool {
	if m.route.bound == "" || m.route.unary == nil || !m.route.unary(r.URL.Path) {
		return false
	}
	l, encoding := &h.settings().limits, ""
	if name, _ := swell.Framing(r.Header); len(r.Header[name]) > 0 {
		encoding = r.Header[name][0]
	}
	return r.ContentLength < 0 || r.ContentLength > int64(min(l.MaxMessageBytes, l.MaxHandshakeBytes)) || encoding != ""
}

// arrivals takes note of each message that comes to a handler, and of the first one of a stream that is too large.
type arrivals struct{}

// WrapUnary implements connect.Interceptor.
func (arrivals) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if p, ok := ctx.Value(peerKey{}).(*peer); ok {
			p.arrived.Store(true)
		}
		return next(ctx, req)
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (arrivals) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements connect.Interceptor.
func (arrivals) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return next(ctx, arrivalConn{conn, ctx})
	}
}

// arrivalConn is a stream that takes note of messages that are too large.
type arrivalConn struct {
	connect.StreamingHandlerConn

	ctx context.Context //nolint:containedctx // of the call
}

// Receive implements connect.StreamingHandlerConn.
func (c arrivalConn) Receive(message any) error {
	err := c.StreamingHandlerConn.Receive(message)
	if p, ok := c.ctx.Value(peerKey{}).(*peer); ok && err != nil && connect.CodeOf(err) == connect.CodeResourceExhausted && !p.refused.Load() {
		p.home.auditBound(c.ctx, c.Spec().Procedure, tooLargeMessage)
	}
	return err //nolint:wrapcheck // the stream's own
}

// afterwards does something when a request has ended.
func afterwards(w http.ResponseWriter, f func()) {
	if l := h2serve.LastingOf(w); l != nil {
		l.After(f)
		return
	}
	f()
}

// stay is what a handler needs to know so that its response may outlast it.
type stay struct {
	w    http.ResponseWriter
	seen *servedCall
	ctx  context.Context //nolint:containedctx // of the call, which goes on
}

// begin notes that the response of a handler may outlast it, where that is so.
func (s *stay) begin(ctx context.Context, w http.ResponseWriter, seen *servedCall) {
	if h2serve.CanLast(w) {
		s.w, s.seen, s.ctx = w, seen, ctx
	}
}

// stayOf returns that of a handler, nil where its response ends with it.
func stayOf(ctx context.Context) *stay {
	if s := servingOf(ctx); s != nil && s.stay.w != nil {
		return &s.stay
	}
	return nil
}

// saw notes what is sent without the handler.
func (s *stay) saw(p []byte) {
	if s.seen != nil {
		s.seen.outcome.Body(p)
	}
}

// promptBody is a body that has to be there by its deadline.
type promptBody struct {
	io.ReadCloser

	ctrl  http.ResponseController
	ctx   context.Context //nolint:containedctx // of the call
	due   time.Time       // before it, reading ends for what ended the call
	bound string          // that is met then
	over  bool            // nothing more comes
	seats messageSeats
}

// Read implements io.Reader.
func (b *promptBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if full := b.seats.came(b.ctx, n); full != nil {
		return 0, full
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = connect.NewError(connect.CodeDeadlineExceeded, errSlowBody)
		if p, ok := peerFrom(b.ctx); ok && !b.over && p.home != nil && !time.Now().Before(b.due) {
			p.home.auditBound(b.ctx, p.path, b.bound)
		}
		b.over = true
	case err != nil && !b.over:
		b.over = true
		_ = b.ctrl.SetReadDeadline(time.Time{}) // a watch goes on for long
	}
	return n, err
}

// begin cuts the body of a request off that trickles in: when its own time is over, or that of its call, whatever comes first.
func (b *promptBody) begin(ctx context.Context, h *hub, a *admission, r *http.Request, w http.ResponseWriter) {
	*b = promptBody{ReadCloser: r.Body, ctrl: *http.NewResponseController(w), ctx: ctx, bound: tooSlowBody}
	b.seats = h.messageSeatsOf(a)
	b.due = time.Now().Add(h.settings().limits.BodyTimeout)
	if end, ok := ctx.Deadline(); ok && end.Before(b.due) {
		b.due, b.bound = end, tooSlowCall
	}
	_ = b.ctrl.SetReadDeadline(b.due) // not every writer has deadlines
}
