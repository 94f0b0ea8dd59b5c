package hosttest

import (
	"context"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
)

// States of a service, in short.
const (
	Available   = connectpluginv1.ServiceState_SERVICE_STATE_AVAILABLE
	Degraded    = connectpluginv1.ServiceState_SERVICE_STATE_DEGRADED
	Unavailable = connectpluginv1.ServiceState_SERVICE_STATE_UNAVAILABLE
)

// Watching is an open watch whose events and end are collected.
type Watching struct {
	Cancel context.CancelFunc
	Events chan *connectpluginv1.WatchServiceEvent
	End    chan error // gets the error, once
}

// Watch opens a watch with a plain generated client, without any reconnecting.
func Watch(t testing.TB, c *connectplugin.Client, base string, req *connectpluginv1.WatchServiceRequest, opts ...connect.ClientOption) *Watching {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &Watching{Cancel: cancel, Events: make(chan *connectpluginv1.WatchServiceEvent, 1024), End: make(chan error, 1)}
	t.Cleanup(cancel)
	stream, err := connectpluginv1connect.NewServiceRegistryClient(c.HTTPClient(), base, opts...).WatchService(ctx, connect.NewRequest(req))
	if err != nil {
		w.End <- err
		return w
	}
	go func() {
		for stream.Receive() {
			w.Events <- stream.Msg()
		}
		err := stream.Err()
		_ = stream.Close()
		w.End <- err
	}()
	return w
}

// Next returns the next event.
func (w *Watching) Next(t testing.TB) *connectpluginv1.WatchServiceEvent {
	t.Helper()
	select {
	case e := <-w.Events:
		return e
	case err := <-w.End:
		w.End <- err
		t.Fatalf("the watch ended: %v", err)
	case <-time.After(Wait):
		t.Fatal("no event came")
	}
	return nil
}

// Until returns the first event that cond accepts.
func (w *Watching) Until(t testing.TB, cond func(*connectpluginv1.WatchServiceEvent) bool) *connectpluginv1.WatchServiceEvent {
	t.Helper()
	for {
		if e := w.Next(t); cond(e) {
			return e
		}
	}
}

// Code returns the code with which the watch ends, and zero while it does not
// within the time.
func (w *Watching) Code(within time.Duration) connect.Code {
	late := time.After(within)
	for {
		select {
		case err := <-w.End:
			w.End <- err
			return connect.CodeOf(err)
		default: // the end counts where both are there
		}
		select {
		case err := <-w.End:
			w.End <- err
		case <-late:
			return 0
		}
	}
}

// Quiet fails the test if a watch has something to say or has ended.
func (w *Watching) Quiet(t testing.TB, why string) {
	t.Helper()
	if code := w.Code(Moment); code != 0 || len(w.Events) > 0 {
		t.Errorf("%s: code %v, %d events", why, code, len(w.Events))
	}
}

// IsState accepts the events that say so.
func IsState(s connectpluginv1.ServiceState) func(*connectpluginv1.WatchServiceEvent) bool {
	return func(e *connectpluginv1.WatchServiceEvent) bool { return e.GetState() == s }
}
