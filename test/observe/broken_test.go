package observe_test

import (
	"context"
	"net/http"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
	"github.com/masegraye/connect-plugin-go/gen/admin/v1/adminv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// A stream that its caller breaks off, as most that last are, has the code and the name that it is called by,
// though none of its kind ever came to an end. One that nobody answered has no name.
func TestObserver_CallerBreaksOff(t *testing.T) {
	t.Parallel()

	for name, opts := range map[string][]connect.ClientOption{
		"connect": nil, "grpc": {connect.WithGRPC()}, "grpc-web": {connect.WithGRPCWeb()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			came := make(chan struct{})
			service := echo.Service{
				Server: func(ctx context.Context, req *connect.Request[echo.Text], stream *connect.ServerStream[echo.Text]) error {
					err := stream.Send(req.Msg)
					<-ctx.Done()
					return err
				},
				Unary: func(ctx context.Context, _ *connect.Request[echo.Text]) (*connect.Response[echo.Text], error) {
					came <- struct{}{}
					<-ctx.Done()
					return nil, ctx.Err()
				},
			}
			o := &recorder{}
			r := echo.NewRig(t, service.Handler(), observed(o))
			ctx, cancel := context.WithCancel(t.Context())
			stream, err := echo.NewClient(r.ToProvider(), echo.Server, opts...).CallServerStream(ctx, connect.NewRequest(wrapperspb.String("ab")))
			if err != nil || !stream.Receive() {
				t.Fatal(err, stream.Err())
			}
			cancel()
			_ = stream.Close()

			if call := one(t, o, &o.routed); call.Procedure != echo.Server || call.Code != connect.CodeCanceled {
				t.Errorf("a stream: %+v", call)
			}

			ctx, cancel = context.WithCancel(t.Context())
			defer cancel()
			go func() { <-came; cancel() }()
			echo.CallUnary(ctx, r.ToProvider(), opts, nil)

			if call := one(t, o, &o.routed); call.Procedure != "" || call.Code != connect.CodeCanceled {
				t.Errorf("one that nobody answered: %+v", call)
			}
		})
	}
}

// So has a stream of the host's own.
func TestObserver_CallerBreaksOffAServedStream(t *testing.T) {
	t.Parallel()

	o := &recorder{}
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Admin, c.Observer = &connectplugin.AdminConfig{}, o
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"operator": hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.HostPlugins = []string{connectplugin.AdminRead} }),
		}}
	})
	by := host.Enrol(t, "operator", nil).HTTPClient()
	one(t, o, &o.served) // the handshake
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := adminv1connect.NewAdminReadServiceClient(by, host.URL).Follow(ctx, connect.NewRequest(&adminv1.FollowRequest{}))
	if err != nil || !stream.Receive() {
		t.Fatal(err, stream.Err())
	}
	cancel()
	_ = stream.Close()

	if call := one(t, o, &o.served); call.Procedure != adminv1connect.AdminReadServiceFollowProcedure || call.Code != connect.CodeCanceled {
		t.Errorf("followed: %+v", call)
	}

	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, host.URL+"/connectplugin.admin.v1.AdminReadService/MadeUp", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := by.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()

	if call := one(t, o, &o.served); call.Procedure != "" {
		t.Errorf("made up: %+v", call)
	}
}
