package attack_test

import (
	"context"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// What the operator narrowed stays narrowed, whatever a plugin declares when it renews, and
// whatever policy becomes; until the operator widens it.
func TestAudit_ATK17_ANarrowedPluginStaysNarrowed(t *testing.T) {
	t.Parallel()
	policy := func(provides ...string) *connectplugin.Policy {
		return policyFor(map[string]func(*connectplugin.PluginPolicy){"storage": func(p *connectplugin.PluginPolicy) {
			p.AllowUnproven, p.Provides = true, provides
		}})
	}
	host := hosttest.Start(t, hosttest.WithPolicy(policy("*")))
	cfg := connectplugin.ClientConfig{HostURL: host.URL, SelfID: "storage", TLS: host.StrangerTLS()}
	cfg.Metadata.Provides = hosttest.Provides("a", "b")
	c, err := enrol(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	may := func(when string, want map[string]bool) {
		t.Helper()
		for serviceType, allowed := range want {
			_, err := hosttest.Register(t, c, serviceType, "1.0.0")
			if allowed && err != nil || !allowed && connect.CodeOf(err) != connect.CodePermissionDenied {
				t.Errorf("%s: %s: %v", when, serviceType, err)
			}
			if !allowed && host.Registered(serviceType, c.RuntimeID()) {
				t.Errorf("%s: %s is in service", when, serviceType)
			}
		}
	}
	renew := func(when string) {
		t.Helper()
		id := c.RuntimeID()
		if err := c.Connect(t.Context()); err != nil || c.RuntimeID() != id {
			t.Fatalf("%s: %v, %s then %s", when, err, id, c.RuntimeID())
		}
	}
	may("at first", map[string]bool{"a": true, "b": true, "c": false})
	host.Registry().SetAllowedServices(c.RuntimeID(), []string{"a", "c", "*"})
	narrowed := map[string]bool{"a": true, "b": false, "c": false}
	may("narrowed", narrowed)
	renew("narrowed")
	may("renewed", narrowed)
	for _, p := range []*connectplugin.Policy{policy("a", "b", "c"), policy("*")} {
		hosttest.SetPolicy(t, host, p)
		renew("another policy")
		may("another policy", narrowed)
	}
	// A renewal of the first wire version declares nothing, and so everything.
	resp, err := hosttest.HandshakeClient(t, host).Handshake(t.Context(), hosttest.WithCredentials(hosttest.OldRequest("storage"), c.RuntimeID(), c.RuntimeToken()))
	if err != nil {
		t.Fatal(err)
	}
	for serviceType, allowed := range map[string]bool{"a": true, "b": false, "c": true} {
		_, err := connectpluginv1connect.NewServiceRegistryClient(host.Stranger(t), host.URL).RegisterService(t.Context(), hosttest.WithCredentials(
			&connectpluginv1.RegisterServiceRequest{ServiceType: serviceType, Version: "1.0.0", EndpointPath: "/" + serviceType + "/"},
			resp.Msg.GetRuntimeId(), resp.Msg.GetRuntimeToken()))
		if (err == nil) != allowed {
			t.Errorf("declares nothing: %s: %v", serviceType, err)
		}
	}
	for _, p := range host.Plugins() {
		if !slices.Equal(p.Rights.Provides, []string{"a", "c"}) {
			t.Errorf("the operator is told of %q", p.Rights.Provides)
		}
	}
}

// hiddenHost has a plugin that is public and one that is not, a capability, and providers
// for strangers.
func hiddenHost(t *testing.T) *hosttest.Host {
	t.Helper()
	e := &echo{}
	return hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = policyFor(map[string]func(*connectplugin.PluginPolicy){"may": withSecret, "denied": func(p *connectplugin.PluginPolicy) {
			p.Secret, p.HostPlugins, p.Capabilities, p.Provides, p.Requires = hosttest.Secret, nil, nil, []string{"own"}, []string{"used"}
		}})
		c.Policy.Public = []string{"logger"}
		offersEcho(e, connectplugin.NewAPIKeyAuth("", func(key string) (string, map[string]string, error) {
			if key != "let-me-in" {
				return "", nil, context.Canceled
			}
			return "operator", nil, nil
		}))(c)
		c.Plugins["logger"], c.Impls["logger"] = hosttest.LoggerPlugin{}, &hosttest.RecordingLogger{}
		c.ServerMetadata = map[string]string{"region": "north"}
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(hosttest.NewCapability(e.handler(), "tool", "1.0.0"))
	})
}

// Whoever asks for no identity learns of what is public, whichever names it asks for and
// whatever it shows that makes it nobody's stranger; whom a provider knows learns of what it
// may call, as does a plugin.
func TestAudit_ATK20_AnAnonymousHandshakeLearnsWhatIsPublic(t *testing.T) {
	t.Parallel()
	host := hiddenHost(t)
	own, err := host.Authority.PluginTLS("may")
	if err != nil {
		t.Fatal(err)
	}
	plugin := host.Enrol(t, "may", nil)
	bare, certified := host.Stranger(t), hosttest.HTTPClient(t, own)
	identity := hosttest.IdentityHeader(plugin.RuntimeID(), plugin.RuntimeToken())
	for name, c := range map[string]struct {
		client *http.Client
		header http.Header
		knows  bool
	}{
		"nothing":                     {bare, nil, false},
		"a wrong key":                 {bare, http.Header{"X-Api-Key": {"guess"}}, false},
		"a plugin's certificate":      {certified, nil, false},
		"a plugin's, and a key":       {certified, http.Header{"X-Api-Key": {"let-me-in"}}, false},
		"a runtime token":             {bare, identity, false},
		"a runtime token alone":       {bare, hosttest.BearerHeader(plugin.RuntimeToken()), false},
		"a key that a provider knows": {bare, http.Header{"X-Api-Key": {"let-me-in"}}, true},
	} {
		for _, asked := range [][]string{nil, {"echo"}, {"echo", "logger", "tool"}} {
			for protocol, options := range protocols {
				req := connect.NewRequest(hosttest.OldRequest(""))
				req.Msg.RequestedPlugins = asked
				resp, err := connectpluginv1connect.NewHandshakeServiceClient(withHeader{c.client, c.header}, host.URL, options...).Handshake(t.Context(), req)
				if err != nil {
					t.Errorf("%s, %s: %v", name, protocol, err)
					continue
				}
				var told []string
				for _, p := range resp.Msg.GetPlugins() {
					told = append(told, p.GetName())
				}
				if slices.Contains(told, "echo") != c.knows || len(resp.Msg.GetServerMetadata()) > 0 != c.knows || len(resp.Msg.GetHostCapabilities()) > 0 {
					t.Errorf("%s, %s, asked for %q: told of %q, %v, %v", name, protocol, asked, told, resp.Msg.GetServerMetadata(), resp.Msg.GetHostCapabilities())
				}
				if wanted := asked == nil || slices.Contains(asked, "logger"); slices.Contains(told, "logger") != wanted {
					t.Errorf("%s, %s, asked for %q: told of %q, and the logger is public", name, protocol, asked, told)
				}
			}
		}
	}
	for selfID, want := range map[string]int{"may": 2, "denied": 1} { // its own, and the public one
		req := connect.NewRequest(hosttest.OldRequest(selfID))
		hosttest.SetPolicy(t, host, unprovenRights(selfID, want == 2))
		resp, err := connectpluginv1connect.NewHandshakeServiceClient(bare, host.URL).Handshake(t.Context(), req)
		if err != nil || len(resp.Msg.GetPlugins()) != want || resp.Msg.GetServerMetadata()["region"] != "north" {
			t.Errorf("%s: %v, %v", selfID, resp, err)
		}
	}
}

// An anonymous handshake that is refused for what it is, or for how many there are, has no
// auth provider asked; one within its budget has.
func TestAudit_OWN4_AnAnonymousHandshakePaysBeforeProvidersAreAsked(t *testing.T) {
	t.Parallel()
	const burst, guesses = 5, 30
	var asked atomic.Int32
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Limits.HandshakesPerSecond, c.Limits.HandshakeBurst = 0.001, burst
		offersEcho(&echo{}, connectplugin.NewAPIKeyAuth("", func(key string) (string, map[string]string, error) {
			asked.Add(1)
			if key != "let-me-in" {
				return "", nil, context.Canceled
			}
			return "operator", nil, nil
		}))(c)
	})
	shake := func(key string, edit func(*connectpluginv1.HandshakeRequest)) error {
		req := connect.NewRequest(hosttest.OldRequest(""))
		edit(req.Msg)
		client := connectpluginv1connect.NewHandshakeServiceClient(withHeader{host.Stranger(t), http.Header{"X-Api-Key": {key}}}, host.URL)
		_, err := client.Handshake(t.Context(), req)
		return err
	}
	for range guesses {
		if err := shake("guess", func(m *connectpluginv1.HandshakeRequest) { m.MagicCookieValue = "another" }); err == nil {
			t.Error("another cookie: no error")
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("providers were asked %d times about messages that are none for this host", n)
	}
	whole := func(*connectpluginv1.HandshakeRequest) {}
	if err := shake("let-me-in", whole); err != nil || asked.Load() != 1 {
		t.Errorf("within the budget: %v, asked %d times", err, asked.Load())
	}
	for range guesses {
		_ = shake("guess", whole)
	}
	if n := asked.Load(); n > burst {
		t.Errorf("providers were asked %d times, want %d at most", n, burst)
	}
}

func unprovenRights(selfID string, all bool) *connectplugin.Policy {
	p := policyFor(map[string]func(*connectplugin.PluginPolicy){selfID: unproven})
	if !all {
		p = deny(p)
	}
	p.Public = []string{"logger"}
	return p
}

// healthOf asks for the health of a service, once and by a watch.
func healthOf(t *testing.T, c *connectplugin.Client, base, service string, options []connect.ClientOption) (code connect.Code, first connectpluginv1.ServingStatus) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	client := connectpluginv1connect.NewHealthServiceClient(c.HTTPClient(), base, options...)
	_, err := client.Check(ctx, connect.NewRequest(&connectpluginv1.HealthCheckRequest{Service: service}))
	stream, streamErr := client.Watch(ctx, connect.NewRequest(&connectpluginv1.HealthCheckRequest{Service: service}))
	if streamErr != nil || !stream.Receive() {
		t.Fatalf("%s: %v, %v", service, streamErr, stream.Err())
	}
	first = stream.Msg().GetStatus()
	cancel()
	_ = stream.Close()
	return hosttest.CodeOrZero(err), first
}

// Health tells a plugin of what it provides, requires or may call, and of the host; of
// everything else what it tells of what is not there.
func TestAudit_ATK21_HealthOfWhatIsNothingToAPlugin(t *testing.T) {
	t.Parallel()
	health := connectplugin.NewHealthServer()
	serving := connectpluginv1.ServingStatus_SERVING_STATUS_SERVING
	host := hiddenHostWith(t, health)
	services := []string{"own", "used", "secret", "echo", "acme.v1.Echo", "logger", "tool", "anything"}
	for _, service := range services {
		health.SetServingStatus(service, serving)
	}
	everything := append(slices.Clone(services), "")
	for selfID, sees := range map[string][]string{"denied": {"own", "used", "logger", ""}, "tooled": {"echo", "acme.v1.Echo", "logger", "tool", ""}, "may": everything} {
		cfg := host.ClientConfig(t, selfID)
		cfg.Metadata.Provides, cfg.Metadata.Requires = hosttest.Provides("own"), hosttest.Requires("used")
		if selfID == "may" {
			cfg.Metadata.Provides = hosttest.Provides(services...)
		}
		c, err := enrol(t, cfg)
		if err != nil {
			t.Fatal(err)
		}
		for protocol, options := range protocols {
			for _, service := range append(everything, "not-there") {
				code, first := healthOf(t, c, host.URL, service, options)
				want, wantFirst := connect.CodeNotFound, connectpluginv1.ServingStatus_SERVING_STATUS_SERVICE_UNKNOWN
				if slices.Contains(sees, service) {
					want, wantFirst = 0, serving
				}
				if code != want || first != wantFirst {
					t.Errorf("%s asks for %q over %s: %v, %v", selfID, service, protocol, code, first)
				}
			}
		}
	}
}

func hiddenHostWith(t *testing.T, health *connectplugin.HealthServer) *hosttest.Host {
	t.Helper()
	e := &echo{}
	return hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.HealthService, c.Policy = health, policyFor(map[string]func(*connectplugin.PluginPolicy){
			"may": withSecret,
			"tooled": func(p *connectplugin.PluginPolicy) { // every tool, no service
				p.Secret, p.Provides, p.Requires = hosttest.Secret, nil, nil
			},
			"denied": func(p *connectplugin.PluginPolicy) {
				p.Secret, p.HostPlugins, p.Capabilities, p.Provides, p.Requires = hosttest.Secret, nil, nil, []string{"own", "secret"}, []string{"used"}
			},
		})
		c.Policy.Public = []string{"logger"}
		offersEcho(e)(c)
		c.Plugins["logger"], c.Impls["logger"] = hosttest.LoggerPlugin{}, &hosttest.RecordingLogger{}
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(hosttest.NewCapability(e.handler(), "tool", "1.0.0"))
	})
}

// A watch ends when policy makes the service nothing to the plugin, and changes of what is
// hidden are not told.
func TestAudit_ATK21_PolicyEndsHealthWatches(t *testing.T) {
	t.Parallel()
	health := connectplugin.NewHealthServer()
	allow := func(requires ...string) *connectplugin.Policy {
		return policyFor(map[string]func(*connectplugin.PluginPolicy){"api": func(p *connectplugin.PluginPolicy) { p.AllowUnproven, p.Requires = true, requires }})
	}
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) { c.HealthService, c.Policy = health, allow("a", "b") })
	cfg := connectplugin.ClientConfig{HostURL: host.URL, SelfID: "api", TLS: host.StrangerTLS()}
	cfg.Metadata.Requires = hosttest.Requires("a", "b", "c")
	c, err := enrol(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for name, options := range protocols {
		told, ended := map[string]chan connectpluginv1.ServingStatus{}, map[string]chan error{}
		for _, service := range []string{"a", "b", "hidden"} {
			told[service], ended[service] = watchHealth(t, c, host.URL, service, options)
			if s := hosttest.Arrival(t, told[service]); s == connectpluginv1.ServingStatus_SERVING_STATUS_UNSPECIFIED {
				t.Errorf("%s: %v", service, s)
			}
		}
		health.SetServingStatus("hidden", connectpluginv1.ServingStatus_SERVING_STATUS_NOT_SERVING)
		health.SetServingStatus("a", connectpluginv1.ServingStatus_SERVING_STATUS_NOT_SERVING)
		if s := hosttest.Arrival(t, told["a"]); s != connectpluginv1.ServingStatus_SERVING_STATUS_NOT_SERVING {
			t.Errorf("%s: told of %v", name, s)
		}
		hosttest.SetPolicy(t, host, allow("a"))
		if err := hosttest.Arrival(t, ended["b"]); connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("%s: the end of what policy withdrew: %v", name, err)
		}
		if len(ended["a"])+len(ended["hidden"])+len(told["hidden"]) != 0 {
			t.Errorf("%s: others ended, or a hidden change was told", name)
		}
		hosttest.SetPolicy(t, host, allow("a", "b"))
		health.SetServingStatus("a", connectpluginv1.ServingStatus_SERVING_STATUS_SERVING)
		_ = hosttest.Arrival(t, told["a"])
	}
}

func watchHealth(t *testing.T, c *connectplugin.Client, base, service string, options []connect.ClientOption) (chan connectpluginv1.ServingStatus, chan error) {
	t.Helper()
	told, ended := make(chan connectpluginv1.ServingStatus, 100), make(chan error, 1)
	stream, err := connectpluginv1connect.NewHealthServiceClient(c.HTTPClient(), base, options...).
		Watch(t.Context(), connect.NewRequest(&connectpluginv1.HealthCheckRequest{Service: service}))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for stream.Receive() {
			told <- stream.Msg().GetStatus()
		}
		err := stream.Err()
		_ = stream.Close()
		ended <- err
	}()
	return told, ended
}
