package host_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// useEverything calls every service of the host with the client's identity.
func useEverything(t *testing.T, c *connectplugin.Client, base string) map[string]error {
	t.Helper()
	out := map[string]error{}
	ctx := t.Context()
	registry := connectpluginv1connect.NewServiceRegistryClient(c.HTTPClient(), base)
	_, out["register"] = registry.RegisterService(ctx, connect.NewRequest(&connectpluginv1.RegisterServiceRequest{
		ServiceType: "logger", Version: "1.0.0", EndpointPath: "/capability.logger.v1.Logger/",
	}))
	_, out["discover"] = registry.DiscoverService(ctx, connect.NewRequest(&connectpluginv1.DiscoverServiceRequest{ServiceType: "logger"}))
	watchCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := registry.WatchService(watchCtx, connect.NewRequest(&connectpluginv1.WatchServiceRequest{ServiceType: "logger"}))
	if out["watch"] = err; err == nil {
		if !stream.Receive() {
			out["watch"] = stream.Err()
		}
		_ = stream.Close()
	}
	out["health"] = c.ReportHealth(ctx, connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil)
	broker := connectpluginv1connect.NewCapabilityBrokerClient(c.HTTPClient(), base)
	_, out["grant"] = broker.RequestCapability(ctx, connect.NewRequest(&connectpluginv1.RequestCapabilityRequest{CapabilityType: "logger"}))
	health := connectpluginv1connect.NewHealthServiceClient(c.HTTPClient(), base)
	_, out["check"] = health.Check(ctx, connect.NewRequest(&connectpluginv1.HealthCheckRequest{}))
	// No endpoint is approved for this provider: an authenticated call gets
	// Unavailable from the router, and not Unauthenticated.
	_, err = loggerv1connect.NewLoggerClient(c.HTTPClient(), base+"/services/logger/"+c.RuntimeID()).
		Log(ctx, connect.NewRequest(&loggerv1.LogRequest{}))
	if connect.CodeOf(err) != connect.CodeUnavailable {
		out["route"] = err
	}
	return out
}

// assignedClient presents an identity that it does not replace.
func assignedClient(t *testing.T, host *hosttest.Host, runtimeID, token string) *connectplugin.Client {
	t.Helper()
	c, err := connectplugin.NewClient(host.ClientConfig(t, "all"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	c.SetRuntimeIdentity(runtimeID, token, host.URL)
	return c
}

// A host that is wired by hand, as with the library before, knows the tokens of
// its handshake server everywhere; so does one that makes its own services.
func TestAudit_H05_OneTokenStoreForEveryService(t *testing.T) {
	t.Parallel()
	broker := func() *connectplugin.CapabilityBroker {
		b := connectplugin.NewCapabilityBroker("")
		b.RegisterCapability(hosttest.LoggerCapability(&hosttest.RecordingLogger{}))
		return b
	}
	wirings := map[string]func(*connectplugin.ServeConfig){
		"made by the host": func(c *connectplugin.ServeConfig) { c.CapabilityBroker = broker() },
		"wired by hand": func(c *connectplugin.ServeConfig) {
			c.CapabilityBroker = broker()
			c.LifecycleService = connectplugin.NewLifecycleServer()
			c.ServiceRegistry = connectplugin.NewServiceRegistry(c.LifecycleService)
			c.ServiceRouter = connectplugin.NewServiceRouter(connectplugin.NewHandshakeServer(c), c.ServiceRegistry, c.LifecycleService)
		},
		"registry alone": func(c *connectplugin.ServeConfig) {
			c.CapabilityBroker = broker()
			c.ServiceRegistry = connectplugin.NewServiceRegistry(connectplugin.NewLifecycleServer())
		},
	}
	for name, wire := range wirings {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
				c.Policy = hosttest.EveryRight()
				wire(c)
			})
			c := host.Enrol(t, "all", func(c *connectplugin.ClientConfig) {
				c.Metadata.Requires, c.Metadata.Provides = hosttest.Requires("logger"), hosttest.Provides("logger")
			})
			for service, err := range useEverything(t, c, host.URL) {
				if err != nil {
					t.Errorf("%s: %v", service, err)
				}
			}
			// Once revoked, it is unknown everywhere. A client that is given its identity
			// asks for no other.
			old := assignedClient(t, host, c.RuntimeID(), c.RuntimeToken())
			if !host.Revoke(c.RuntimeID()) {
				t.Fatal("Revoke found no identity")
			}
			for service, err := range useEverything(t, old, host.URL) {
				if connect.CodeOf(err) != connect.CodeUnauthenticated {
					t.Errorf("%s after revocation: %v, want unauthenticated", service, err)
				}
			}
		})
	}
}

// A token that the host issued in its own process is known over the wire.
func TestAudit_H05_H06_TokenIssuedInProcess(t *testing.T) {
	t.Parallel()
	var handshake *connectplugin.HandshakeServer
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.EveryRight()
		handshake = connectplugin.NewHandshakeServer(c)
		c.ServiceRouter = connectplugin.NewServiceRouter(handshake, nil, nil)
	})
	resp, err := handshake.Handshake(t.Context(), connect.NewRequest(&connectpluginv1.HandshakeRequest{
		CoreProtocolVersion: 1, AppProtocolVersion: 1, SelfId: "all",
		MagicCookieKey: connectplugin.DefaultMagicCookieKey, MagicCookieValue: connectplugin.DefaultMagicCookieValue,
	}))
	if err != nil {
		t.Fatal(err)
	}
	if !handshake.ValidateToken(resp.Msg.GetRuntimeId(), resp.Msg.GetRuntimeToken()) || handshake.ValidateToken(resp.Msg.GetRuntimeId(), "other") {
		t.Error("ValidateToken is wrong about the token")
	}
	c, err := connectplugin.NewClient(host.ClientConfig(t, "all"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	c.SetRuntimeIdentity(resp.Msg.GetRuntimeId(), resp.Msg.GetRuntimeToken(), host.URL)
	if err := c.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil); err != nil {
		t.Errorf("ReportHealth: %v", err)
	}
}

// countingInterceptor counts unary calls and streams on either side.
type countingInterceptor struct{ calls, streams atomic.Int64 }

func (i *countingInterceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		i.calls.Add(1)
		return next(ctx, req)
	}
}

func (i *countingInterceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		i.streams.Add(1)
		return next(ctx, spec)
	}
}

func (i *countingInterceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		i.streams.Add(1)
		return next(ctx, conn)
	}
}

// countingClient is a configured HTTP client.
type countingClient struct {
	next  *http.Client
	calls atomic.Int64
}

func (c *countingClient) Do(r *http.Request) (*http.Response, error) {
	c.calls.Add(1)
	return c.next.Do(r)
}

func TestAudit_H14_EverySideIsConfigurable(t *testing.T) {
	t.Parallel()
	onHost, onClient := &countingInterceptor{}, &countingInterceptor{}
	var audited atomic.Int64
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.EveryRight()
		c.Interceptors = []connect.Interceptor{onHost}
		c.Audit = func(connectplugin.AuditEvent) { audited.Add(1) }
		c.Limits.MaxMessageBytes = 4096
	})
	transport := &countingClient{next: host.Stranger(t)}
	c := host.Enrol(t, "all", func(c *connectplugin.ClientConfig) {
		c.TLS, c.HTTPClient = nil, transport
		c.Interceptors = []connect.Interceptor{onClient}
		c.Metadata.Requires = hosttest.Requires("logger")
	})
	for _, err := range c.WatchService(t.Context(), "logger") {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	if err := c.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil); err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]int64{
		"host interceptor, unary":    onHost.calls.Load(),
		"host interceptor, stream":   onHost.streams.Load(),
		"client interceptor, unary":  onClient.calls.Load(),
		"client interceptor, stream": onClient.streams.Load(),
		"HTTP client":                transport.calls.Load(),
		"audit sink":                 audited.Load(),
	} {
		if n == 0 {
			t.Errorf("%s was never used", name)
		}
	}
	err := c.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, strings.Repeat("x", 8192), nil)
	if connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("a message beyond MaxMessageBytes: %v, want resource_exhausted", err)
	}
}

// An auth provider lets a caller without runtime identity use the host's own
// plugin services, and only those.
func TestAudit_H14_AuthProvidersOpenHostPlugins(t *testing.T) {
	t.Parallel()
	logger := &hosttest.RecordingLogger{}
	auth := connectplugin.NewAPIKeyAuth("", func(key string) (string, map[string]string, error) {
		if key != "let-me-in" {
			return "", nil, io.EOF
		}
		return "operator", nil, nil
	})
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.LoggerPolicy()
		c.Plugins = connectplugin.PluginSet{"logger": hosttest.LoggerPlugin{}}
		c.Impls = map[string]any{"logger": logger}
		c.AuthProviders = []connectplugin.AuthProvider{auth}
	})
	call := func(key string) error {
		req := connect.NewRequest(&loggerv1.LogRequest{Message: "hello"})
		if key != "" {
			req.Header().Set("X-Api-Key", key)
		}
		_, err := loggerv1connect.NewLoggerClient(host.Stranger(t), host.URL).Log(t.Context(), req)
		return err
	}
	if err := call("let-me-in"); err != nil {
		t.Errorf("with the key: %v", err)
	}
	for _, key := range []string{"", "wrong"} {
		if err := call(key); connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Errorf("with key %q: %v, want unauthenticated", key, err)
		}
	}
	req := connect.NewRequest(&connectpluginv1.DiscoverServiceRequest{ServiceType: "logger"})
	req.Header().Set("X-Api-Key", "let-me-in")
	registry := connectpluginv1connect.NewServiceRegistryClient(host.Stranger(t), host.URL)
	if _, err := registry.DiscoverService(t.Context(), req); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("the key opened the registry: %v", err)
	}
}

// What the handshake advertises as the endpoint of a capability answers there,
// and so does the endpoint of the grant; the token reaches nobody else.
func TestAudit_H24_BrokerIsReachableAsAdvertised(t *testing.T) {
	t.Parallel()
	for name, baseURL := range map[string]string{"no base URL": "", "an old plaintext base URL": "http://localhost:8080"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			logger := &hosttest.RecordingLogger{}
			host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
				c.Policy = hosttest.EveryRight()
				c.CapabilityBroker = connectplugin.NewCapabilityBroker(baseURL)
				c.CapabilityBroker.RegisterCapability(hosttest.LoggerCapability(logger))
			})
			c := host.Enrol(t, "all", nil)
			capability, err := c.Capability(t.Context(), "logger", ">=1.0")
			if err != nil {
				t.Fatal(err)
			}
			client := loggerv1connect.NewLoggerClient(capability.HTTPClient(), capability.BaseURL())
			if _, err := client.Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{Message: "hello"})); err != nil {
				t.Fatalf("through Client.Capability: %v", err)
			}
			broker := connectpluginv1connect.NewCapabilityBrokerClient(c.HTTPClient(), host.URL)
			resp, err := broker.RequestCapability(t.Context(), connect.NewRequest(&connectpluginv1.RequestCapabilityRequest{CapabilityType: "logger"}))
			if err != nil {
				t.Fatal(err)
			}
			grant := resp.Msg.GetGrant()
			req := connect.NewRequest(&loggerv1.LogRequest{Message: "by hand"})
			req.Header().Set("Authorization", "Bearer "+grant.GetBearerToken())
			if _, err := loggerv1connect.NewLoggerClient(host.Stranger(t), grant.GetEndpointUrl()).Log(t.Context(), req); err != nil {
				t.Fatalf("at the grant's endpoint %s: %v", grant.GetEndpointUrl(), err)
			}
			_, err = loggerv1connect.NewLoggerClient(host.Stranger(t), grant.GetEndpointUrl()).Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{}))
			if connect.CodeOf(err) != connect.CodeUnauthenticated {
				t.Errorf("without the token: %v, want unauthenticated", err)
			}
			lines, callers, headers := logger.Got()
			if len(lines) != 2 || callers[0] != "all" || callers[1] != "all" {
				t.Errorf("capability saw lines %q of callers %q", lines, callers)
			}
			for _, h := range headers {
				if h.Get("Authorization") != "" {
					t.Errorf("the capability saw a token")
				}
			}
		})
	}
}

func TestAudit_H24_AdvertisedEndpointServesTheBroker(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = connectplugin.OpenPolicy()
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(hosttest.LoggerCapability(&hosttest.RecordingLogger{}))
	})
	resp, err := connectpluginv1connect.NewHandshakeServiceClient(host.Stranger(t), host.URL).Handshake(t.Context(),
		connect.NewRequest(&connectpluginv1.HandshakeRequest{
			CoreProtocolVersion: 1, AppProtocolVersion: 1, SelfId: "old",
			MagicCookieKey: connectplugin.DefaultMagicCookieKey, MagicCookieValue: connectplugin.DefaultMagicCookieValue,
		}))
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Msg.GetHostCapabilities()) != 1 {
		t.Fatalf("advertised: %v", resp.Msg.GetHostCapabilities())
	}
	req := connect.NewRequest(&connectpluginv1.RequestCapabilityRequest{CapabilityType: "logger"})
	req.Header().Set("X-Plugin-Runtime-ID", resp.Msg.GetRuntimeId())
	req.Header().Set("Authorization", "Bearer "+resp.Msg.GetRuntimeToken())
	endpoint := resp.Msg.GetHostCapabilities()[0].GetEndpoint()
	if _, err := connectpluginv1connect.NewCapabilityBrokerClient(host.Stranger(t), endpoint).RequestCapability(t.Context(), req); err != nil {
		t.Errorf("the broker at the advertised endpoint %q: %v", endpoint, err)
	}
}

// A router has the policy and the identities of the host that it was given to first, also
// where another router is made of the same handshake server.
func TestAudit_OWN26_ARouterBelongsToOneHost(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]func(*connectplugin.ServiceRouter, *connectplugin.HandshakeServer) *connectplugin.ServiceRouter{
		"the same router": func(r *connectplugin.ServiceRouter, _ *connectplugin.HandshakeServer) *connectplugin.ServiceRouter {
			return r
		},
		"another of the same handshake server": func(_ *connectplugin.ServiceRouter, s *connectplugin.HandshakeServer) *connectplugin.ServiceRouter {
			return connectplugin.NewServiceRouter(s, nil, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var router *connectplugin.ServiceRouter
			var handshake *connectplugin.HandshakeServer
			host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
				handshake = connectplugin.NewHandshakeServer(c)
				router = connectplugin.NewServiceRouter(handshake, nil, nil)
				c.ServiceRouter = router
			})
			_, err := connectplugin.NewHost(&connectplugin.ServeConfig{
				Authority: hosttest.NewAuthority(t), Policy: hosttest.EveryRight(), ServiceRouter: again(router, handshake),
			})
			if !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), "ServiceRouter: belongs to another host already") {
				t.Errorf("NewHost of a router of another host: %v", err)
			}
			c, err := connectplugin.NewClient(host.ClientConfig(t, "all"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.Connect(t.Context()); connect.CodeOf(err) != connect.CodeUnauthenticated {
				t.Errorf("Connect to a host whose policy is empty: %v, want unauthenticated", err)
			}
		})
	}
}

// A host that cannot be made keeps nothing from the next one, and changes nothing.
func TestAudit_OWN26_AHostThatIsNoneTakesNoRouter(t *testing.T) {
	t.Parallel()
	other := connectplugin.NewHealthServer()
	cfg := func() *connectplugin.ServeConfig {
		return &connectplugin.ServeConfig{Authority: hosttest.NewAuthority(t), HealthService: other}
	}
	first, err := connectplugin.NewHost(cfg())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Shutdown(t.Context())
	wrong := cfg()
	wrong.Policy = hosttest.EveryRight()
	wrong.ServiceRouter = connectplugin.NewServiceRouter(nil, nil, nil)
	if _, err := connectplugin.NewHost(wrong); !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), "HealthService") {
		t.Fatalf("NewHost with a HealthService of another host: %v", err)
	}
	wrong.HealthService = nil
	second, err := connectplugin.NewHost(wrong)
	if err != nil {
		t.Fatalf("NewHost with what was right: %v", err)
	}
	if err := second.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}
