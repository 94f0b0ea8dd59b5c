// Package attack_test attacks running hosts and plugins from outside: it pretends to
// be somebody else.
package attack_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

const (
	echoPath  = "/acme.v1.Echo/"
	sayProc   = echoPath + "Say"
	watchProc = echoPath + "Watch"
)

type text = wrapperspb.StringValue

// echo is a service with a unary and a streaming method that counts its calls.
type echo struct {
	calls atomic.Int64
	seen  func(context.Context, http.Header) // may be nil
}

func (e *echo) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(sayProc, connect.NewUnaryHandler(sayProc, func(ctx context.Context, r *connect.Request[text]) (*connect.Response[text], error) {
		e.note(ctx, r.Header())
		return connect.NewResponse(r.Msg), nil
	}))
	mux.Handle(watchProc, connect.NewServerStreamHandler(watchProc,
		func(ctx context.Context, r *connect.Request[text], s *connect.ServerStream[text]) error {
			e.note(ctx, r.Header())
			return s.Send(r.Msg)
		}))
	return mux
}

func (e *echo) note(ctx context.Context, header http.Header) {
	e.calls.Add(1)
	if e.seen != nil {
		e.seen(ctx, header)
	}
}

// service is the service as a plugin serves it.
func (e *echo) service(serviceType string) connectplugin.PluginService {
	return connectplugin.PluginService{Type: serviceType, Version: "1.0.0", Path: echoPath, Handler: e.handler()}
}

// protocols are the ways in which a call can be made.
var protocols = map[string][]connect.ClientOption{
	"Connect":  nil,
	"gRPC":     {connect.WithGRPC()},
	"gRPC-Web": {connect.WithGRPCWeb()},
}

// callEcho calls both methods in every protocol and returns the errors by call.
func callEcho(ctx context.Context, client connect.HTTPClient, base string) map[string]error {
	errs := map[string]error{}
	for name, options := range protocols {
		say := connect.NewClient[text, text](client, base+sayProc, options...)
		_, errs[name+" unary"] = say.CallUnary(ctx, connect.NewRequest(wrapperspb.String("x")))
		watch := connect.NewClient[text, text](client, base+watchProc, options...)
		stream, err := watch.CallServerStream(ctx, connect.NewRequest(wrapperspb.String("x")))
		if err == nil {
			for stream.Receive() { // to the end
			}
			err = stream.Err()
			_ = stream.Close()
		}
		errs[name+" streaming"] = err
	}
	return errs
}

// wantServed checks that every call was served.
func wantServed(t *testing.T, what string, errs map[string]error) {
	t.Helper()
	for call, err := range errs {
		if err != nil {
			t.Errorf("%s: %s: %v", what, call, err)
		}
	}
}

// wantRefused checks that every call was refused with one of the codes; none is any.
func wantRefused(t *testing.T, what string, errs map[string]error, codes ...connect.Code) {
	t.Helper()
	for call, err := range errs {
		ok := err != nil && len(codes) == 0
		for _, code := range codes {
			ok = ok || err != nil && connect.CodeOf(err) == code
		}
		if !ok {
			t.Errorf("%s: %s: %v, want %v", what, call, err, codes)
		}
	}
}

// policyFor is a policy in which each plugin may do everything and edit says how it
// proves itself.
func policyFor(plugins map[string]func(*connectplugin.PluginPolicy)) *connectplugin.Policy {
	all := []string{"*"}
	p := &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{}}
	for name, edit := range plugins {
		plugin := connectplugin.PluginPolicy{Provides: all, Requires: all, Capabilities: all, HostPlugins: all, AllowOwnAddress: true}
		if edit != nil {
			edit(&plugin)
		}
		p.Plugins[name] = plugin
	}
	return p
}

// enrol tries one handshake.
func enrol(t *testing.T, cfg connectplugin.ClientConfig) (*connectplugin.Client, error) {
	t.Helper()
	cfg.Logger, cfg.Timeout = hosttest.Logger(t), hosttest.Wait
	c, err := connectplugin.NewClient(cfg)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = c.Close() })
	err = c.Connect(t.Context())
	return c, err
}

func withSecret(p *connectplugin.PluginPolicy) { p.Secret = hosttest.Secret }

func unproven(p *connectplugin.PluginPolicy) { p.AllowUnproven = true }

func withCertificates(names ...string) func(*connectplugin.PluginPolicy) {
	return func(p *connectplugin.PluginPolicy) { p.Certificates = names }
}

// hostEcho serves the service as one of the host's own plugins.
type hostEcho struct{ echo *echo }

func (hostEcho) Metadata() connectplugin.PluginMetadata {
	return connectplugin.PluginMetadata{Name: "echo", Version: "1.0.0", Path: echoPath}
}

func (h hostEcho) ConnectServer(any) (string, http.Handler, error) {
	return echoPath, h.echo.handler(), nil
}

func (hostEcho) ConnectClient(string, connect.HTTPClient) (any, error) { return struct{}{}, nil }

// serveAs serves as a plugin with a certificate of the host's company.
func serveAs(t *testing.T, host *namesHost, selfID, identity string, services ...connectplugin.PluginService) *hosttest.Plugin {
	t.Helper()
	return host.StartPlugin(t, selfID, func(c *connectplugin.PluginServerConfig) {
		c.Client = host.config(t, selfID, hosttest.URI(identity), hosttest.Loopback)
		c.Client.Logger, c.HostIdentity, c.Services = hosttest.Logger(t), hostID, services
		c.Client.Metadata.Provides = nil
	})
}
