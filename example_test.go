package connectplugin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// The configuration of a host needs certificates and a policy. An error names the
// field and what to write.
func ExampleServeConfig() {
	cfg := &connectplugin.ServeConfig{Policy: &connectplugin.Policy{}}
	err := cfg.Validate()
	fmt.Println(errors.Is(err, connectplugin.ErrInvalidConfig), strings.Contains(err.Error(), "TLS: is required"))

	cfg.Authority = must(connectplugin.NewAuthority(connectplugin.AuthorityConfig{}))
	fmt.Println(cfg.Validate())
	// Output:
	// true true
	// <nil>
}

// An authority makes the certificates of a host and its plugins. The identity in
// a plugin's certificate names its self id, and proves it.
func ExampleAuthority() {
	authority := must(connectplugin.NewAuthority(connectplugin.AuthorityConfig{TrustDomain: "example.org"}))
	fmt.Println(authority.HostIdentity())
	fmt.Println(authority.PluginIdentity("greeter"))
	// Output:
	// spiffe://example.org/host
	// spiffe://example.org/plugin/greeter
}

// A policy says of each plugin, by self id, what it may do and how it proves that
// it is the plugin. What is not listed is denied.
func ExamplePolicy() {
	policy := &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
		"greeter": {Provides: []string{"greeter"}, AllowOwnAddress: true},
		"caller":  {Requires: []string{"greeter"}, Capabilities: []string{"clock"}},
	}}
	host := serveHost(&connectplugin.ServeConfig{Policy: policy})
	defer host.stop()

	fmt.Println(host.client("caller").Connect(context.Background()))
	err := host.client("stranger").Connect(context.Background())
	fmt.Println(errors.Is(err, connectplugin.ErrHandshakeRefused))
	// Output:
	// <nil>
	// true
}

// A host listens, serves until its context ends, and then shuts down. [Serve] does
// that for a whole program.
func ExampleNewHost() {
	host := must(connectplugin.NewHost(&connectplugin.ServeConfig{
		Authority: must(connectplugin.NewAuthority(connectplugin.AuthorityConfig{})),
		Policy:    &connectplugin.Policy{},
	}))
	ctx, cancel := context.WithCancel(context.Background())
	listener := must(new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0"))
	served := make(chan error, 1)
	go func() { served <- host.Serve(ctx, listener) }()

	cancel() // as a signal would
	fmt.Println("served:", <-served)
	// Output: served: <nil>
}

// A new policy holds at once: what it withdraws has ended when SetPolicy returns.
func ExampleHost_SetPolicy() {
	host := serveHost(&connectplugin.ServeConfig{Policy: connectplugin.OpenPolicy()})
	defer host.stop()
	client := host.connect("caller")

	if err := host.SetPolicy(&connectplugin.Policy{}); err != nil {
		panic(err)
	}
	_, err := client.RegistryClient().DiscoverService(context.Background(),
		connect.NewRequest(&connectpluginv1.DiscoverServiceRequest{ServiceType: "greeter"}))
	fmt.Println(connect.CodeOf(err))
	// Output: unauthenticated
}

// clock is a capability of the host: what a plugin may be granted.
type clock struct{}

func (clock) CapabilityType() string { return "clock" }
func (clock) Version() string        { return "1.0.0" }

func (clock) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	caller, _ := connectplugin.CallerFromContext(r.Context())
	_, _ = fmt.Fprintf(w, "twelve o'clock, %s", caller.SelfID)
}

// The broker grants the host's capabilities to plugins that policy allows them.
func ExampleCapabilityBroker() {
	broker := connectplugin.NewCapabilityBroker("")
	broker.RegisterCapability(clock{})
	host := serveHost(&connectplugin.ServeConfig{CapabilityBroker: broker, Policy: connectplugin.OpenPolicy()})
	defer host.stop()

	for _, capability := range broker.ListCapabilities() {
		fmt.Println(capability.GetType(), capability.GetVersion())
	}
	// Output: clock 1.0.0
}

// A plugin asks for a capability and calls it at BaseURL through HTTPClient, which
// carries the grant.
func ExampleClient_Capability() {
	broker := connectplugin.NewCapabilityBroker("")
	broker.RegisterCapability(clock{})
	host := serveHost(&connectplugin.ServeConfig{CapabilityBroker: broker, Policy: connectplugin.OpenPolicy()})
	defer host.stop()

	ctx := context.Background()
	conn := must(host.connect("caller").Capability(ctx, "clock", ">=1, <2"))
	req := must(http.NewRequestWithContext(ctx, http.MethodGet, conn.BaseURL()+"/now", http.NoBody))
	resp := must(conn.HTTPClient().Do(req))
	defer func() { _ = resp.Body.Close() }()
	fmt.Printf("%s\n", must(io.ReadAll(resp.Body)))
	// Output: twelve o'clock, caller
}

const (
	greeterPath    = "/example.v1.Greeter/"
	greetProcedure = greeterPath + "Greet"
)

// greeter is what a generated New…Handler function would return.
func greeter() http.Handler {
	return connect.NewUnaryHandlerSimple(greetProcedure, func(_ context.Context, name *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		return wrapperspb.String("Hello, " + name.GetValue() + "!"), nil
	})
}

// greet calls it, as a generated client would.
func greet(client connect.HTTPClient, baseURL, name string) string {
	c := connect.NewClient[wrapperspb.StringValue, wrapperspb.StringValue](client, baseURL+greetProcedure)
	return must(c.CallUnary(context.Background(), connect.NewRequest(wrapperspb.String(name)))).Msg.GetValue()
}

// greeterPlugin is one of the host's own plugins.
type greeterPlugin struct{}

func (greeterPlugin) Metadata() connectplugin.PluginMetadata {
	return connectplugin.PluginMetadata{Name: "greeter", Path: greeterPath, Version: "1.0.0"}
}

func (greeterPlugin) ConnectServer(impl any) (path string, handler http.Handler, err error) {
	return greeterPath, impl.(http.Handler), nil
}

func (greeterPlugin) ConnectClient(baseURL string, client connect.HTTPClient) (any, error) {
	return func(name string) string { return greet(client, baseURL, name) }, nil
}

// A host may serve plugins itself; clients dispense them by name.
func ExampleDispenseTyped() {
	plugins := connectplugin.PluginSet{"greeter": greeterPlugin{}}
	host := serveHost(&connectplugin.ServeConfig{
		Plugins: plugins, Impls: map[string]any{"greeter": greeter()}, Policy: connectplugin.OpenPolicy(),
	})
	defer host.stop()

	client := host.connect("caller", plugins)
	hello := must(connectplugin.DispenseTyped[func(string) string](client, "greeter"))
	fmt.Println(hello("Ada"))
	// Output: Hello, Ada!
}

// A client enrols with the host. It is what a program needs that only calls.
func ExampleNewClient() {
	host := serveHost(&connectplugin.ServeConfig{Policy: connectplugin.OpenPolicy()})
	defer host.stop()

	client := must(connectplugin.NewClient(connectplugin.ClientConfig{
		HostURL: host.url, SelfID: "caller", TLS: must(host.authority.PluginTLS("caller")),
		// What it declares and policy allows is what it may do.
		Metadata: connectplugin.PluginMetadata{Requires: []connectplugin.ServiceDependency{{Type: "greeter", MinVersion: "1.2"}}},
	}))
	ctx := context.Background()
	fmt.Println(client.Connect(ctx), strings.HasPrefix(client.RuntimeID(), "caller-"))
	fmt.Println(client.Leave(ctx))
	// Output:
	// <nil> true
	// <nil>
}

// ServePlugin is all of a plugin's process; here it runs beside its host.
func ExampleServePlugin() {
	host := serveHost(&connectplugin.ServeConfig{Policy: connectplugin.OpenPolicy()})
	defer host.stop()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
			Client:   connectplugin.ClientConfig{HostURL: host.url, SelfID: "greeter", TLS: must(host.authority.PluginTLS("greeter"))},
			Services: []connectplugin.PluginService{{Type: "greeter", Version: "1.0.0", Path: greeterPath, Handler: greeter()}},
		})
	}()
	for event, err := range host.connect("caller").WatchService(ctx, "greeter") {
		if err != nil || event.State == connectpluginv1.ServiceState_SERVICE_STATE_AVAILABLE {
			break
		}
	}
	cancel() // as a signal would
	fmt.Println("served:", <-ended)
	// Output: served: <nil>
}

// A plugin calls another one's service through the host. The connection follows
// the service from provider to provider.
func ExampleClient_Service() {
	host := serveHost(&connectplugin.ServeConfig{Policy: connectplugin.OpenPolicy()})
	defer host.stop()
	defer host.servePlugin("greeter")()

	client := host.connect("caller")
	conn := must(client.Service(context.Background(), "greeter", "1.0.0"))
	defer conn.Close()
	fmt.Println(greet(conn.HTTPClient(), conn.BaseURL(), "Ada"))
	// Output: Hello, Ada!
}

// A watch yields the state of a service now and at each change.
func ExampleClient_WatchService() {
	host := serveHost(&connectplugin.ServeConfig{Policy: connectplugin.OpenPolicy()})
	defer host.stop()
	end := host.servePlugin("greeter")

	for event, err := range host.connect("caller").WatchService(context.Background(), "greeter") {
		if err != nil {
			panic(err)
		}
		fmt.Println(event.State, event.Version)
		if event.State == connectpluginv1.ServiceState_SERVICE_STATE_UNAVAILABLE {
			break
		}
		end()
	}
	// Output:
	// SERVICE_STATE_AVAILABLE 1.0.0
	// SERVICE_STATE_UNAVAILABLE
}

// exampleHost is a host that the examples talk to, on a free port of loopback.
type exampleHost struct {
	*connectplugin.Host

	url       string
	authority *connectplugin.Authority
	cancel    context.CancelFunc
	served    chan error
	clients   []*connectplugin.Client
}

// serveHost adds an authority to a configuration and serves a host of it.
func serveHost(cfg *connectplugin.ServeConfig) *exampleHost {
	h := &exampleHost{
		authority: must(connectplugin.NewAuthority(connectplugin.AuthorityConfig{})), served: make(chan error, 1),
	}
	cfg.Authority = h.authority
	h.Host = must(connectplugin.NewHost(cfg))
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel = cancel
	listener := must(new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0"))
	h.url = "https://" + listener.Addr().String()
	go func() { h.served <- h.Serve(ctx, listener) }()
	return h
}

// stop ends the clients and the host, and waits for both.
func (h *exampleHost) stop() {
	for _, c := range h.clients {
		_ = c.Close()
	}
	h.cancel()
	<-h.served
}

// client makes a client with a certificate of the host's authority.
func (h *exampleHost) client(selfID string, plugins ...connectplugin.PluginSet) *connectplugin.Client {
	cfg := connectplugin.ClientConfig{
		HostURL: h.url, SelfID: selfID, TLS: must(h.authority.PluginTLS(selfID)),
		Metadata: connectplugin.PluginMetadata{Requires: []connectplugin.ServiceDependency{{Type: "greeter"}}},
	}
	for _, set := range plugins {
		cfg.Plugins = set
	}
	c := must(connectplugin.NewClient(cfg))
	h.clients = append(h.clients, c)
	return c
}

// connect makes a client that is connected.
func (h *exampleHost) connect(selfID string, plugins ...connectplugin.PluginSet) *connectplugin.Client {
	c := h.client(selfID, plugins...)
	if err := c.Connect(context.Background()); err != nil {
		panic(err)
	}
	return c
}

// servePlugin serves the greeter, waits until the host knows it, and returns what
// ends it.
func (h *exampleHost) servePlugin(selfID string) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
			Client:   connectplugin.ClientConfig{HostURL: h.url, SelfID: selfID, TLS: must(h.authority.PluginTLS(selfID))},
			Services: []connectplugin.PluginService{{Type: "greeter", Version: "1.0.0", Path: greeterPath, Handler: greeter()}},
		})
	}()
	for event, err := range h.connect("watcher").WatchService(ctx, "greeter") {
		if err != nil {
			panic(err)
		}
		if event.ProviderID != "" {
			break
		}
	}
	return sync.OnceFunc(func() {
		cancel()
		<-ended
	})
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func TestMain(m *testing.M) { hosttest.Main(m) }
