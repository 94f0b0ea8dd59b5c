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
	"github.com/masegraye/connect-plugin-go/internal/inflight"
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
	if x := s.restingWatch(ctx, c, req.Msg.GetServiceType()); x != nil {
		if err := s.openWatch(ctx, &x.openedWatch, runtimeID, req, x); err != nil {
			return err
		}
		return x.begin(ctx, stream)
	}
	w := &openedWatch{caller: c, serviceType: req.Msg.GetServiceType()}
	if err := s.openWatch(ctx, w, runtimeID, req, nil); err != nil {
		return err
	}
	defer w.close()
	return s.tell(ctx, c, &w.watcher, req, stream)
}

// openedWatch is what every watch has as long as it is open.
type openedWatch struct {
	caller      *caller // nil for the host itself
	serviceType string
	permit      inflight.Permit[*policy.Book]
	watcher     catalog.Watcher
}

// AllowedBy implements inflight.Subject.
func (w *openedWatch) AllowedBy(b *policy.Book) bool {
	return b.MayRequire(subjectOf(w.caller.id), w.serviceType)
}

// release takes the watch from those that policy may end.
func (w *openedWatch) release() {
	if w.caller != nil {
		w.caller.hub.permitted.Drop(&w.permit)
	}
}

func (w *openedWatch) close() {
	w.watcher.Close()
	w.release()
}

// openWatch begins to watch, where the caller may, until policy says otherwise. A watch that rests
// is told of news.
func (s *ServiceRegistry) openWatch(ctx context.Context, w *openedWatch, runtimeID string, req *connect.Request[connectpluginv1.WatchServiceRequest], told catalog.Told) error {
	m := req.Msg
	if err := ValidateServiceType(w.serviceType); err != nil {
		return errorf(connect.CodeInvalidArgument, "service_type: %w", err)
	}
	if len(m.GetEpoch()) > maxEpochLen {
		m.Epoch = unknownEpoch // and is not kept as long as the watch
	}
	if err := s.permitWatch(ctx, w, req.Spec().Procedure); err != nil {
		return err
	}
	wants := catalog.WatchRequest{
		Type: w.serviceType, RuntimeID: runtimeID, ResumeAfter: m.GetResumeAfter(), Epoch: m.GetEpoch(), Told: told, In: &w.watcher,
	}
	if w.caller != nil {
		wants.Fleet = &w.caller.hub.shareOf(w.caller.id).holds.listed
	}
	if _, err := s.made().Watch(wants); err != nil {
		w.release()
		return s.watchError(ctx, err, w.serviceType, req.Spec().Procedure)
	}
	return nil
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
	openedWatch

	s        *ServiceRegistry
	ctx      context.Context //nolint:containedctx // of the request, which goes on
	stay     *stay
	words    *wordings
	form     wording.Form
	observed func(sent int)
	tie      late.Tie
	deadline *time.Timer // nil for none

	errand herald.Errand
	// What happened: the client's deadline has passed, the request has ended, the pause is over, what was sent was taken.
	expired, ended, rested, took atomic.Bool

	// Of whoever does something for it.
	response               *h2serve.Lasting
	tempo                  *rate.Limiter // nil at first
	turns                  int           // taken without it
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
	return &restingWatch{openedWatch: openedWatch{caller: c, serviceType: serviceType}, s: s, ctx: st.ctx, stay: st, words: words}
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
func (x *restingWatch) begin(ctx context.Context, stream *connect.ServerStream[connectpluginv1.WatchServiceEvent]) error {
	x.observed = x.s.observeWatch(x.caller, x.serviceType)
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
	defer x.openedWatch.close()
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
			if x.reserved = true; x.pause(x.turn()) {
				continue
			}
		}
		if told, err := x.tell(); err != nil || !told && !x.paused {
			return err
		}
	}
}

// turn takes the turn of the next event, and returns how long it is to wait for that. The first two come at the beginning, or one
// of them later in a watch that resumes where nothing happened, and most watches hear of no other for long: what counts turns takes
// memory from the third on.
func (x *restingWatch) turn() time.Duration {
	const atOnce = 2
	if x.tempo == nil {
		if x.turns < min(atOnce, x.caller.hub.settings().limits.WatchEventBurst) {
			x.turns++
			return 0
		}
		x.tempo = tempoOf(x.caller)
		x.tempo.AllowN(x.caller.came, x.turns)
	}
	return delay(x.tempo, time.Now(), 1)
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
	x.stay.saw(said)
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

// permitWatch checks that a caller may watch a type, and lets a change of policy
// end the watch.
func (s *ServiceRegistry) permitWatch(ctx context.Context, w *openedWatch, procedure string) error {
	c := w.caller
	if err := s.mayWatch(ctx, c, w.serviceType, procedure); err != nil {
		return err
	}
	if err := s.spendChange(ctx, c, AuditEvent{Procedure: procedure, Right: RightRequires, Subject: w.serviceType}); err != nil {
		return err
	}
	if c != nil && !c.hub.hold(&w.permit, c.call, w) {
		return connect.NewError(connect.CodeNotFound, errNotAvailable)
	}
	return nil
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
