package connectplugin_test

import (
	"context"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// uncompressed lets a client ask for answers as they are: under the race detector
// compression costs most of the time, and a stream that nobody reads takes in more.
var uncompressed = connect.WithAcceptCompression("gzip", nil, nil)

// rights is the policy of plugins that prove the test's secret: by self id, what
// each provides and requires.
func rights(plugins map[string][2][]string) *connectplugin.Policy {
	p := &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{}}
	for selfID, r := range plugins {
		p.Plugins[selfID] = hosttest.Allow(func(pp *connectplugin.PluginPolicy) { pp.Provides, pp.Requires = r[0], r[1] })
	}
	return p
}

// declares lets a client declare what it provides and requires.
func declares(provides, requires []string) func(*connectplugin.ClientConfig) {
	return func(c *connectplugin.ClientConfig) {
		c.Metadata.Provides, c.Metadata.Requires = hosttest.Provides(provides...), hosttest.Requires(requires...)
	}
}

// watching is an open watch whose events and end are collected.
type watching struct {
	cancel context.CancelFunc
	events chan *connectpluginv1.WatchServiceEvent
	end    chan error // gets the error, once
}

// watch opens a watch with a plain generated client, without any reconnecting.
func watch(t testing.TB, c *connectplugin.Client, base string, req *connectpluginv1.WatchServiceRequest, opts ...connect.ClientOption) *watching {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watching{cancel: cancel, events: make(chan *connectpluginv1.WatchServiceEvent, 1024), end: make(chan error, 1)}
	t.Cleanup(cancel)
	stream, err := connectpluginv1connect.NewServiceRegistryClient(c.HTTPClient(), base, opts...).WatchService(ctx, connect.NewRequest(req))
	if err != nil {
		w.end <- err
		return w
	}
	go func() {
		for stream.Receive() {
			w.events <- stream.Msg()
		}
		err := stream.Err()
		_ = stream.Close()
		w.end <- err
	}()
	return w
}

// next returns the next event.
func (w *watching) next(t testing.TB) *connectpluginv1.WatchServiceEvent {
	t.Helper()
	select {
	case e := <-w.events:
		return e
	case err := <-w.end:
		w.end <- err
		t.Fatalf("the watch ended: %v", err)
	case <-time.After(longWait):
		t.Fatal("no event came")
	}
	return nil
}

// until returns the first event that cond accepts.
func (w *watching) until(t testing.TB, cond func(*connectpluginv1.WatchServiceEvent) bool) *connectpluginv1.WatchServiceEvent {
	t.Helper()
	for {
		if e := w.next(t); cond(e) {
			return e
		}
	}
}

// code returns the code with which the watch ends, and zero while it does not
// within the time.
func (w *watching) code(within time.Duration) connect.Code {
	select {
	case err := <-w.end:
		w.end <- err
		return connect.CodeOf(err)
	case <-time.After(within):
		return 0
	}
}

// moment is how long a test waits for what must not happen.
const moment = 50 * time.Millisecond

func isState(s connectpluginv1.ServiceState) func(*connectpluginv1.WatchServiceEvent) bool {
	return func(e *connectpluginv1.WatchServiceEvent) bool { return e.GetState() == s }
}

const (
	available   = connectpluginv1.ServiceState_SERVICE_STATE_AVAILABLE
	degraded    = connectpluginv1.ServiceState_SERVICE_STATE_DEGRADED
	unavailable = connectpluginv1.ServiceState_SERVICE_STATE_UNAVAILABLE
)

// streamer is a service that streams until its caller goes away. It serves the
// health service's Watch: any streaming procedure would do.
type streamer struct {
	connectpluginv1connect.UnimplementedHealthServiceHandler

	mu     sync.Mutex
	opened int
	ended  int
}

func (s *streamer) Watch(ctx context.Context, _ *connect.Request[connectpluginv1.HealthCheckRequest], stream *connect.ServerStream[connectpluginv1.HealthCheckResponse]) error {
	s.count(&s.opened)
	defer s.count(&s.ended)
	if err := stream.Send(&connectpluginv1.HealthCheckResponse{Status: connectpluginv1.ServingStatus_SERVING_STATUS_SERVING}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

func (s *streamer) count(n *int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*n++
}

func (s *streamer) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened - s.ended
}

// service is the streamer as a plugin's service of a type, below a path of its
// own.
func (s *streamer) service(serviceType string) connectplugin.PluginService {
	path, handler := connectpluginv1connect.NewHealthServiceHandler(s)
	prefix := "/" + serviceType
	return connectplugin.PluginService{Type: serviceType, Version: "1.0.0", Path: prefix + path, Handler: http.StripPrefix(prefix, handler)}
}

// streaming opens a routed stream to a provider and waits until it flows.
func streaming(t testing.TB, c *connectplugin.Client, host *hosttest.Host, serviceType, provider string, opts ...connect.ClientOption) *watching {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	w := &watching{cancel: cancel, end: make(chan error, 1)}
	base := host.URL + "/services/" + serviceType + "/" + provider + "/" + serviceType
	stream, err := connectpluginv1connect.NewHealthServiceClient(c.HTTPClient(), base, opts...).Watch(ctx, connect.NewRequest(&connectpluginv1.HealthCheckRequest{}))
	if err != nil || !stream.Receive() {
		t.Fatalf("stream to %s: %v, %v", serviceType, err, stream.Err())
	}
	go func() {
		for stream.Receive() {
		}
		err := stream.Err()
		_ = stream.Close()
		w.end <- err
	}()
	return w
}

// unspecified is a listener that names no address of its own.
type unspecified struct{ net.Listener }

func (l unspecified) Addr() net.Addr {
	_, port, _ := net.SplitHostPort(l.Listener.Addr().String())
	addr, _ := net.ResolveTCPAddr("tcp", "0.0.0.0:"+port)
	return addr
}
