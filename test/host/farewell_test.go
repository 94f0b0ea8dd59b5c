package host_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// A host that shuts down has plugins end the streams that could go on for ever, and ends in order then, with a unary call that was
// in flight beside them. The plugin goes on: it belongs to no host.
func TestHost_ShutdownEndsEndlessStreams(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	service := echo.Service{
		Unary: func(_ context.Context, req *connect.Request[echo.Text]) (*connect.Response[echo.Text], error) {
			arrived <- struct{}{}
			<-release
			return connect.NewResponse(req.Msg), nil
		},
		Server: func(ctx context.Context, _ *connect.Request[echo.Text], stream *connect.ServerStream[echo.Text]) error {
			if err := stream.Send(wrapperspb.String("first")); err != nil {
				return err
			}
			select {
			case <-connectplugin.Stopping(ctx):
				return connect.NewError(connect.CodeUnavailable, errors.New("told to end"))
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	}
	rig := echo.NewRig(t, service.Handler(), func(c *connectplugin.ServeConfig) { c.GracefulShutdownTimeout = hosttest.Wait / 2 })
	var streams []*connect.ServerStreamForClient[echo.Text]
	for _, opts := range [][]connect.ClientOption{nil, {connect.WithGRPC()}} {
		stream, err := echo.NewClient(rig.ToProvider(), echo.Server, opts...).CallServerStream(t.Context(), connect.NewRequest(wrapperspb.String("x")))
		if err != nil || !stream.Receive() {
			t.Fatalf("the stream does not begin: %v, %v", err, stream.Err())
		}
		streams = append(streams, stream)
	}
	called, ended := make(chan echo.Outcome, 1), make(chan error, 1)
	go func() { called <- echo.CallUnary(t.Context(), rig.ToProvider(), nil, nil) }()
	hosttest.Arrival(t, arrived)
	go func() { ended <- rig.Shutdown(context.Background()) }()
	for _, stream := range streams {
		for stream.Receive() {
		}
		if err := stream.Err(); connect.CodeOf(err) != connect.CodeUnavailable || !strings.Contains(err.Error(), "told to end") {
			t.Errorf("the stream ended with %v", err)
		}
		_ = stream.Close()
	}
	close(release)
	if out := hosttest.Arrival(t, called); out.Err != nil {
		t.Errorf("the call in flight: %v", out.Err)
	}
	if err := hosttest.Arrival(t, ended); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}
