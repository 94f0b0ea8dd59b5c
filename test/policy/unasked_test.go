package policy_test

import (
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A change of policy that says nothing of a plugin leaves its provider alone, also where another
// instance of it is there that only calls.
func TestAudit_ATK17_AnInstanceThatProvidesNothingTakesNobodysEndpoint(t *testing.T) {
	t.Parallel()
	rules := func(extra ...string) *connectplugin.Policy {
		p := &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"p": hosttest.Allow(func(pp *connectplugin.PluginPolicy) {
				pp.Provides, pp.Requires, pp.Endpoint, pp.AllowOwnAddress = []string{"a"}, []string{"b"}, "https://127.0.0.1:4", false
			}),
		}}
		for _, name := range extra {
			p.Plugins[name] = hosttest.Allow(nil)
		}
		return p
	}
	host := hosttest.Start(t, hosttest.WithPolicy(rules()))
	provider := host.Enrol(t, "p", hosttest.Providing("a"))
	if _, err := hosttest.Register(t, provider, "a", "1.0.0"); err != nil {
		t.Fatal(err)
	}
	caller := host.Enrol(t, "p", hosttest.Requiring("b"))
	hosttest.SetPolicy(t, host, rules("somebody else"))
	for name, c := range map[string]*connectplugin.Client{"provider": provider, "caller": caller} {
		if code := hosttest.ReportAs(t, host, c.RuntimeID(), c.RuntimeToken()); code != 0 {
			t.Errorf("the %s: %v", name, code)
		}
	}
	if !host.Registered("a", provider.RuntimeID()) {
		t.Error("the provider lost its registration to an instance that provides nothing")
	}
}

// Variants: policy names an endpoint for a plugin that had none, while an instance that only calls is there;
// it had its own address.
func TestAudit_ATK17_AnEndpointThatPolicyNamesIsTheProviders(t *testing.T) {
	t.Parallel()
	rules := func(endpoint string) *connectplugin.Policy {
		return &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"p": hosttest.Allow(func(pp *connectplugin.PluginPolicy) {
				pp.Provides, pp.Requires, pp.Endpoint = []string{"a"}, []string{"b"}, endpoint
			}),
		}}
	}
	for range 5 { // the order of identities is any
		host := hosttest.Start(t, hosttest.WithPolicy(rules("")))
		provider := host.Enrol(t, "p", hosttest.Providing("a"))
		if _, err := hosttest.Register(t, provider, "a", "1.0.0"); err != nil {
			t.Fatal(err)
		}
		callers := []*connectplugin.Client{host.Enrol(t, "p", hosttest.Requiring("b")), host.Enrol(t, "p", hosttest.Requiring("b"))}
		hosttest.SetPolicy(t, host, rules("https://127.0.0.1:4"))
		hosttest.SetPolicy(t, host, rules("https://127.0.0.1:5"))
		for _, c := range append(callers, provider) {
			if code := hosttest.ReportAs(t, host, c.RuntimeID(), c.RuntimeToken()); code != 0 {
				t.Errorf("%s: %v", c.RuntimeID(), code)
			}
		}
		if !host.Registered("a", provider.RuntimeID()) || host.Usage().Endpoints != 1 {
			t.Errorf("registered %t, endpoints %d", host.Registered("a", provider.RuntimeID()), host.Usage().Endpoints)
		}
	}
}

// What SetAllowedServices takes from a runtime id that is no plugin's comes back with it, too.
func TestAudit_ATK17_SetAllowedServicesGivesBackWhatTheHostRegistered(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, nil)
	register := hosttest.InProcess("host-itself", &connectpluginv1.RegisterServiceRequest{ServiceType: "a", Version: "1.0.0"})
	if _, err := host.Registry().RegisterService(t.Context(), register); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		allowed []string
		there   bool
	}{{[]string{"b"}, false}, {[]string{"a", "b"}, true}, {nil, false}, {[]string{"b"}, false}, {[]string{"a"}, true}} {
		host.Registry().SetAllowedServices("host-itself", c.allowed)
		if there := host.Registered("a", "host-itself"); there != c.there {
			t.Errorf("allowed %q: registered %t", c.allowed, there)
		}
	}
}

// What a change of policy brought about was told to Audit when SetPolicy returns, also where another change is still being told.
func TestSetPolicy_ReturnsWhenAuditWasTold(t *testing.T) {
	t.Parallel()
	began, gate, told := make(chan struct{}), make(chan struct{}), make(chan struct{})
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Rights(map[string][2][]string{"a": {}, "b": {}})
		c.Audit = func(e connectplugin.AuditEvent) {
			switch {
			case e.Kind == connectplugin.AuditEnded && e.SelfID == "a":
				close(began)
				<-gate
			case e.Kind == connectplugin.AuditEnded && e.SelfID == "b":
				close(told)
			}
		}
	})
	host.Enrol(t, "a", nil)
	host.Enrol(t, "b", nil)
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- host.SetPolicy(hosttest.Rights(map[string][2][]string{"b": {}})) }()
	<-began
	go func() {
		err := host.SetPolicy(hosttest.Rights(map[string][2][]string{"c": {}}))
		select {
		case <-told:
		default:
			t.Error("it returns, and the end was not told")
		}
		second <- err
	}()
	hosttest.Eventually(t, "the second change", func() bool { return len(host.Plugins()) == 0 })
	close(gate)
	for _, set := range []chan error{first, second} {
		if err := hosttest.Arrival(t, set); err != nil {
			t.Error(err)
		}
	}
}
