package connectplugin

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/time/rate"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/backoff"
	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/h2serve"
	"github.com/masegraye/connect-plugin-go/internal/herald"
	"github.com/masegraye/connect-plugin-go/internal/late"
	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/wording"
)

// WatchService sends the state of a service type: first as it is, then at every
// change, numbered. A watcher that fell behind gets one event with resync, the
// number missed and the current state; so does one of a type that changes more often than
// [Limits].WatchEventsPerSecond. The stream ends with Unavailable when the
// host shuts down, with Unauthenticated when the caller's identity ends, and with
// NotFound when the caller may not (or no longer) use the type.
func (s *ServiceRegistry) WatchService(ctx context.Context, req *connect.Request[connectpluginv1.WatchServiceRequest], stream *connect.ServerStream[connectpluginv1.WatchServiceEvent]) error {
	c, runtimeID, err := callOf(ctx, &s.member, req)
	if err != nil {
		return err
	}
	handOver(ctx)
	ctx, done := c.attend(ctx)
	defer done()
	x := s.restingWatch(ctx, c, req.Msg.GetServiceType())
	w, release, err := s.openWatch(ctx, c, runtimeID, req, x)
	if err != nil {
		return err
	}
	if x != nil {
		return x.begin(ctx, w, release, stream)
	}
	defer release()
	defer w.Close()
	return s.tell(ctx, c, w, req, stream)
}

// openWatch begins to watch, where the caller may, until policy says otherwise. A watch that rests
// is told of news.
func (s *ServiceRegistry) openWatch(ctx context.Context, c *caller, runtimeID string, req *connect.Request[connectpluginv1.WatchServiceRequest], x *restingWatch) (w *catalog.Watcher, release func(), err error) {
	m := req.Msg
	if err := ValidateServiceType(m.GetServiceType()); err != nil {
		return nil, nil, errorf(connect.CodeInvalidArgument, "service_type: %w", err)
	}
	if len(m.GetEpoch()) > maxEpochLen {
		m.Epoch = unknownEpoch // and is not kept as long as the watch
	}
	release, err = s.permitWatch(ctx, c, m.GetServiceType(), req.Spec().Procedure)
	if err != nil {
		return nil, nil, err
	}
	wants := catalog.WatchRequest{
		Type: m.GetServiceType(), RuntimeID: runtimeID, ResumeAfter: m.GetResumeAfter(), Epoch: m.GetEpoch(),
	}
	if c != nil {
		wants.Fleet = &c.hub.shareOf(c.id).holds.listed
	}
	if x != nil {
		wants.Told = x
	}
	w, err = s.made().Watch(wants)
	if err != nil {
		release()
		return nil, nil, s.watchError(ctx, err, m.GetServiceType(), req.Spec().Procedure)
	}
	return w, release, nil
}

// tell sends what happens to a type until its watch ends: of a server that is not the host's own,
// and where interceptors of the operator's are around it.
func (s *ServiceRegistry) tell(ctx context.Context, c *caller, w *catalog.Watcher, req *connect.Request[connectpluginv1.WatchServiceRequest], stream *connect.ServerStream[connectpluginv1.WatchServiceEvent]) error {
	sent, ended := 0, s.observeWatch(c, req.Msg.GetServiceType())
	defer func() { ended(sent) }()
	// The answer begins now: a watch that resumes and missed nothing may have
	// nothing to say for long, and its client waits for the headers.
	if err := stream.Send(nil); err != nil {
		return err
	}
	for tempo := tempoOf(c); ; {
		if late := tempo.Reserve().Delay(); late > 0 && backoff.Wait(ctx, late) {
			w.Latest()
		}
		w.Await(ctx) // here, where little of the goroutine's stack is used
		if err := s.tellOnce(ctx, c, w, req, stream); err != nil {
			return err
		}
		sent++
	}
}

// tellOnce sends the next event.
func (s *ServiceRegistry) tellOnce(ctx context.Context, c *caller, w *catalog.Watcher, req *connect.Request[connectpluginv1.WatchServiceRequest], stream *connect.ServerStream[connectpluginv1.WatchServiceEvent]) error {
	serviceType, procedure := req.Msg.GetServiceType(), req.Spec().Procedure
	event, err := w.Next(ctx)
	if err != nil {
		return s.watchError(ctx, err, serviceType, procedure)
	}
	if late := toldLater(c, event); late > 0 && backoff.Wait(ctx, late) {
		w.Latest() // of what happened meanwhile
	}
	// Rights are checked at each delivery, too.
	if err := s.mayWatch(ctx, c, serviceType, procedure); err != nil {
		return err
	}
	return stream.Send(wireEvent(event))
}

// restingWatch is a watch that takes no goroutine while nothing happens. What there is to do for it
// the registry's herald does.
type restingWatch struct {
	// Fixed before the herald knows it.
	s           *ServiceRegistry
	ctx         context.Context //nolint:containedctx // of the request, which goes on
	caller      *caller
	stay        *stay
	seen        *servedCall // nil where nobody observes calls
	words       *wordings
	form        wording.Form
	serviceType string
	tempo       *rate.Limiter
	watcher     *catalog.Watcher
	release     func()
	observed    func(sent int)
	tie         late.Tie
	deadline    *time.Timer // nil for none

	errand herald.Errand
	// What happened: the client's deadline has passed, the request has ended, the pause is over, what was sent was taken.
	expired, ended, rested, took atomic.Bool

	// Of whoever does something for it.
	response               *h2serve.Lasting
	pausing                *time.Timer
	held                   *catalog.Event // that is told after the pause
	sent                   int
	reserved, paused, full bool // the next event has its turn; it waits for that; the peer has to take more
	over                   bool
	book                   *policy.Book // by which it may hear of the type
	as                     any          // what is known of the caller, by which it may
}

// restingWatch returns a watch that is to rest, nil where it has to wait.
func (s *ServiceRegistry) restingWatch(ctx context.Context, c *caller, serviceType string) *restingWatch {
	words, st := s.words.Load(), stayOf(ctx)
	if words == nil || st == nil || c == nil {
		return nil
	}
	return &restingWatch{s: s, ctx: st.ctx, caller: c, stay: st, seen: st.seen, words: words, serviceType: serviceType, tempo: tempoOf(c)}
}

// Begin implements h2serve.Owner.
func (x *restingWatch) Begin(l *h2serve.Lasting) {
	x.response = l
	x.s.herald.Begin(&x.errand, x)
}

// News implements catalog.Told.
func (x *restingWatch) News() { x.s.herald.Wake(&x.errand) }

// Ended implements late.Ender, of the request.
func (x *restingWatch) Ended(error) {
	x.ended.Store(true)
	x.News()
}

// Taken implements h2serve.Owner.
func (x *restingWatch) Taken() {
	x.took.Store(true)
	x.News()
}

// Do implements herald.Chore: it does what there is to do.
func (x *restingWatch) Do() {
	if x.over {
		return
	}
	if err := x.goOn(); err != nil {
		x.over = true
		defer x.caller.hub.survives("Observer.Watch")
		defer x.end(err)
		x.close()
	}
}

// begin begins the answer, and leaves the rest of it to the herald once the handler has returned.
func (x *restingWatch) begin(ctx context.Context, w *catalog.Watcher, release func(), stream *connect.ServerStream[connectpluginv1.WatchServiceEvent]) error {
	x.watcher, x.release, x.observed = w, release, x.s.observeWatch(x.caller, x.serviceType)
	x.tie = late.OnEnd(x.ctx, x)
	err := stream.Send(nil) // at once: as tell does
	if err == nil && !h2serve.Last(x.stay.w, x) {
		err = connect.NewError(connect.CodeInternal, errNotAvailable)
	}
	if err != nil {
		x.close()
		return err
	}
	x.form = wording.FormOf(x.stay.w.Header())
	if at, ok := ctx.Deadline(); ok {
		x.deadline = time.AfterFunc(time.Until(at), func() {
			x.expired.Store(true)
			x.News()
		})
	}
	return nil
}

// close ends the watch itself.
func (x *restingWatch) close() {
	defer x.release()
	defer x.watcher.Close()
	x.tie.Loose()
	x.observed(x.sent)
}

// end ends the answer.
func (x *restingWatch) end(err error) {
	for _, t := range []*time.Timer{x.deadline, x.pausing} {
		if t != nil {
			t.Stop()
		}
	}
	said, header := x.words.end(x.form, err)
	x.stay.saw(said)
	x.response.End(said, header)
}

// goOn tells what there is to tell. An error is that with which the watch ends.
func (x *restingWatch) goOn() (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = x.words.recovered(x.ctx, connect.Spec{Procedure: watchProcedure}, nil, v)
		}
	}()
	for {
		switch {
		case x.expired.Load():
			return connect.NewError(connect.CodeDeadlineExceeded, context.DeadlineExceeded)
		case x.ended.Load():
			return endOfStream(x.ctx)
		case x.full && !x.took.Swap(false), x.paused && !x.rested.Swap(false):
			return nil
		case x.paused:
			x.watcher.Latest() // of what happened meanwhile
		}
		x.full, x.paused = false, false
		if !x.reserved {
			if x.reserved = true; x.pause(delay(x.tempo, time.Now(), 1)) {
				continue
			}
		}
		if told, err := x.tell(); err != nil || !told && !x.paused {
			return err
		}
	}
}

// pause has the watch rest for a time, even if something happens. It reports false where there is
// no time.
func (x *restingWatch) pause(d time.Duration) bool {
	switch {
	case d <= 0:
		return false
	case x.pausing == nil:
		x.pausing = time.AfterFunc(d, func() {
			x.rested.Store(true)
			x.News()
		})
	default:
		x.pausing.Reset(d)
	}
	x.paused = true
	return true
}

// tell sends the next event, if there is one whose time has come.
func (x *restingWatch) tell() (told bool, err error) {
	event := x.held
	if event == nil {
		next, ok, err := x.watcher.Take()
		if err != nil {
			return false, x.s.watchError(x.ctx, err, x.serviceType, watchProcedure)
		}
		if !ok {
			return false, nil
		}
		if event = &next; x.pause(toldLater(x.caller, next)) {
			kept := next // what is told at once needs no memory
			x.held = &kept
			return false, nil
		}
	}
	x.held = nil
	if err := x.mayHear(); err != nil {
		return false, err
	}
	said := x.words.event(x.form, event)
	if x.seen != nil {
		x.stay.saw(said)
	}
	x.sent++
	x.reserved, x.full = false, !x.response.Send(said)
	return true, nil
}

// mayHear checks rights at each delivery, as tell does: anew where policy or what is known of the
// caller is not what it was.
func (x *restingWatch) mayHear() error {
	book, as := x.caller.hub.rules.Load(), x.caller.id.Attributes()
	if x.book == book && x.as == as {
		return nil
	}
	if err := x.s.mayWatch(x.ctx, x.caller, x.serviceType, watchProcedure); err != nil {
		return err
	}
	x.book, x.as = book, as
	return nil
}

const watchProcedure = connectpluginv1connect.ServiceRegistryWatchServiceProcedure

// observeWatch tells the observer of the begin of a watch, and returns what tells of its end.
func (s *ServiceRegistry) observeWatch(c *caller, serviceType string) (ended func(sent int)) {
	h := s.bound.Load()
	if h == nil || h.observer() == nil {
		return func(int) {}
	}
	e, begun := WatchEvent{Type: serviceType}, time.Now()
	if c != nil {
		e.SelfID, e.RuntimeID = c.id.SelfID(), c.id.RuntimeID()
	}
	h.observer().Watch(e)
	return func(sent int) {
		e.Ended, e.Events, e.Duration = true, sent, time.Since(begun)
		h.observer().Watch(e)
	}
}

const (
	// maxEpochLen is far more than an epoch has.
	maxEpochLen = 128
	// unknownEpoch is none that there ever was.
	unknownEpoch = "unknown"
)

// toldLater takes what a watcher gets of a provider from the provider's share, and returns how
// much later it gets it. What the host itself registered or watches is not counted.
func toldLater(c *caller, e catalog.Event) time.Duration {
	if c == nil || len(e.Provider.Metadata) == 0 {
		return 0
	}
	id, ok := c.hub.store.Lookup(e.Provider.RuntimeID)
	if !ok {
		return 0
	}
	bytes := 0
	for key, value := range e.Provider.Metadata {
		bytes += len(key) + len(value)
	}
	of := c.hub.shareOf(id).announced
	late := delay(of, time.Now(), min(bytes, of.Burst()))
	if late > 0 {
		c.hub.auditWait(id, tooManyAnnounced)
	}
	return late
}

// delay takes n of a limiter, and returns how long that is to be waited for.
func delay(of *rate.Limiter, now time.Time, n int) time.Duration {
	if of.AllowN(now, n) { // as most of the time, and without memory for a reservation
		return 0
	}
	return of.ReserveN(now, n).DelayFrom(now)
}

// permitWatch checks that a caller may watch a type, and lets a change of policy
// end the watch.
func (s *ServiceRegistry) permitWatch(ctx context.Context, c *caller, serviceType, procedure string) (release func(), err error) {
	if err := s.mayWatch(ctx, c, serviceType, procedure); err != nil {
		return nil, err
	}
	if err := s.spendChange(ctx, c, AuditEvent{Procedure: procedure, Right: RightRequires, Subject: serviceType}); err != nil {
		return nil, err
	}
	if c == nil {
		return func() {}, nil
	}
	release, ok := c.hub.permit(c.call, func(b *policy.Book) bool { return b.MayRequire(subjectOf(c.id), serviceType) })
	if !ok {
		return nil, connect.NewError(connect.CodeNotFound, errNotAvailable)
	}
	return release, nil
}

// mayWatch refuses a type that the caller may not use as if nobody provided it.
func (s *ServiceRegistry) mayWatch(ctx context.Context, c *caller, serviceType, procedure string) error {
	if c == nil || c.hub.mayRequire(c.id, serviceType) {
		return nil
	}
	s.note(ctx, RightRequires.event(AuditDenied, procedure, serviceType, c.hub.notAllowed(c.id, RightRequires, serviceType)))
	return connect.NewError(connect.CodeNotFound, errNotAvailable)
}

func (s *ServiceRegistry) watchError(ctx context.Context, err error, serviceType, procedure string) error {
	switch {
	case errors.Is(err, catalog.ErrLimit):
		what := met(err, tooManyWatches, tooManyWatchesOfFleet, "", tooManyWatchesInAll)
		s.note(ctx, RightRequires.event(AuditLimited, procedure, serviceType, what))
		return busyFor(errTooManyWatches, seatWait)
	case ctx.Err() != nil:
		return endOfStream(ctx)
	case errors.Is(err, catalog.ErrClosed):
		if c, ok := callerFrom(ctx); ok && c.id.Ended() {
			return connect.NewError(connect.CodeUnauthenticated, errIdentityEnded)
		}
		return connect.NewError(connect.CodeUnavailable, errShuttingDown)
	}
	return connect.NewError(connect.CodeInternal, errNotAvailable)
}

// observe records what the catalogue did that no request tells.
func (s *ServiceRegistry) observe(c catalog.Change) {
	h := s.bound.Load()
	if h == nil {
		return
	}
	e := AuditEvent{RuntimeID: c.RuntimeID, Right: RightRequires, Subject: c.Type}
	switch c.Kind {
	case catalog.ChangeWatcherBehind:
		e.Kind, e.Reason = AuditWatcherDropped, fmt.Sprintf("watcher fell behind and missed %d events", c.Missed)
	case catalog.ChangeTookOver:
		e.Kind, e.Right, e.Reason = AuditRegistered, RightProvides, "it stood by and takes over"
		if c.Owner != "" {
			e.Reason += fmt.Sprintf(" from %q, which is dead: it has no connection and does not answer", c.Owner)
		}
	default:
		return
	}
	id, ok := h.store.Lookup(c.RuntimeID)
	if !ok {
		h.audit(e)
		return
	}
	e.SelfID, e.Peer = id.SelfID(), addrOf(id)
	h.auditChange(id, e)
	if c.Kind == catalog.ChangeTookOver && h.seemsDead(id) {
		s.press(id)
	}
}

func wireEvent(e catalog.Event) *connectpluginv1.WatchServiceEvent {
	out := &connectpluginv1.WatchServiceEvent{
		ServiceType: e.Type,
		State:       wireState(e.State),
		Sequence:    e.Sequence,
		Epoch:       e.Epoch,
		Resync:      e.Resync,
		Missed:      e.Missed,
	}
	if e.Provider.RuntimeID != "" {
		out.Endpoint = wireEndpoint(e.Provider)
	}
	return out
}

func wireState(s catalog.State) connectpluginv1.ServiceState {
	switch s {
	case catalog.StateAvailable:
		return connectpluginv1.ServiceState_SERVICE_STATE_AVAILABLE
	case catalog.StateDegraded:
		return connectpluginv1.ServiceState_SERVICE_STATE_DEGRADED
	case catalog.StateUnavailable:
	}
	return connectpluginv1.ServiceState_SERVICE_STATE_UNAVAILABLE
}

// tempoOf is how fast a caller is told of changes. The host itself is told of all.
func tempoOf(c *caller) *rate.Limiter {
	if c == nil {
		return rate.NewLimiter(rate.Inf, 0)
	}
	l := &c.hub.settings().limits
	return rate.NewLimiter(rate.Limit(l.WatchEventsPerSecond), l.WatchEventBurst)
}
