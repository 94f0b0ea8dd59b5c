package dropin_test

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// serveOpen serves a host with the two fields and a plugin, on every address.
func serveOpen(t *testing.T, edit func(*connectplugin.ServeConfig)) (h *connectplugin.Host, port string, lines *hosttest.RecordingLogger) {
	t.Helper()
	lines = &hosttest.RecordingLogger{}
	cfg := open()
	cfg.Plugins = connectplugin.PluginSet{"logger": hosttest.LoggerPlugin{}}
	cfg.Impls = map[string]any{"logger": lines}
	cfg.Logger = hosttest.Logger(t)
	if edit != nil {
		edit(cfg)
	}
	h, err := connectplugin.NewHost(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- h.Serve(t.Context(), l) }()
	t.Cleanup(func() {
		_ = h.Shutdown(t.Context())
		<-done
	})
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return h, port, lines
}

// Addr ":8080" with AllowInsecure serves whoever names the host by an address or by a name
// that no foreign site can have.
func TestOpenHost_EveryAddress(t *testing.T) {
	t.Parallel()
	_, port, lines := serveOpen(t, nil)
	for _, name := range []string{"127.0.0.1", "localhost"} {
		c, err := connectplugin.NewClient(connectplugin.ClientConfig{
			Endpoint: "http://" + net.JoinHostPort(name, port), AllowInsecure: true,
			Plugins: connectplugin.PluginSet{"logger": hosttest.LoggerPlugin{}},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		logger, err := connectplugin.DispenseTyped[loggerv1connect.LoggerClient](c, "logger") // connects
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := logger.Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{Message: name})); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, _, _ := lines.Got(); len(got) != 2 {
		t.Errorf("the plugin got %q", got)
	}
	for host, want := range map[string]int{"host": 200, "10.1.2.3:8080": 200, "evil.example": 403} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1:"+port+loggerv1connect.LoggerLogProcedure, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		req.Header.Set("Content-Type", "application/proto")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("Host %s: %s, want %d", host, resp.Status, want)
		}
	}
}

// A client fails to connect to a host that lacks what it wants to dispense.
func TestClient_HostLacksAPlugin(t *testing.T) {
	t.Parallel()
	_, port, _ := serveOpen(t, func(c *connectplugin.ServeConfig) { c.Plugins, c.Impls = nil, nil })
	c, err := connectplugin.NewClient(connectplugin.ClientConfig{
		Endpoint: "http://127.0.0.1:" + port, AllowInsecure: true,
		Plugins: connectplugin.PluginSet{"logger": hosttest.LoggerPlugin{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Connect(t.Context()); !errors.Is(err, connectplugin.ErrPluginNotFound) {
		t.Errorf("got %v", err)
	}
}

// Where policy opens it, health answers who has no identity: about the host and what is
// public, and about nothing else.
func TestHealth_Anonymous(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		public []string
		want   map[string]connect.Code
	}{
		"everything": {[]string{"*"}, map[string]connect.Code{"": 0, "logger": 0, "hidden": 0, "never": connect.CodeNotFound}},
		"health":     {[]string{"health"}, map[string]connect.Code{"": 0, "logger": connect.CodeNotFound, "hidden": connect.CodeNotFound}},
		"both":       {[]string{"health", "logger"}, map[string]connect.Code{"": 0, "logger": 0, "hidden": connect.CodeNotFound}},
		"nothing":    {nil, map[string]connect.Code{"": connect.CodeUnauthenticated, "logger": connect.CodeUnauthenticated}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			health := connectplugin.NewHealthServer()
			health.SetServingStatus("hidden", connectpluginv1.ServingStatus_SERVING_STATUS_SERVING)
			_, port, _ := serveOpen(t, func(c *connectplugin.ServeConfig) {
				c.HealthService = health
				c.Policy.Public = tt.public
			})
			client := connectpluginv1connect.NewHealthServiceClient(http.DefaultClient, "http://127.0.0.1:"+port)
			for service, want := range tt.want {
				resp, err := client.Check(t.Context(), connect.NewRequest(&connectpluginv1.HealthCheckRequest{Service: service}))
				hosttest.WantCode(t, "Check "+service, hosttest.CodeOrZero(err), want)
				if err == nil && resp.Msg.GetStatus() != connectpluginv1.ServingStatus_SERVING_STATUS_SERVING {
					t.Errorf("%q is %s", service, resp.Msg.GetStatus())
				}
			}
		})
	}
}

// What the host registers by direct calls is bound by SetAllowedServices, and by no owner.
func TestRegistry_DirectCalls(t *testing.T) {
	t.Parallel()
	registry := connectplugin.NewServiceRegistry(nil)
	register := func(runtimeID, serviceType string) error {
		_, err := registry.RegisterService(t.Context(), hosttest.InProcess(runtimeID, &connectpluginv1.RegisterServiceRequest{
			ServiceType: serviceType, Version: "1.0.0", EndpointPath: "kv.v1.KVService",
		}))
		return err
	}
	registry.SetAllowedServices("one", []string{"kv"})
	hosttest.WantCode(t, "what is allowed", hosttest.CodeOrZero(register("one", "kv")), 0)
	hosttest.WantCode(t, "what is not", connect.CodeOf(register("one", "cache")), connect.CodePermissionDenied)
	hosttest.WantCode(t, "another of the type", hosttest.CodeOrZero(register("two", "kv")), 0)
	providers := registry.GetAllProviders("kv")
	if len(providers) != 2 || providers[0].EndpointPath != "/kv.v1.KVService/" {
		t.Errorf("got %+v", providers)
	}
	// In a host whose policy gives the type to one, too.
	host := hosttest.Start(t, nil)
	for _, runtimeID := range []string{"one", "two"} {
		_, err := host.Registry().RegisterService(t.Context(), hosttest.InProcess(runtimeID, &connectpluginv1.RegisterServiceRequest{
			ServiceType: "kv", Version: "1.0.0",
		}))
		hosttest.WantCode(t, "registered by the host: "+runtimeID, hosttest.CodeOrZero(err), 0)
	}
}

// Under an open policy several self ids provide a type, over the wire and in the same host.
func TestOpenHost_SeveralProvideAType(t *testing.T) {
	t.Parallel()
	_, port, _ := serveOpen(t, nil)
	mounted := newMounted(t, open())
	server := httptest.NewServer(mounted.generated())
	t.Cleanup(server.Close)
	for name, base := range map[string]string{"NewHost": "http://127.0.0.1:" + port, "a mux of one's own": server.URL} {
		var providers []*oldPlugin
		for _, selfID := range []string{"one", "two"} {
			p := mustEnrol(t, base, selfID)
			providers = append(providers, p)
			_, err := connectpluginv1connect.NewServiceRegistryClient(p.client(), base).RegisterService(t.Context(),
				connect.NewRequest(&connectpluginv1.RegisterServiceRequest{ServiceType: "kv", Version: "1.0.0"}))
			hosttest.WantCode(t, name+": "+selfID, hosttest.CodeOrZero(err), 0)
		}
		caller := connectpluginv1connect.NewServiceRegistryClient(mustEnrol(t, base, "caller").client(), base)
		found, err := caller.DiscoverService(t.Context(), connect.NewRequest(&connectpluginv1.DiscoverServiceRequest{ServiceType: "kv"}))
		if err != nil || found.Msg.GetEndpoint().GetProviderId() != providers[0].runtimeID || found.Msg.GetSingleProvider() {
			t.Errorf("%s: discovered is %v, %v", name, found, err)
		}
	}
}
