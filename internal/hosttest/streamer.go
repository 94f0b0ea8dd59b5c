package hosttest

import (
	"context"
	"net/http"
	"sync"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
)

// Streamer is a service that streams until its caller goes away. It serves the
// health service's Watch: any streaming procedure would do.
type Streamer struct {
	connectpluginv1connect.UnimplementedHealthServiceHandler

	mu     sync.Mutex
	opened int
	ended  int
}

// Watch streams until the caller goes away.
func (s *Streamer) Watch(ctx context.Context, _ *connect.Request[connectpluginv1.HealthCheckRequest], stream *connect.ServerStream[connectpluginv1.HealthCheckResponse]) error {
	s.count(&s.opened)
	defer s.count(&s.ended)
	if err := stream.Send(&connectpluginv1.HealthCheckResponse{Status: connectpluginv1.ServingStatus_SERVING_STATUS_SERVING}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// Open counts the streams that are open.
func (s *Streamer) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened - s.ended
}

// Service is the streamer as a plugin's service of a type, below a path of its
// own.
func (s *Streamer) Service(serviceType string) connectplugin.PluginService {
	path, handler := connectpluginv1connect.NewHealthServiceHandler(s)
	prefix := "/" + serviceType
	return connectplugin.PluginService{Type: serviceType, Version: "1.0.0", Path: prefix + path, Handler: http.StripPrefix(prefix, handler)}
}

func (s *Streamer) count(n *int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*n++
}

// Streaming opens a routed stream to a provider and waits until it flows.
func Streaming(t testing.TB, c *connectplugin.Client, host *Host, serviceType, provider string, opts ...connect.ClientOption) *Watching {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	w := &Watching{Cancel: cancel, End: make(chan error, 1)}
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
		w.End <- err
	}()
	return w
}
