package connectpluginv2_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	connectv1 "connectrpc.com/connect"
	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/connectpluginv2"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// impl is what implementations of echo are, in these tests.
type impl interface {
	Fail(ctx context.Context) error
}

type honest struct{}

func (honest) Fail(context.Context) error { return nil }

func newPlugin() *connectpluginv2.Plugin[impl, *connect.Client] {
	return &connectpluginv2.Plugin[impl, *connect.Client]{
		Of: connectplugin.PluginMetadata{Name: "echo", Version: "1.0.0"},
		Register: func(server *connect.Server, i impl) {
			for kind, spec := range specs {
				server.Register(connect.Method{Spec: spec, Handler: func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
					if err := i.Fail(ctx); err != nil {
						return err
					}
					return answer(kind, stream)
				}})
			}
		},
		NewClient: func(c *connect.Client) *connect.Client { return c },
	}
}

// A plugin of the second version is one of a PluginSet: the host serves it, and a client
// dispenses it; and a host launches it in its own process.
func TestPlugin_DispensedAndInMemory(t *testing.T) {
	t.Parallel()
	set := connectplugin.PluginSet{"echo": newPlugin()}
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Plugins, c.Impls = set, map[string]any{"echo": honest{}}
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"caller": hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.HostPlugins, p.Requires = []string{"echo"}, []string{"memory"} }),
			"memory": {Provides: []string{"memory"}},
		}}
	})
	caller := host.Enrol(t, "caller", func(c *connectplugin.ClientConfig) {
		c.Plugins, c.Metadata.Requires = set, hosttest.Requires("memory")
	})
	dispensed, err := connectplugin.DispenseTyped[*connect.Client](caller, "echo")
	if err != nil {
		t.Fatal(err)
	}
	host.Launcher().Configure(map[string]connectplugin.PluginSpec{"memory": {
		Provides: []string{"memory"}, Plugin: newPlugin(), ImplFactory: func() any { return honest{} },
	}})
	url, client, err := host.Launcher().GetServiceClient("memory", "")
	if err != nil {
		t.Fatal(err)
	}
	routed, err := caller.Service(t.Context(), "memory", "")
	if err != nil {
		t.Fatal(err)
	}
	for kind := range specs {
		for _, c := range []*connect.Client{
			dispensed,
			connect.NewClient(connectpluginv2.NewTransport(routed)),
			connect.NewClient(connectpluginv2.NewTransport(echo.At(url, client))),
		} {
			echo.Want(t, kind, call(t.Context(), c, kind))
		}
	}
}

// What is missing or of another kind is said.
func TestPlugin_RefusesWhatIsNotItsOwn(t *testing.T) {
	t.Parallel()
	if _, _, err := newPlugin().ConnectServer("no implementation"); !errors.Is(err, connectplugin.ErrInvalidPluginImpl) {
		t.Errorf("%v", err)
	}
	empty := &connectpluginv2.Plugin[impl, *connect.Client]{}
	if _, _, err := empty.ConnectServer(honest{}); err == nil || !strings.Contains(err.Error(), "Register") {
		t.Errorf("%v", err)
	}
	if _, err := empty.ConnectClient("https://host.invalid", nil); err == nil {
		t.Error("a plugin without NewClient made a client")
	}
	if path, _, err := newPlugin().ConnectServer(honest{}); path != echo.Base || err != nil {
		t.Errorf("path %q, %v", path, err)
	}
}

// The path of a service is that below which its procedures are.
func TestNewService_Path(t *testing.T) {
	t.Parallel()
	server := newServer(never)
	if got := connectpluginv2.NewService("a", "1.0.0", server); got.Path != echo.Base || got.Type != "a" || got.Version != "1.0.0" {
		t.Errorf("%+v", got)
	}
	server.Register(connect.Method{Spec: connect.Spec{Procedure: "/other.v1.Other/Do"}, Handler: func(context.Context, connect.Spec, connect.ServerStream) error { return nil }})
	if got := connectpluginv2.NewService("a", "1.0.0", server).Path; got != "/" {
		t.Errorf("of two services: %q", got)
	}
}

type key struct{}

// A call within the process passes headers and the end of its context, and no value of it:
// the callee does not take the caller's own caller for its own.
func TestNewInProcess(t *testing.T) {
	t.Parallel()
	server := newServer(func(ctx context.Context) error {
		info, ok := connect.CallInfoForServerContext(ctx)
		if ctx.Value(key{}) != nil || !ok || info.RequestHeader().Get("Own") != "x" {
			return connect.NewError(connect.CodeInternal, "a value of the caller's context passed, or no header")
		}
		return ctx.Err()
	})
	c := connect.NewClient(connectpluginv2.NewInProcess(server))
	for kind := range specs {
		ctx, info := connect.NewClientContext(context.WithValue(t.Context(), key{}, "x"))
		info.RequestHeader().Set("Own", "x")
		echo.Want(t, kind, call(ctx, c, kind))
		ended, cancel := context.WithCancel(ctx)
		cancel()
		if err := call(ended, c, kind).Err; connect.CodeOf(err) != connect.CodeCanceled && !errors.Is(err, context.Canceled) {
			t.Errorf("%s whose context ended: %v", kind, err)
		}
	}
}

// A message may be used again once it was sent, in either direction, as over HTTP.
func TestNewInProcess_AMessageMayBeUsedAgain(t *testing.T) {
	t.Parallel()
	const messages = 100
	count := func(send func(any) error) {
		m := &wrapperspb.Int64Value{}
		for m.Value = range int64(messages) {
			if err := send(m); err != nil {
				t.Error(err)
			}
		}
	}
	wrong := func(receive func(any) error) (n int) {
		for i := int64(0); ; i++ {
			var m wrapperspb.Int64Value
			if err := receive(&m); err != nil {
				return n + int(messages-i)
			}
			if m.GetValue() != i {
				n++
			}
		}
	}
	spec := connect.Spec{Procedure: "/count.v1.Count/Both", StreamType: connect.StreamTypeBidi}
	server := connect.NewServer()
	server.Register(connect.Method{Spec: spec, Handler: func(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
		if n := wrong(stream.Receive); n > 0 {
			t.Errorf("%d wrong at the handler", n)
		}
		count(stream.Send)
		return nil
	}})
	stream, err := connect.NewClient(connectpluginv2.NewInProcess(server)).CallClientStream(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }()
	count(stream.Send)
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if n := wrong(stream.Receive); n > 0 {
		t.Errorf("%d wrong at the caller", n)
	}
}

// A stream that breaks has the code that a caller of the first version sees.
func TestNewTransport_ABrokenStream(t *testing.T) {
	t.Parallel()
	broken := connectv1.NewError(connectv1.CodeUnavailable, errors.New("the connection to the host was lost"))
	conn := echo.At("https://host.invalid", httpClientFunc(func(r *http.Request) (*http.Response, error) {
		_ = r.Body.Close()
		return &http.Response{
			StatusCode: http.StatusOK, ProtoMajor: 2, Request: r, Trailer: http.Header{},
			Header: http.Header{"Content-Type": r.Header["Content-Type"]}, Body: io.NopCloser(brokenBody{broken}),
		}, nil
	}))
	for protocol, opts := range protocols {
		for _, kind := range []string{"server", "bidi", "client"} {
			err := call(t.Context(), connect.NewClient(connectpluginv2.NewTransport(conn, opts...)), kind).Err
			if connect.CodeOf(err) != connect.CodeUnavailable || !errors.Is(err, broken) {
				t.Errorf("%s %s: %v", protocol, kind, err)
			}
		}
	}
}

type httpClientFunc func(*http.Request) (*http.Response, error)

func (f httpClientFunc) Do(r *http.Request) (*http.Response, error) { return f(r) }

type brokenBody struct{ err error }

func (b brokenBody) Read([]byte) (int, error) { return 0, b.err }
