package connectplugin

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/recount"
	"github.com/masegraye/connect-plugin-go/internal/tally"
)

// Observer is told what happens in a host, for metrics, traces and tables ([ServeConfig].Observer). Every method is
// called after the fact, but for CallStarted, by the goroutine of what happened and never under a lock that guards what
// the host knows: what a method takes is added to that call, handshake or launch. So it does little, never blocks and
// never panics; for Launch and Exit the launcher waits no longer than [PluginSpec].StopGrace. The methods are called
// concurrently. Events carry names, sizes, times and codes, and no payload, credential or text of a peer; which of
// their names a peer may choose, each field says.
//
// Implementations embed [NopObserver], so that methods that come later do not break them.
type Observer interface {
	// CallStarted is called once for each call between plugins that policy allows, before it
	// is passed on, and a call of CallRouted follows it. It returns the trace context that the
	// provider gets in place of the caller's (call.Trace to leave it as it is), and a context
	// that CallRouted gets: one made of ctx, which ends with the call. The call itself goes on
	// in its own. It is on the way of every call: what it takes, the caller waits.
	CallStarted(ctx context.Context, call CallStart) (context.Context, TraceContext)
	// CallRouted is called when such a call is over: its answer was written, or it was broken
	// off. A stream is one call, so it may be hours after CallStarted.
	CallRouted(ctx context.Context, call RoutedCall)
	// CallServed is called when the host answered a call of one of its own services, its
	// plugins and capabilities, or a probe on its address. To look at one takes an allocation.
	CallServed(ctx context.Context, call ServedCall)
	// Handshake is called when a handshake was answered. It is one of the served calls, too.
	Handshake(event HandshakeEvent)
	// Watch is called when a watch of a service type began, and when it ended.
	Watch(event WatchEvent)
	// Launch is called when an instance of a plugin was started by a launcher and is healthy,
	// or failed to get there.
	Launch(event LaunchEvent)
	// Exit is called when an instance that was in service ended, whoever wanted that.
	Exit(event ExitEvent)
	// Refusal is called for every request and every connection that was refused, also for
	// those that the audit only counts; not for those that a host refuses because it ends.
	// Floods are made of refusals: it has to be cheap.
	Refusal(event RefusalEvent)
}

// TraceContext is what is passed on of a trace: the fields traceparent and tracestate of the
// W3C's Trace Context and baggage of its Baggage. Empty is none. It comes from a peer and may
// be anything; several fields of one name are joined with commas, and of several traceparents
// there is none.
type TraceContext struct {
	Traceparent, Tracestate, Baggage string
}

// Protocol is how a call is made.
type Protocol string

// The protocols of calls.
const (
	ProtocolConnect Protocol = "connect"
	ProtocolGRPC    Protocol = "grpc"
	ProtocolGRPCWeb Protocol = "grpc-web"
)

// CallStart is a call that is about to be passed on.
type CallStart struct {
	// Start is when the host began with it.
	Start time.Time
	// Caller is the self id of who calls, and CallerRuntimeID its runtime id.
	Caller, CallerRuntimeID string
	// Type is the service type, one that policy lets the caller call.
	Type string
	// Procedure is as in RoutedCall. It is empty where nobody got an answer from it yet.
	Procedure string
	// Protocol is that of the call.
	Protocol Protocol
	// Trace is what the caller sent.
	Trace TraceContext
}

// RoutedCall is a call between plugins that is over.
type RoutedCall struct {
	// Start is when the host began with it.
	Start time.Time
	// Caller is the self id of who called, and CallerRuntimeID its runtime id.
	Caller, CallerRuntimeID string
	// Provider is the self id of the plugin that the call went to last, and ProviderRuntimeID
	// its runtime id. Both are empty where none was there.
	Provider, ProviderRuntimeID string
	// Type is the service type, one that policy lets the caller call.
	Type string
	// Procedure is the path on the provider, such as "/acme.v1.Users/Get". Callers choose paths,
	// so it is said only of those that a provider of the type once answered, that are made of
	// what names of procedures are (letters, digits and "/._-", 256 bytes at most), and of 64 a
	// type at most; otherwise it is empty.
	Procedure string
	// Protocol is that of the call.
	Protocol Protocol
	// Code is what the caller learned: zero is success. It is read from the answer where the
	// provider gave one; one that cannot be read there is [connect.CodeUnknown].
	Code connect.Code
	// RequestBytes and ResponseBytes are what of the bodies went from the caller and to it,
	// as they are on the wire.
	RequestBytes, ResponseBytes int64
	// Waited is how long the provider took until its answer began, or the attempt failed,
	// without the time in which the caller was still sending. It is of the last attempt.
	Waited time.Duration
	// Attempt is how long the last attempt took, up to the end of the answer; zero where there
	// was none.
	Attempt time.Duration
	// Duration is how long the call took in all.
	Duration time.Duration
}

// ServedCall is a call that the host answered itself.
type ServedCall struct {
	// Start is when the host began with it.
	Start time.Time
	// Caller is the self id of who called, and CallerRuntimeID its runtime id. Both are empty
	// where the call had no identity.
	Caller, CallerRuntimeID string
	// Procedure is the path, of one that was answered before (see RoutedCall), or empty. That of
	// a capability is without the grant, "/capabilities/logger/acme.v1.Logger/Log".
	Procedure string
	// Protocol is that of the call.
	Protocol Protocol
	// Code is what the caller learned: zero is success.
	Code connect.Code
	// RequestBytes and ResponseBytes are the sizes of the bodies on the wire.
	RequestBytes, ResponseBytes int64
	// Duration is how long it took in all.
	Duration time.Duration
	// Trace is what the caller sent.
	Trace TraceContext
}

// HandshakeEvent is a handshake that was answered.
type HandshakeEvent struct {
	// SelfID and RuntimeID name the identity that was issued or renewed. They are empty where
	// there is none: what a peer claimed is not repeated.
	SelfID, RuntimeID string
	// Renewed reports that it had an identity before.
	Renewed bool
	// Code is zero where it succeeded.
	Code connect.Code
	// Duration is how long the host took.
	Duration time.Duration
}

// WatchEvent is the begin or the end of a watch.
type WatchEvent struct {
	// SelfID and RuntimeID name the plugin that watches; both are empty for the host itself.
	SelfID, RuntimeID string
	// Type is the service type that is watched, one that policy lets the plugin call.
	Type string
	// Ended tells the end from the begin.
	Ended bool
	// Events is how many were sent until the end.
	Events int
	// Duration is how long it lasted; zero at the begin.
	Duration time.Duration
}

// LaunchEvent is the start of an instance of a plugin.
type LaunchEvent struct {
	// Name is what the launcher calls the plugin, and RuntimeID its identity, which is empty
	// where it failed before it had one.
	Name, RuntimeID string
	// Pid is its process id, zero where it has no process of its own.
	Pid int
	// Failed reports that it did not get healthy in time, or at all.
	Failed bool
	// Duration is how long it took until then.
	Duration time.Duration
}

// ExitEvent is the end of an instance of a plugin.
type ExitEvent struct {
	// Name is what the launcher calls the plugin, and RuntimeID its identity.
	Name, RuntimeID string
	// Pid is its process id, zero where it had none.
	Pid int
	// Unasked reports that it ended by itself.
	Unasked bool
	// CrashLoop reports that it failed so often that the next start is put off.
	CrashLoop bool
	// Ran is how long it was in service.
	Ran time.Duration
}

// RefusalEvent is a request or a connection that was refused. Who it was and why stands in the
// audit, as long as that records single refusals.
type RefusalEvent struct {
	// Kind is that of the audit: [AuditAuthFailed], [AuditDenied], [AuditLimited],
	// [AuditConflict] or [AuditUnknownIdentity].
	Kind AuditKind
	// Where says what refused.
	Where RefusalPlace
	// SelfID and RuntimeID name the plugin, where it proved who it is.
	SelfID, RuntimeID string
}

// RefusalPlace is what refuses.
type RefusalPlace string

// The places of refusals.
const (
	RefusedConnection RefusalPlace = "connection" // TLS failed, or the connection was cut off
	RefusedRequest    RefusalPlace = "request"    // before or by the service that was called
)

// NopObserver does nothing with what happens. Embed it in an [Observer].
type NopObserver struct{}

// CallStarted returns what it was given.
func (NopObserver) CallStarted(ctx context.Context, call CallStart) (context.Context, TraceContext) {
	return ctx, call.Trace
}

// CallRouted does nothing.
func (NopObserver) CallRouted(context.Context, RoutedCall) {}

// CallServed does nothing.
func (NopObserver) CallServed(context.Context, ServedCall) {}

// Handshake does nothing.
func (NopObserver) Handshake(HandshakeEvent) {}

// Watch does nothing.
func (NopObserver) Watch(WatchEvent) {}

// Launch does nothing.
func (NopObserver) Launch(LaunchEvent) {}

// Exit does nothing.
func (NopObserver) Exit(ExitEvent) {}

// Refusal does nothing.
func (NopObserver) Refusal(RefusalEvent) {}

// observers tells several.
type observers []Observer

// JoinObservers returns one observer that tells all that are not nil, nor hold a nil pointer, in that order, and nil
// where all are or do. Each gets the trace context and the context that the one before returned.
func JoinObservers(all ...Observer) Observer {
	var some observers
	for _, o := range all {
		if !isNil(o) {
			some = append(some, o)
		}
	}
	switch len(some) {
	case 0:
		return nil
	case 1:
		return some[0]
	}
	return some
}

func (all observers) CallStarted(ctx context.Context, call CallStart) (context.Context, TraceContext) {
	for _, o := range all {
		ctx, call.Trace = o.CallStarted(ctx, call) //nolint:fatcontext // each gets what the one before made
	}
	return ctx, call.Trace
}

func (all observers) CallRouted(ctx context.Context, call RoutedCall) {
	for _, o := range all {
		o.CallRouted(ctx, call)
	}
}

func (all observers) CallServed(ctx context.Context, call ServedCall) {
	for _, o := range all {
		o.CallServed(ctx, call)
	}
}

func (all observers) Handshake(event HandshakeEvent) {
	for _, o := range all {
		o.Handshake(event)
	}
}

func (all observers) Watch(event WatchEvent) {
	for _, o := range all {
		o.Watch(event)
	}
}

func (all observers) Launch(event LaunchEvent) {
	for _, o := range all {
		o.Launch(event)
	}
}

func (all observers) Exit(event ExitEvent) {
	for _, o := range all {
		o.Exit(event)
	}
}

func (all observers) Refusal(event RefusalEvent) {
	for _, o := range all {
		o.Refusal(event)
	}
}

const (
	fieldTraceparent = "Traceparent"
	fieldTracestate  = "Tracestate"
	fieldBaggage     = "Baggage"
)

// traceOf reads the trace context of a request.
func traceOf(h http.Header) (t TraceContext) {
	t.read(h)
	return t
}

// read does what traceOf does, of one that is empty. What most have comes first, and what they have not
// is not written: what was just written is slow to copy.
func (t *TraceContext) read(h http.Header) {
	if parents := h[fieldTraceparent]; len(parents) == 1 {
		t.Traceparent = parents[0]
	}
	if states := h[fieldTracestate]; len(states) > 0 {
		t.Tracestate = joinedField(states)
	}
	if baggage := h[fieldBaggage]; len(baggage) > 0 {
		t.Baggage = joinedField(baggage)
	}
}

func joinedField(values []string) string {
	if len(values) == 1 {
		return values[0]
	}
	return strings.Join(values, ",")
}

// replaceTrace writes what changed of a trace context into a request.
func replaceTrace(h http.Header, before, after TraceContext) {
	if before == after {
		return
	}
	for _, f := range [...]struct{ name, before, after string }{
		{fieldTraceparent, before.Traceparent, after.Traceparent},
		{fieldTracestate, before.Tracestate, after.Tracestate},
		{fieldBaggage, before.Baggage, after.Baggage},
	} {
		switch {
		case f.before == f.after:
		case f.after == "":
			delete(h, f.name)
		default:
			h[f.name] = []string{f.after}
		}
	}
}

// contentType is that of a request.
func contentType(r *http.Request) string {
	values := r.Header["Content-Type"]
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// protocolOf tells the protocol of a request of a content type. What has none of gRPC is Connect's.
func protocolOf(contentType string) Protocol {
	codec, ok := strings.CutPrefix(contentType, "application/grpc")
	switch {
	case !ok:
		return ProtocolConnect
	case strings.HasPrefix(codec, "-web"):
		return ProtocolGRPCWeb
	}
	return ProtocolGRPC
}

// tallying is an observer that adds the calls between plugins up for operators, shows them to
// those who follow, and tells another one of everything.
type tallying struct {
	Observer

	table *tally.Table
	calls *tally.Feed[RoutedCall]
}

// CallRouted adds a call up.
func (t *tallying) CallRouted(ctx context.Context, call RoutedCall) {
	t.table.Add(tally.Edge{Caller: call.Caller, Provider: call.Provider, Type: call.Type}, tally.Call{
		Code: uint32(call.Code), Duration: call.Duration, Request: call.RequestBytes, Response: call.ResponseBytes,
		End: call.Start.Add(call.Duration),
	})
	t.calls.Publish(call)
	t.Observer.CallRouted(ctx, call)
}

// survives keeps a panic of the operator's own code from ending the host where no request is that it ends
// instead, such as a connection that is refused. Defer it.
func (h *hub) survives(what string) {
	if v := recover(); v != nil {
		h.logOnce("panicked:"+what).Error("the operator's code panicked", keySubject, what, keyError, printable(fmt.Sprint(v)))
	}
}

// tellUntrusted tells the observer that TLS failed, unless a peer just left.
func (h *hub) tellUntrusted(err error) {
	if explainRefusal(err.Error()) != "" {
		h.tellRefusal(nil, AuditAuthFailed, RefusedConnection)
	}
}

// tellRefusal tells the observer that a caller, or somebody unknown, was refused.
func (h *hub) tellRefusal(c *caller, kind AuditKind, where RefusalPlace) {
	defer h.survives("Observer.Refusal")
	o := h.observer()
	if o == nil {
		return
	}
	e := RefusalEvent{Kind: kind, Where: where}
	if c != nil {
		e.RuntimeID, e.SelfID = c.id.RuntimeID(), c.id.SelfID()
	}
	o.Refusal(e)
}

// recount says what was counted, until ctx ends.
func (h *hub) recount(ctx context.Context) {
	tick := time.NewTicker(recountEvery)
	defer tick.Stop()
	h.counts.Store(true)
	defer h.sayCounts()
	var rest <-chan time.Time // when what was too much of strangers is due, where none of them comes any more
	for {
		select {
		case <-tick.C:
			h.sayCounts()
		case <-h.strange.Over():
			rest = time.After(recordedOfStrangers.Every)
		case now := <-rest:
			rest = nil
			h.auditRest(h.strange.Due(now))
		case <-ctx.Done():
			return
		}
	}
}

// sayLeftOut says how many lines the log does not have since it was said last.
func (h *hub) sayLeftOut() {
	if n := h.leftOut.Swap(0); n > 0 {
		h.log().Warn(leftOutOfLog, keyMore, n)
	}
}

// auditCounts says what the audit only counted.
func (h *hub) auditCounts() {
	h.auditRest(h.strange.Take())
	for _, c := range []*recount.Counter[recurrence, who]{&h.recurring, &h.passing} {
		for what, n := range c.Take() {
			if what == (recurrence{}) { // it stands for many who have nothing in common
				n.Last = who{}
			}
			h.audit(AuditEvent{
				Kind: cmp.Or(what.kind, AuditLimited), Peer: n.Last.peer, RuntimeID: n.Last.runtimeID, SelfID: n.Last.selfID,
				Count: n.N, Reason: what.counted(),
			})
		}
	}
}

// counted is the reason of an event that stands for several.
func (r recurrence) counted() string {
	if r.bound == "" {
		return "counted since the last event of the kind"
	}
	return r.bound + ": counted since the last event of it"
}

// lastFailure is the last call to a plugin that failed, nil for none.
type lastFailure struct{ atomic.Pointer[failedCall] }

// failedCall says how a call to a plugin failed.
type failedCall struct {
	at   time.Time
	what string
}
