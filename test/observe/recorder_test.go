package observe_test

import (
	"context"
	"slices"
	"sync"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// recorder keeps what it is told.
type recorder struct {
	connectplugin.NopObserver

	trace func(connectplugin.CallStart) connectplugin.TraceContext // nil: leaves it

	mu         sync.Mutex
	started    []connectplugin.CallStart
	routed     []connectplugin.RoutedCall
	contexts   []context.Context
	served     []connectplugin.ServedCall
	handshakes []connectplugin.HandshakeEvent
	watches    []connectplugin.WatchEvent
	launches   []connectplugin.LaunchEvent
	exits      []connectplugin.ExitEvent
	refusals   []connectplugin.RefusalEvent
}

type startedKey struct{}

func (o *recorder) CallStarted(ctx context.Context, call connectplugin.CallStart) (context.Context, connectplugin.TraceContext) {
	if o.trace != nil {
		call.Trace = o.trace(call)
	}
	keep(o, &o.started, call)
	return context.WithValue(ctx, startedKey{}, call.Start), call.Trace
}

func (o *recorder) CallRouted(ctx context.Context, call connectplugin.RoutedCall) {
	keep(o, &o.contexts, ctx)
	keep(o, &o.routed, call)
}

func (o *recorder) CallServed(_ context.Context, call connectplugin.ServedCall) {
	keep(o, &o.served, call)
}

func (o *recorder) Handshake(e connectplugin.HandshakeEvent) { keep(o, &o.handshakes, e) }
func (o *recorder) Watch(e connectplugin.WatchEvent)         { keep(o, &o.watches, e) }
func (o *recorder) Launch(e connectplugin.LaunchEvent)       { keep(o, &o.launches, e) }
func (o *recorder) Exit(e connectplugin.ExitEvent)           { keep(o, &o.exits, e) }
func (o *recorder) Refusal(e connectplugin.RefusalEvent)     { keep(o, &o.refusals, e) }

func keep[E any](o *recorder, list *[]E, e E) {
	o.mu.Lock()
	defer o.mu.Unlock()
	*list = append(*list, e)
}

// take returns what is in a list, once there are n or more, and empties it.
func take[E any](t *testing.T, o *recorder, list *[]E, n int) []E {
	t.Helper()
	var out []E
	hosttest.Eventually(t, "events", func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		if len(*list) < n {
			return false
		}
		out = slices.Clone(*list)
		*list = nil
		return true
	})
	return out
}

// one returns the only event of a list.
func one[E any](t *testing.T, o *recorder, list *[]E) E {
	t.Helper()
	all := take(t, o, list, 1)
	if len(all) != 1 {
		t.Fatalf("%d events: %+v", len(all), all)
	}
	return all[0]
}

// observed sets the observer of a host.
func observed(o connectplugin.Observer) func(*connectplugin.ServeConfig) {
	return func(c *connectplugin.ServeConfig) { c.Observer = o }
}
