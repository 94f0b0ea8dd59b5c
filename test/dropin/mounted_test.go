package dropin_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// mounted is a host that its user puts together of services, on a mux of its own.
type mounted struct {
	handshake *connectplugin.HandshakeServer
	lifecycle *connectplugin.LifecycleServer
	registry  *connectplugin.ServiceRegistry
	router    *connectplugin.ServiceRouter
	broker    *connectplugin.CapabilityBroker
	health    *connectplugin.HealthServer
}

// newMounted makes the services of a host as the old examples do, and adds the broker and
// the health server to the configuration, as MIGRATION.md says.
func newMounted(t *testing.T, cfg *connectplugin.ServeConfig) *mounted {
	m := &mounted{
		lifecycle: connectplugin.NewLifecycleServer(),
		broker:    connectplugin.NewCapabilityBroker("http://127.0.0.1:1"),
		health:    connectplugin.NewHealthServer(),
	}
	m.registry = connectplugin.NewServiceRegistry(m.lifecycle)
	cfg.CapabilityBroker, cfg.HealthService = m.broker, m.health
	m.handshake = connectplugin.NewHandshakeServer(cfg)
	m.router = connectplugin.NewServiceRouter(m.handshake, m.registry, m.lifecycle)
	t.Cleanup(m.router.Close)
	return m
}

// generated mounts the services with their generated constructors.
func (m *mounted) generated() *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle(connectpluginv1connect.NewHandshakeServiceHandler(m.handshake))
	mux.Handle(connectpluginv1connect.NewPluginLifecycleHandler(m.lifecycle))
	mux.Handle(connectpluginv1connect.NewServiceRegistryHandler(m.registry))
	mux.Handle(connectpluginv1connect.NewCapabilityBrokerHandler(m.broker))
	mux.Handle(connectpluginv1connect.NewHealthServiceHandler(m.health))
	mux.Handle("/services/", m.router)
	mux.Handle("/capabilities/", m.broker.Handler())
	return mux
}

// handlers mounts them with the helpers of this library.
func (m *mounted) handlers() *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle(connectplugin.HandshakeServerHandler(m.handshake))
	mux.Handle(connectplugin.LifecycleServerHandler(m.lifecycle))
	mux.Handle(connectplugin.ServiceRegistryHandler(m.registry))
	mux.Handle(connectplugin.HealthServerHandler(m.health))
	mux.Handle("/services/", m.router)
	mux.Handle("/", m.broker.Handler())
	return mux
}

// oldPlugin is a plugin of the first version: HTTP/1.1, plaintext, headers of its own.
type oldPlugin struct {
	base, runtimeID, token string
}

func oldHandshake(t *testing.T, base, selfID string) (*oldPlugin, error) {
	t.Helper()
	client := connectpluginv1connect.NewHandshakeServiceClient(http.DefaultClient, base)
	resp, err := client.Handshake(t.Context(), connect.NewRequest(&connectpluginv1.HandshakeRequest{
		CoreProtocolVersion: 1, AppProtocolVersion: 1,
		MagicCookieKey: connectplugin.DefaultMagicCookieKey, MagicCookieValue: connectplugin.DefaultMagicCookieValue,
		SelfId: selfID, SelfVersion: "1.0.0",
	}))
	if err != nil {
		return nil, err
	}
	return &oldPlugin{base: base, runtimeID: resp.Msg.GetRuntimeId(), token: resp.Msg.GetRuntimeToken()}, nil
}

// RoundTrip adds the identity, as the transports of the old examples did.
func (p *oldPlugin) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Plugin-Runtime-ID", p.runtimeID)
	r.Header.Set("Authorization", "Bearer "+p.token)
	return http.DefaultTransport.RoundTrip(r)
}

func (p *oldPlugin) client() *http.Client { return &http.Client{Transport: p} }

func open() *connectplugin.ServeConfig {
	return &connectplugin.ServeConfig{AllowInsecure: true, Policy: connectplugin.OpenPolicy()}
}

// A host of one's own mux serves as NewHost does, in plaintext over HTTP/1.1: plugins of
// the first version enrol, register, discover, call one another and use capabilities.
func TestHandMounted_WorksAsAHost(t *testing.T) {
	t.Parallel()
	for name, mux := range map[string]func(*mounted) *http.ServeMux{"generated": (*mounted).generated, "handlers": (*mounted).handlers} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log hosttest.Buffer
			cfg := open()
			cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
			m := newMounted(t, cfg)
			granted := &hosttest.RecordingLogger{}
			m.broker.RegisterCapability(hosttest.LoggerCapability(granted))
			server := httptest.NewServer(mux(m))
			t.Cleanup(server.Close)

			lines := &hosttest.RecordingLogger{}
			pluginMux := http.NewServeMux()
			pluginMux.Handle(loggerv1connect.NewLoggerHandler(lines))
			pluginServer := httptest.NewServer(pluginMux)
			t.Cleanup(pluginServer.Close)

			provider, caller := mustEnrol(t, server.URL, "logger"), mustEnrol(t, server.URL, "api")
			for _, danger := range []string{"serving plaintext", "plaintext and an open policy", "open policy: whoever reaches"} {
				if n := strings.Count(log.String(), danger); n != 1 {
					t.Errorf("the log warns %d times of %q: %s", n, danger, log.String())
				}
			}
			registry := connectpluginv1connect.NewServiceRegistryClient(provider.client(), server.URL)
			if _, err := registry.RegisterService(t.Context(), connect.NewRequest(&connectpluginv1.RegisterServiceRequest{
				ServiceType: "logger", Version: "1.0.0", EndpointPath: loggerv1connect.LoggerName,
				Metadata: map[string]string{"base_url": pluginServer.URL},
			})); err != nil {
				t.Fatal("RegisterService:", err)
			}
			callThrough(t, server.URL, caller)
			if got, _, _ := lines.Got(); len(got) != 1 {
				t.Errorf("the provider got %q", got)
			}
			useCapability(t, server.URL, caller)
			if got, _, _ := granted.Got(); len(got) != 1 {
				t.Errorf("the capability got %q", got)
			}
			refuseForgeries(t, server.URL, caller)
		})
	}
}

// Plugins and hosts of today reach those of the first version, which speak HTTP/1.1.
func TestPlaintext_HTTP1(t *testing.T) {
	t.Parallel()
	m := newMounted(t, open())
	host := httptest.NewServer(m.handlers()) // speaks HTTP/1.1 alone
	t.Cleanup(host.Close)
	lines := &hosttest.RecordingLogger{}
	pluginMux := http.NewServeMux()
	pluginMux.Handle(loggerv1connect.NewLoggerHandler(lines))
	plugin := httptest.NewServer(pluginMux)
	t.Cleanup(plugin.Close)

	c, err := connectplugin.NewClient(connectplugin.ClientConfig{
		HostURL: host.URL, SelfID: "logger", SelfVersion: "1.0.0", AllowInsecure: true,
		Metadata: connectplugin.PluginMetadata{Provides: hosttest.Provides("logger"), Requires: hosttest.Requires("logger")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	// Nobody called Connect: the first call does.
	if err := hosttest.RegisterWith(t, c, &connectpluginv1.RegisterServiceRequest{
		ServiceType: "logger", Version: "1.0.0", EndpointPath: loggerv1connect.LoggerName,
		Metadata: map[string]string{"base_url": plugin.URL},
	}); err != nil {
		t.Fatal(err)
	}
	conn, err := c.Service(t.Context(), "logger", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := loggerv1connect.NewLoggerClient(conn.HTTPClient(), conn.BaseURL()).Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{Message: "x"})); err != nil {
		t.Error("host and provider over HTTP/1.1:", err)
	}
	if got, _, _ := lines.Got(); len(got) != 1 {
		t.Errorf("the provider got %q", got)
	}
}

func mustEnrol(t *testing.T, base, selfID string) *oldPlugin {
	t.Helper()
	p, err := oldHandshake(t, base, selfID)
	if err != nil || p.runtimeID == "" || p.token == "" {
		t.Fatalf("handshake of %s: %+v, %v", selfID, p, err)
	}
	return p
}

func callThrough(t *testing.T, base string, caller *oldPlugin) {
	t.Helper()
	found, err := connectpluginv1connect.NewServiceRegistryClient(caller.client(), base).DiscoverService(t.Context(),
		connect.NewRequest(&connectpluginv1.DiscoverServiceRequest{ServiceType: "logger"}))
	if err != nil {
		t.Fatal("DiscoverService:", err)
	}
	logger := loggerv1connect.NewLoggerClient(caller.client(), base+found.Msg.GetEndpoint().GetEndpointUrl())
	if _, err := logger.Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{Message: "routed"})); err != nil {
		t.Error("a routed call:", err)
	}
}

func useCapability(t *testing.T, base string, caller *oldPlugin) {
	t.Helper()
	grant, err := connectpluginv1connect.NewCapabilityBrokerClient(caller.client(), base).RequestCapability(t.Context(),
		connect.NewRequest(&connectpluginv1.RequestCapabilityRequest{CapabilityType: "logger"}))
	if err != nil {
		t.Fatal("RequestCapability:", err)
	}
	at := base + grant.Msg.GetGrant().GetEndpointUrl()[len("http://127.0.0.1:1"):]
	if err := logWith(t.Context(), at, grant.Msg.GetGrant().GetBearerToken()); err != nil {
		t.Error("a call with a grant:", err)
	}
}

func logWith(ctx context.Context, base, token string) error {
	req := connect.NewRequest(&loggerv1.LogRequest{Message: "granted"})
	req.Header().Set("Authorization", "Bearer "+token)
	_, err := loggerv1connect.NewLoggerClient(http.DefaultClient, base).Log(ctx, req)
	return err
}

// refuseForgeries makes calls that a host refuses, of every service.
func refuseForgeries(t *testing.T, base string, honest *oldPlugin) {
	t.Helper()
	for name, forger := range map[string]*oldPlugin{
		"another's id":  {runtimeID: "api-1234567890123456", token: honest.token},
		"a wrong token": {runtimeID: honest.runtimeID, token: strings.Repeat("x", len(honest.token))},
		"nothing":       {},
	} {
		_, register := connectpluginv1connect.NewServiceRegistryClient(forger.client(), base).RegisterService(t.Context(),
			connect.NewRequest(&connectpluginv1.RegisterServiceRequest{ServiceType: "evil", Version: "1.0.0"}))
		_, report := connectpluginv1connect.NewPluginLifecycleClient(forger.client(), base).ReportHealth(t.Context(),
			connect.NewRequest(&connectpluginv1.ReportHealthRequest{State: connectpluginv1.HealthState_HEALTH_STATE_HEALTHY}))
		_, grant := connectpluginv1connect.NewCapabilityBrokerClient(forger.client(), base).RequestCapability(t.Context(),
			connect.NewRequest(&connectpluginv1.RequestCapabilityRequest{CapabilityType: "logger"}))
		watch, err := connectpluginv1connect.NewServiceRegistryClient(forger.client(), base).WatchService(t.Context(),
			connect.NewRequest(&connectpluginv1.WatchServiceRequest{ServiceType: "logger"}))
		if err == nil {
			watch.Receive()
			err = watch.Err()
			_ = watch.Close()
		}
		for procedure, err := range map[string]error{"register": register, "report": report, "grant": grant, "watch": err} {
			hosttest.WantCode(t, name+": "+procedure, connect.CodeOf(err), connect.CodeUnauthenticated)
		}
	}
}

// Where plaintext is not allowed a service that is mounted bare, which sees nothing of
// TLS, serves nobody and says why; so does one that belongs to no host.
func TestHandMounted_SaysWhatCannotWork(t *testing.T) {
	t.Parallel()
	var log hosttest.Buffer
	m := newMounted(t, &connectplugin.ServeConfig{Policy: connectplugin.OpenPolicy(), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	server := httptest.NewServer(m.generated())
	t.Cleanup(server.Close)
	_, err := oldHandshake(t, server.URL, "api")
	hosttest.WantCode(t, "a bare handshake without AllowInsecure", connect.CodeOf(err), connect.CodeUnauthenticated)
	for what, text := range map[string]string{"error": err.Error(), "log": log.String()} {
		if !strings.Contains(text, "mounted") {
			t.Errorf("the %s says %q", what, text)
		}
	}
	handlers := httptest.NewServer(m.handlers())
	t.Cleanup(handlers.Close)
	if _, err = oldHandshake(t, handlers.URL, "api"); err == nil || !strings.Contains(err.Error(), "AllowInsecure") {
		t.Errorf("plaintext without AllowInsecure: %v", err)
	}
	alone := http.NewServeMux()
	alone.Handle(connectplugin.ServiceRegistryHandler(connectplugin.NewServiceRegistry(nil)))
	bare := connectplugin.NewServiceRegistry(nil)
	bareMux := http.NewServeMux()
	bareMux.Handle(connectpluginv1connect.NewServiceRegistryHandler(bare))
	for name, mux := range map[string]*http.ServeMux{"handler": alone, "generated": bareMux} {
		unbound := httptest.NewServer(mux)
		t.Cleanup(unbound.Close)
		_, err = connectpluginv1connect.NewServiceRegistryClient((&oldPlugin{runtimeID: "x-1", token: "y"}).client(), unbound.URL).
			DiscoverService(t.Context(), connect.NewRequest(&connectpluginv1.DiscoverServiceRequest{ServiceType: "logger"}))
		if connect.CodeOf(err) != connect.CodeUnauthenticated || !strings.Contains(err.Error(), "belongs to no host") {
			t.Errorf("%s: a registry of no host: %v", name, err)
		}
	}
}

// A broker without a host serves the grants that its program made in process.
func TestHandMounted_BrokerAlone(t *testing.T) {
	t.Parallel()
	lines := &hosttest.RecordingLogger{}
	broker := connectplugin.NewCapabilityBroker("http://127.0.0.1:1")
	broker.RegisterCapability(hosttest.LoggerCapability(lines))
	server := httptest.NewServer(broker.Handler())
	t.Cleanup(server.Close)
	grant, err := broker.RequestCapability(t.Context(), connect.NewRequest(&connectpluginv1.RequestCapabilityRequest{CapabilityType: "logger"}))
	if err != nil {
		t.Fatal(err)
	}
	at := server.URL + grant.Msg.GetGrant().GetEndpointUrl()[len("http://127.0.0.1:1"):]
	if err := logWith(t.Context(), at, grant.Msg.GetGrant().GetBearerToken()); err != nil {
		t.Error("a call with the grant:", err)
	}
	hosttest.WantCode(t, "another token", connect.CodeOf(logWith(t.Context(), at, "wrong")), connect.CodeUnauthenticated)
	broker.RevokeGrant(grant.Msg.GetGrant().GetGrantId())
	hosttest.WantCode(t, "after its end", connect.CodeOf(logWith(t.Context(), at, grant.Msg.GetGrant().GetBearerToken())), connect.CodeUnauthenticated)
	if got, _, _ := lines.Got(); len(got) != 1 {
		t.Errorf("the capability got %q", got)
	}
}

// A proxy in front of the host may serve it below a path, and Config says where the host is.
func TestEndpoint_BelowAPath(t *testing.T) {
	t.Parallel()
	m := newMounted(t, open())
	granted := &hosttest.RecordingLogger{}
	m.broker.RegisterCapability(hosttest.LoggerCapability(granted))
	proxy := http.NewServeMux()
	proxy.Handle("/plugins/host/", http.StripPrefix("/plugins/host", m.handlers()))
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	for name, edit := range map[string]func(*connectplugin.ClientConfig){
		"Endpoint": func(c *connectplugin.ClientConfig) { c.Endpoint = server.URL + "/plugins/host/" },
		"Discovery": func(c *connectplugin.ClientConfig) {
			c.Discovery = connectplugin.NewStaticDiscovery(map[string][]connectplugin.Endpoint{
				"plugin-host": {{URL: server.URL + "/plugins/host"}},
			})
		},
	} {
		cfg := connectplugin.ClientConfig{
			SelfID: "api", SelfVersion: "1.0.0", AllowInsecure: true,
			Metadata: connectplugin.PluginMetadata{Provides: hosttest.Provides("x")},
		}
		edit(&cfg)
		c, err := connectplugin.NewClient(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Connect(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := strings.TrimSuffix(c.Config().Endpoint, "/"); got != server.URL+"/plugins/host" {
			t.Errorf("%s: Config().Endpoint is %q", name, got)
		}
		conn, err := c.Capability(t.Context(), "logger", "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := loggerv1connect.NewLoggerClient(conn.HTTPClient(), conn.BaseURL()).Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{Message: "x"})); err != nil {
			t.Errorf("%s: a capability: %v", name, err)
		}
		if err := c.Leave(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, _, _ := granted.Got(); len(got) != 2 {
		t.Errorf("the capability got %q", got)
	}
}

// A stream of a service that was mounted with its generated constructor ends with the identity
// of its caller, as it does behind the host's own handler.
func TestAudit_OWN11_StreamsOfBareServicesEndWithTheirCaller(t *testing.T) {
	t.Parallel()
	health := connectplugin.NewHealthServer()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.AllowInsecure, c.Authority, c.Policy, c.HealthService = true, nil, connectplugin.OpenPolicy(), health
	})
	mux := http.NewServeMux()
	mux.Handle(connectpluginv1connect.NewHealthServiceHandler(health))
	for name, handler := range map[string]http.Handler{"bare": mux, "of the host": host.Handler()} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(handler)
			t.Cleanup(server.Close)
			t.Cleanup(server.CloseClientConnections)
			p, err := oldHandshake(t, host.URL, "watcher")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), hosttest.Wait/6)
			defer cancel()
			stream, err := connectpluginv1connect.NewHealthServiceClient(p.client(), server.URL).Watch(ctx, connect.NewRequest(&connectpluginv1.HealthCheckRequest{}))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = stream.Close() }()
			if !stream.Receive() {
				t.Fatal(stream.Err())
			}
			if !host.Revoke(p.runtimeID) {
				t.Fatal("nobody was revoked")
			}
			for stream.Receive() {
				t.Errorf("told after the end: %v", stream.Msg())
			}
			if code := connect.CodeOf(stream.Err()); code != connect.CodeUnauthenticated {
				t.Errorf("ended with %v: %v", code, stream.Err())
			}
		})
	}
}

// A handshake that is mounted by hand tells of the plugins in its configuration, those that
// were asked for and policy gives, and clients dispense them.
func TestHandMounted_ListsItsPlugins(t *testing.T) {
	t.Parallel()
	for name, mux := range map[string]func(*mounted) *http.ServeMux{"generated": (*mounted).generated, "handlers": (*mounted).handlers} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := open()
			rules := *cfg.Policy.Default
			rules.HostPlugins = []string{"logger"}
			cfg.Policy = &connectplugin.Policy{Default: &rules, Public: []string{"open"}}
			cfg.Plugins = connectplugin.PluginSet{
				"logger": hosttest.LoggerPlugin{}, "hidden": hosttest.LoggerPlugin{}, "open": hosttest.LoggerPlugin{},
			}
			m := newMounted(t, cfg)
			m.broker.RegisterCapability(hosttest.LoggerCapability(&hosttest.RecordingLogger{}))
			on, lines := mux(m), &hosttest.RecordingLogger{}
			on.Handle(loggerv1connect.NewLoggerHandler(lines))
			server := httptest.NewServer(on)
			t.Cleanup(server.Close)
			for _, c := range []struct {
				selfID          string
				requested, want []string
				capabilities    int
			}{
				{"api", nil, []string{"logger", "open"}, 1},
				{"api", []string{"logger", "hidden"}, []string{"logger"}, 1},
				{"", nil, []string{"open"}, 0},
			} {
				client := connectpluginv1connect.NewHandshakeServiceClient(http.DefaultClient, server.URL)
				req := hosttest.OldRequest(c.selfID)
				req.RequestedPlugins = c.requested
				resp, err := client.Handshake(t.Context(), connect.NewRequest(req))
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, p := range resp.Msg.GetPlugins() {
					got = append(got, p.GetName())
				}
				if !slices.Equal(got, c.want) || len(resp.Msg.GetHostCapabilities()) != c.capabilities {
					t.Errorf("%q asks for %v: %v and %d capabilities", c.selfID, c.requested, got, len(resp.Msg.GetHostCapabilities()))
				}
			}
			app, err := connectplugin.NewClient(connectplugin.ClientConfig{
				HostURL: server.URL, SelfID: "app", AllowInsecure: true, Plugins: connectplugin.PluginSet{"logger": hosttest.LoggerPlugin{}},
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = app.Close() })
			logger, err := connectplugin.DispenseTyped[loggerv1connect.LoggerClient](app, "logger")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := logger.Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{Message: "x"})); err != nil {
				t.Error(err)
			}
		})
	}
}
