// Package recovery_test loses hosts, identities and connections, and looks how plugins
// and programs come back.
package recovery_test

import (
	"context"
	"net/http"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

type text = wrapperspb.StringValue

const (
	echoType = "echo"
	sayOnce  = "/echo.v1.Echo/Once"
	sayBack  = "/echo.v1.Echo/Back"
	sayOn    = "/echo.v1.Echo/On"

	available   = connectpluginv1.ServiceState_SERVICE_STATE_AVAILABLE
	unavailable = connectpluginv1.ServiceState_SERVICE_STATE_UNAVAILABLE
	healthy     = connectpluginv1.HealthState_HEALTH_STATE_HEALTHY
)

// protocols are the options of a client for each protocol.
func protocols() map[string]connect.ClientOption {
	return map[string]connect.ClientOption{
		"connect": connect.WithClientOptions(), "grpc": connect.WithGRPC(), "grpc-web": connect.WithGRPCWeb(),
	}
}

// echoHandler serves the three methods.
func echoHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(sayOnce, connect.NewUnaryHandler(sayOnce,
		func(_ context.Context, req *connect.Request[text]) (*connect.Response[text], error) {
			return connect.NewResponse(req.Msg), nil
		}))
	mux.Handle(sayBack, connect.NewBidiStreamHandler(sayBack,
		func(_ context.Context, stream *connect.BidiStream[text, text]) error {
			for {
				m, err := stream.Receive()
				if err != nil {
					return nil //nolint:nilerr // the client has said everything
				}
				if err := stream.Send(m); err != nil {
					return err
				}
			}
		}))
	mux.Handle(sayOn, connect.NewServerStreamHandler(sayOn,
		func(ctx context.Context, req *connect.Request[text], stream *connect.ServerStream[text]) error {
			if err := stream.Send(req.Msg); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		}))
	return mux
}

// reachable is a base URL and how to get there.
type reachable interface {
	BaseURL() string
	HTTPClient() connect.HTTPClient
}

func echo(r reachable, procedure string, opts ...connect.ClientOption) *connect.Client[text, text] {
	return connect.NewClient[text, text](r.HTTPClient(), r.BaseURL()+procedure, opts...)
}

func once(ctx context.Context, r reachable, opts ...connect.ClientOption) error {
	_, err := echo(r, sayOnce, opts...).CallUnary(ctx, connect.NewRequest(wrapperspb.String("x")))
	return err
}

// back sends one message and reads it back, on a stream of both sides.
func back(ctx context.Context, r reachable, opts ...connect.ClientOption) error {
	stream := echo(r, sayBack, opts...).CallBidiStream(ctx)
	if err := stream.Send(wrapperspb.String("x")); err != nil {
		_, err = stream.Receive()
		return err
	}
	if _, err := stream.Receive(); err != nil {
		return err
	}
	_ = stream.CloseRequest()
	return stream.CloseResponse()
}

// policy lets "provider" provide what "api" and "watcher" require.
func policy() *connectplugin.Policy {
	requires := func(p *connectplugin.PluginPolicy) { p.Requires = []string{echoType, "other"} }
	return &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
		"provider": hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Provides = []string{echoType} }),
		"api":      hosttest.Allow(requires),
	}}
}

func start(t *testing.T, edit func(*connectplugin.ServeConfig)) *hosttest.Restartable {
	t.Helper()
	return hosttest.StartRestartable(t, func(c *connectplugin.ServeConfig) {
		c.Policy = policy()
		if edit != nil {
			edit(c)
		}
	})
}

// provide runs a plugin that provides the echo service and reports its health next to
// never.
func provide(t *testing.T, host *hosttest.Restartable) *hosttest.Plugin {
	t.Helper()
	return host.StartPlugin(t, "provider", func(c *connectplugin.PluginServerConfig) {
		c.HealthInterval = never
		c.Services = []connectplugin.PluginService{{Type: echoType, Version: "1.0.0", Path: "/echo.v1.Echo/", Handler: echoHandler()}}
	})
}

// caller enrols a client that requires the echo service.
func caller(t *testing.T, host *hosttest.Restartable) *connectplugin.Client {
	t.Helper()
	return host.Enrol(t, "api", func(c *connectplugin.ClientConfig) { c.Metadata.Requires = hosttest.Requires(echoType, "other") })
}

func service(t *testing.T, c *connectplugin.Client) *connectplugin.ServiceConn {
	t.Helper()
	conn, err := c.Service(t.Context(), echoType, "")
	if err != nil {
		t.Fatalf("Service: %v", err)
	}
	hosttest.Eventually(t, "the service is available", func() bool { return conn.State() == available })
	return conn
}

// count returns how many events of a kind were recorded of a self id; empty counts all.
func count(host *hosttest.Restartable, kind connectplugin.AuditKind, selfID string) int {
	n := 0
	for _, e := range host.Audit.Events() {
		if e.Kind == kind && (selfID == "" || e.SelfID == selfID) {
			n++
		}
	}
	return n
}
