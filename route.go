package connectplugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/inflight"
	"github.com/masegraye/connect-plugin-go/internal/policy"
)

// route is one entry of a host's route table: everything under prefix, or exactly
// the path where it does not end in a slash. It brings what the middleware has to
// know of it.
type route struct {
	prefix   string
	subject  string // for the audit: the host plugin that the route serves, empty for none
	identify identify
	unary    func(path string) bool // whether a call has the unary deadline; nil: none has, and shutdown ends none early
	reads    bool                   // the handler may wait for more of the request
	tells    bool                   // the handler tells the observer itself
	vital    bool                   // what keeps an identity alive: not refused for the bytes that it carried
	bound    string                 // of the messages of unary calls, for the audit; empty: nobody looks
	next     http.Handler
}

// callerRoute is the route of a service for callers with a runtime identity.
func callerRoute(path string, service http.Handler) route {
	return route{prefix: path, identify: observed(identifyCaller), unary: unaryProcedure, next: service}
}

func (rt *route) matches(path string) bool {
	if strings.HasSuffix(rt.prefix, "/") {
		return strings.HasPrefix(path, rt.prefix)
	}
	return path == rt.prefix
}

// routeTable finds the handler of a path: the longest prefix wins.
type routeTable []*middleware

var errRouteTaken = errors.New("two routes share a prefix")

// newRouteTable puts the middleware in front of each route and refuses routes that
// overlap.
func newRouteTable(h func() *hub, routes []route) (routeTable, error) {
	t := make(routeTable, 0, len(routes))
	for i := range routes {
		x := &routes[i]
		for j := range routes[i+1:] {
			if y := &routes[i+1+j]; x.matches(y.prefix) || y.matches(x.prefix) {
				return nil, fmt.Errorf("%w: Plugins: %w: %q and %q", ErrInvalidConfig, errRouteTaken, x.prefix, y.prefix)
			}
		}
		t = append(t, &middleware{hub: h, route: *x})
	}
	slices.SortFunc(t, func(x, y *middleware) int { return cmp.Compare(len(y.route.prefix), len(x.route.prefix)) })
	return t, nil
}

func (t routeTable) lookup(path string) (http.Handler, bool) {
	for _, m := range t {
		if m.route.matches(path) {
			return m, true
		}
	}
	return nil, false
}

// identify is how a route finds out who makes a request of a peer, before anything
// of the message is read: the context in which the request is served and what the
// middleware needs to know, or why it is not served. It may take from the header
// what is not for the route's handler. Each is defined beside the service whose
// callers it knows.
type identify func(ctx context.Context, h *hub, p *peer, r *http.Request) (context.Context, admission, *denial)

// admission is a request that may be served if its budget allows.
type admission struct {
	caller  *caller                 // with whose identity the call ends; nil for a stranger
	budget  budget                  // that pays
	lease   lease                   // with which the call ends, too
	allowed func(*policy.Book) bool // until when policy lets the call go on; nil: the handler asks itself
	serving *serving                // what the middleware has of the request, which sees to it
}

// lease is something else than an identity that a call ends with. The zero value is
// none.
type lease struct {
	onEnd func(f func()) (stop func() bool)
	cause error
}

// call returns the call that is about to begin: where the caller has its place.
func (a *admission) call() *inflight.Call {
	if a.caller == nil {
		return new(inflight.Call)
	}
	a.caller.call = &a.caller.own
	return a.caller.call
}

// endWith ends a call with the identity of its caller and with its lease, until it
// is untied.
func (a *admission) endWith(c *inflight.Call) ends {
	e := ends{caller: a.caller}
	if a.caller != nil {
		a.caller.id.Hang(&a.caller.end, a.caller)
	}
	if a.lease.onEnd != nil {
		e.lease = a.lease.begin(c)
	}
	return e
}

// begin ends a call with the lease, until it is stopped.
func (l lease) begin(c *inflight.Call) (stop func() bool) {
	return l.onEnd(func() { c.End(l.cause) })
}

// ends are those of a caller's identity and of a lease that end a call.
type ends struct {
	caller *caller
	lease  func() bool
}

func (e ends) untie() {
	if e.caller != nil {
		e.caller.id.Unhang(&e.caller.end)
	}
	if e.lease != nil {
		e.lease()
	}
}

// identifyNobody serves everybody and limits the rate of each peer.
func identifyNobody(ctx context.Context, h *hub, p *peer, _ *http.Request) (context.Context, admission, *denial) {
	p.arrived.Store(true) // there is no message to come
	return ctx, admission{budget: h.strangerBudget(ctx, p)}, nil
}

// identifyCaller demands a runtime identity.
func identifyCaller(ctx context.Context, h *hub, p *peer, r *http.Request) (context.Context, admission, *denial) {
	ctx, c, no := h.authenticate(ctx, p, r)
	if no != nil {
		return ctx, admission{}, no
	}
	return ctx, admission{caller: c, budget: h.requestBudget(c)}, nil
}

// observed also records what auth providers among the interceptors of the route's
// handler refuse.
func observed(who identify) identify {
	return func(ctx context.Context, h *hub, p *peer, r *http.Request) (context.Context, admission, *denial) {
		ctx, a, no := who(ctx, h, p, r)
		if no == nil {
			p.refusals = h
		}
		return ctx, a, no
	}
}

// endedContext is the context of a call whose handler does not know why the host ends calls, and returns what Err says:
// that is the error for its peer then.
type endedContext struct {
	context.Context //nolint:containedctx // it is a context itself
}

// Err implements context.Context. What the host's doing gives is [context.Canceled] to [errors.Is].
func (c endedContext) Err() error {
	err := c.Context.Err()
	if errors.Is(err, context.Canceled) {
		if coded := endOfStream(c.Context); connect.CodeOf(coded) != connect.CodeCanceled {
			return endedError{coded}
		}
	}
	return err
}

// Value implements context.Context. Contexts that are made of c ask c for its error, as package context finds none above it.
func (c endedContext) Value(key any) any {
	if key == askedKey {
		return nil
	}
	return c.Context.Value(key)
}

// AfterFunc is for package context, which takes a goroutine otherwise.
func (c endedContext) AfterFunc(f func()) (stop func() bool) { return context.AfterFunc(c.Context, f) }

// endingContext is an endedContext that costs nothing until somebody waits for its end, or makes a context of it: from then
// on it is one of package context, so that what is made of it, by whichever way, costs no goroutine.
type endingContext struct {
	endedContext

	full atomic.Pointer[fullContext]

	mu sync.Mutex // held to make full; guards nothing
}

// fullContext is what package context made of an endedContext: its error is that of its parent.
type fullContext struct {
	context.Context //nolint:containedctx // it is what an endingContext stands for

	cancel context.CancelFunc
}

// Done implements context.Context.
func (c *endingContext) Done() <-chan struct{} { return c.whole().Done() }

// Err implements context.Context.
func (c *endingContext) Err() error {
	err, f := c.endedContext.Err(), c.full.Load()
	if f == nil {
		return err
	}
	if err != nil {
		<-f.Done() // it is about to learn of that
	}
	return f.Err()
}

// Value implements context.Context. Package context finds the one that it made.
func (c *endingContext) Value(key any) any {
	if key == askedKey {
		return c.whole().Value(key)
	}
	return c.Context.Value(key)
}

// whole returns what others can wait for.
func (c *endingContext) whole() *fullContext {
	if f := c.full.Load(); f != nil {
		return f
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.full.Load(); f != nil {
		return f
	}
	f := new(fullContext)
	f.Context, f.cancel = context.WithCancel(c.endedContext)
	c.full.Store(f)
	return f
}

// over ends it, when the handler has returned.
func (c *endingContext) over() {
	if c == nil {
		return
	}
	if f := c.full.Load(); f != nil {
		f.cancel()
	}
}

// askedKey is the key by which package context asks a parent for the context that tells its children of its end.
var askedKey = func() (key any) {
	ended, end := context.WithCancel(context.Background())
	end()
	_ = context.Cause(askedContext{ended, &key})
	return key
}()

// askedContext notes what it is asked for.
type askedContext struct {
	context.Context //nolint:containedctx // it is a context itself

	key *any
}

// Value implements context.Context.
func (c askedContext) Value(key any) any {
	*c.key = key
	return nil
}

// endedError is the error of a context that the host ended.
type endedError struct{ error }

// Unwrap returns what the peer learns.
func (e endedError) Unwrap() error { return e.error }

// Is implements what [errors.Is] asks for.
func (endedError) Is(target error) bool { return target == context.Canceled }

// endable is the request of a call that the host may end: its handler learns so where it reads, and where it asks the
// context, if it is one of the user's; what is over when that has returned is nil for others.
func endable(call *inflight.Call, r *http.Request, users bool) (out *http.Request, ending *endingContext) {
	out = call.WithBody(r, endOfStream)
	if users {
		ending = &endingContext{endedContext: endedContext{out.Context()}}
		out = out.WithContext(ending)
	}
	return out, ending
}
