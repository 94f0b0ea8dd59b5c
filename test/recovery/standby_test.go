package recovery_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// pair is a policy by which two plugins may provide the same type.
func pair(blue ...string) *connectplugin.Policy {
	p := policy()
	p.Plugins["blue"] = hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Provides = blue })
	p.Plugins["green"] = hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Provides = []string{echoType} })
	return p
}

// serve runs a plugin until the test or stop ends it. It returns its client and what
// ServePlugin returned.
func serve(t *testing.T, host *hosttest.Restartable, selfID string, standby bool) (c *connectplugin.Client, stop func(), ended <-chan error) {
	t.Helper()
	tls, err := host.Authority.PluginTLS(selfID)
	if err != nil {
		t.Fatal(err)
	}
	cfg := &connectplugin.PluginServerConfig{
		Client: host.ClientConfig(t, selfID), HealthInterval: never, Standby: standby,
		Services: []connectplugin.PluginService{{Type: echoType, Version: "1.0.0", Path: "/echo.v1.Echo/", Handler: echoHandler()}},
	}
	cfg.Client.TLS = tls
	connected := make(chan *connectplugin.Client, 1)
	cfg.OnConnected = func(_ context.Context, c *connectplugin.Client) error { connected <- c; return nil }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		done <- connectplugin.ServePlugin(ctx, cfg)
	}()
	stop = func() { cancel(); <-finished }
	t.Cleanup(stop)
	return hosttest.Arrival(t, connected), stop, done
}

// route calls a plugin under the path that the host would have for it.
func route(ctx context.Context, host *hosttest.Restartable, c *connectplugin.Client, runtimeID string) error {
	client := connect.NewClient[text, text](c.HTTPClient(), host.URL+"/services/"+echoType+"/"+runtimeID+sayOnce)
	_, err := client.CallUnary(ctx, connect.NewRequest(&text{Value: "x"}))
	return err
}

// A plugin that says so waits while another provides its type, and takes over in the
// moment in which that leaves, however it does. Nobody learns of it before.
func TestAudit_USE39_AStandbyTakesOver(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*testing.T, *hosttest.Restartable, string, func()){
		"it stops":    func(_ *testing.T, _ *hosttest.Restartable, _ string, stop func()) { stop() },
		"it is ended": func(_ *testing.T, host *hosttest.Restartable, id string, stop func()) { host.Revoke(id); stop() },
		"policy takes the type from it": func(t *testing.T, host *hosttest.Restartable, _ string, _ func()) {
			t.Helper()
			hosttest.SetPolicy(t, host.Host, pair())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := start(t, func(c *connectplugin.ServeConfig) { c.Policy = pair(echoType) })
			blue, stop, _ := serve(t, host, "blue", true)
			hosttest.Eventually(t, "the first provides", func() bool { return host.Registered(echoType, blue.RuntimeID()) })
			green, _, _ := serve(t, host, "green", true)
			hosttest.Eventually(t, "the second stands by", func() bool { return count(host, connectplugin.AuditRegistered, "green") == 1 })
			api := caller(t, host)
			w := hosttest.Watch(t, api, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: echoType})
			if e := w.Next(t); e.GetState() != available || e.GetEndpoint().GetProviderId() != blue.RuntimeID() {
				t.Fatalf("first %v", e)
			}
			wantHidden(t, host, api, blue, green)
			conn := service(t, api)
			leave(t, host, blue.RuntimeID(), stop)
			if e := w.Next(t); e.GetState() != available || e.GetEndpoint().GetProviderId() != green.RuntimeID() {
				t.Fatalf("then %v, want the second at once", e)
			}
			hosttest.Eventually(t, "calls reach it", func() bool { return once(t.Context(), conn) == nil })
			if err := route(t.Context(), host, api, green.RuntimeID()); err != nil {
				t.Errorf("its own route: %v", err)
			}
		})
	}
}

func wantHidden(t *testing.T, host *hosttest.Restartable, api, provides, waits *connectplugin.Client) {
	t.Helper()
	if all := host.Registry().GetAllProviders(echoType); len(all) != 1 {
		t.Errorf("%d providers", len(all))
	}
	for range 3 {
		found, err := hosttest.Discover(t, api, echoType, "")
		if err != nil || found.GetEndpoint().GetProviderId() != provides.RuntimeID() || !found.GetSingleProvider() {
			t.Errorf("discovered %v, %v", found, err)
		}
	}
	if err := route(t.Context(), host, api, waits.RuntimeID()); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("the route of the one that waits: %v", err)
	}
	if err := route(t.Context(), host, api, provides.RuntimeID()); err != nil {
		t.Errorf("the route of the one that provides: %v", err)
	}
}

// One that leaves while it stands by, or may not provide the type any more, does not take
// over.
func TestAudit_USE39_AStandbyThatIsGoneTakesNothingOver(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*testing.T, *hosttest.Restartable, string, func()){
		"it stops":    func(_ *testing.T, _ *hosttest.Restartable, _ string, stop func()) { stop() },
		"it is ended": func(_ *testing.T, host *hosttest.Restartable, id string, stop func()) { stop(); host.Revoke(id) },
		"policy denies it": func(t *testing.T, host *hosttest.Restartable, _ string, _ func()) {
			t.Helper()
			p := pair(echoType)
			p.Plugins["green"] = hosttest.Allow(nil)
			hosttest.SetPolicy(t, host.Host, p)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := start(t, func(c *connectplugin.ServeConfig) { c.Policy = pair(echoType) })
			blue, stop, _ := serve(t, host, "blue", false)
			hosttest.Eventually(t, "the first provides", func() bool { return host.Registered(echoType, blue.RuntimeID()) })
			green, stopGreen, _ := serve(t, host, "green", true)
			hosttest.Eventually(t, "the second stands by", func() bool { return count(host, connectplugin.AuditRegistered, "green") == 1 })
			end(t, host, green.RuntimeID(), stopGreen)
			stop()
			if all := host.Registry().GetAllProviders(echoType); len(all) != 0 {
				t.Errorf("%s provides", all[0].RuntimeID)
			}
		})
	}
}

// A plugin whose type another one provides is told that, and not that its handshake was
// refused.
func TestAudit_USE39_ATakenTypeIsNoRefusedHandshake(t *testing.T) {
	t.Parallel()
	host := start(t, func(c *connectplugin.ServeConfig) { c.Policy = pair(echoType) })
	blue, stop, _ := serve(t, host, "blue", false)
	hosttest.Eventually(t, "the first provides", func() bool { return host.Registered(echoType, blue.RuntimeID()) })
	_, _, ended := serve(t, host, "green", false)
	err := hosttest.Arrival(t, ended)
	if !errors.Is(err, connectplugin.ErrServiceTaken) || errors.Is(err, connectplugin.ErrHandshakeRefused) || connect.CodeOf(err) != connect.CodeAlreadyExists {
		t.Errorf("%v", err)
	}
	stop()
	green, _, _ := serve(t, host, "green", false)
	hosttest.Eventually(t, "the second provides", func() bool { return host.Registered(echoType, green.RuntimeID()) })
}

// A type that its caller declared and may use, and that nobody provides, or nobody who is
// well, or not the one that left, is unavailable; everything else is not found.
func TestAudit_USE23_AwayIsUnavailable(t *testing.T) {
	t.Parallel()
	host := start(t, func(c *connectplugin.ServeConfig) { c.Policy = pair(echoType) })
	api := caller(t, host)
	check := func(what, serviceType, minVersion, provider string, want connect.Code) {
		t.Helper()
		if _, err := hosttest.Discover(t, api, serviceType, minVersion); hosttest.CodeOrZero(err) != want {
			t.Errorf("%s: discover: %v, want %v", what, err, want)
		}
		for protocol, opt := range protocols() {
			client := connect.NewClient[text, text](api.HTTPClient(), host.URL+"/services/"+serviceType+"/"+provider+sayOnce, opt)
			if _, err := client.CallUnary(t.Context(), connect.NewRequest(&text{})); minVersion == "" && hosttest.CodeOrZero(err) != want {
				t.Errorf("%s: route, %s: %v, want %v", what, protocol, err, want)
			}
		}
	}
	check("nobody came yet", echoType, "", "nobody-1", connect.CodeUnavailable)
	check("declared by nobody", "foreign", "", "nobody-1", connect.CodeNotFound)
	blue, stop, _ := serve(t, host, "blue", false)
	hosttest.Eventually(t, "it provides", func() bool { return host.Registered(echoType, blue.RuntimeID()) })
	check("while it provides", echoType, "", blue.RuntimeID(), 0)
	check("no such version", echoType, "9.0.0", "", connect.CodeNotFound)
	if err := blue.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY, "", nil); err != nil {
		t.Fatal(err)
	}
	check("it is ill", echoType, "", blue.RuntimeID(), connect.CodeUnavailable)
	check("it is ill, and of another version", echoType, "9.0.0", "", connect.CodeNotFound)
	stop()
	check("it left", echoType, "", blue.RuntimeID(), connect.CodeUnavailable)
	check("nobody is left", echoType, "9.0.0", "", connect.CodeUnavailable)
	green, _, _ := serve(t, host, "green", false)
	hosttest.Eventually(t, "another provides", func() bool { return host.Registered(echoType, green.RuntimeID()) })
	if err := route(t.Context(), host, api, blue.RuntimeID()); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("the route of the one that left: %v", err)
	}
	denied := func() bool {
		return slices.ContainsFunc(host.Audit.Events(), func(e connectplugin.AuditEvent) bool {
			return e.Kind == connectplugin.AuditDenied && e.Subject == echoType && e.RuntimeID == api.RuntimeID()
		})
	}
	if denied() {
		t.Error("who calls what is away is in the audit")
	}
	if err := route(t.Context(), host, api, api.RuntimeID()); connect.CodeOf(err) != connect.CodeNotFound || !denied() {
		t.Errorf("the route of one that never was a provider: %v", err)
	}
}
