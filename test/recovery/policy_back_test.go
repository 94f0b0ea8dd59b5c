package recovery_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// providerMay is the policy with other rules for the provider.
func providerMay(edit func(*connectplugin.PluginPolicy)) *connectplugin.Policy {
	p := policy()
	rules := p.Plugins["provider"]
	edit(&rules)
	p.Plugins["provider"] = rules
	return p
}

// What policy takes from a provider and gives back is there again when SetPolicy returns, though
// the plugin does nothing; status and log say what is the matter meanwhile.
func TestAudit_USE22_WhatPolicyTakesFromAProviderAndGivesBackIsThereAgain(t *testing.T) {
	t.Parallel()
	type rules = connectplugin.PluginPolicy
	own := func(*rules) {}
	nowhere := func(r *rules) { r.AllowOwnAddress = false }
	for name, tt := range map[string]struct {
		first, take, give func(r *rules, at string) // the endpoint that the plugin has
	}{
		"its own address":    {nil, func(r *rules, _ string) { nowhere(r) }, func(r *rules, _ string) { own(r) }},
		"the named endpoint": {func(r *rules, at string) { r.Endpoint = at }, func(r *rules, _ string) { nowhere(r) }, func(r *rules, at string) { r.Endpoint = at }},
		"named, then its own": {
			func(r *rules, at string) { r.AllowOwnAddress, r.Endpoint = false, at },
			func(r *rules, _ string) { nowhere(r) }, func(r *rules, _ string) { own(r) },
		},
		"its own, then named": {nil, func(r *rules, _ string) { nowhere(r) }, func(r *rules, at string) { r.AllowOwnAddress, r.Endpoint = false, at }},
		"elsewhere":           {nil, func(r *rules, _ string) { r.Endpoint = "https://127.0.0.1:1" }, func(r *rules, _ string) { own(r) }},
		"the type":            {nil, func(r *rules, _ string) { r.Provides = nil }, func(r *rules, _ string) { own(r) }},
		"the type for another": {
			nil, func(r *rules, _ string) { r.Provides = []string{"other"} }, func(r *rules, _ string) { r.Provides = []string{"*"} },
		},
		"all": {nil, func(r *rules, _ string) { r.Provides, r.AllowOwnAddress = nil, false }, func(r *rules, _ string) { own(r) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := new(journal)
			l := hosttest.Listen(t)
			at := "https://" + l.Addr().String()
			first := policy()
			if tt.first != nil {
				first = providerMay(func(r *rules) { tt.first(r, at) })
			}
			host := start(t, func(c *connectplugin.ServeConfig) { c.Policy, c.Logger = first, log.logger() })
			plugin := host.StartPlugin(t, "provider", func(c *connectplugin.PluginServerConfig) {
				c.Services, c.HealthInterval, c.Listener = echoServices(), never, l
			})
			s := service(t, caller(t, host))
			answers := func() bool { return once(t.Context(), s) == nil }
			hosttest.Eventually(t, "it answers", answers)
			life := plugin.Client.RuntimeID()
			for range 2 {
				hosttest.SetPolicy(t, host.Host, providerMay(func(r *rules) { tt.take(r, at) }))
				if code := connect.CodeOf(once(t.Context(), s)); code != connect.CodeUnavailable && code != connect.CodeNotFound {
					t.Errorf("without the right: %v", code)
				}
				if status(t, host, life).Endpoint == "" || len(status(t, host, life).Services) == 0 {
					wantTold(t, host, life, log)
				}
				hosttest.SetPolicy(t, host.Host, providerMay(func(r *rules) { tt.give(r, at) }))
				hosttest.Eventually(t, "it answers again", answers)
				if told := status(t, host, life); told.Health != healthy || told.Reason != "" || len(told.Services) != 1 {
					t.Errorf("afterwards it is %v, %q, and provides %q", told.Health, told.Reason, told.Services)
				}
			}
			if plugin.Client.RuntimeID() != life || count(host, connectplugin.AuditIssued, "provider") != 1 {
				t.Error("the plugin enrolled again")
			}
		})
	}
}

// wantTold looks whether an operator learns that a provider is not called, and why.
func wantTold(t *testing.T, host *hosttest.Restartable, runtimeID string, log *journal) {
	t.Helper()
	told := status(t, host, runtimeID)
	reason, warns := "not routable: ", "a plugin gets no calls"
	if told.Health == healthy { // it is, and what it registered is withheld
		reason, warns = "not provided, since it may not or another plugin does: "+echoType, "a service that a plugin registered is withheld"
	}
	if !strings.HasPrefix(told.Reason, reason) || len(told.Services) > 0 && told.Health == healthy {
		t.Errorf("nobody calls it, and it is %v: %q, want %q", told.Health, told.Reason, reason)
	}
	if log.warnings(warns) == 0 || log.warnings("self_id=provider") == 0 {
		t.Errorf("the log does not warn that %s", warns)
	}
}

// Where policy names one endpoint for several live instances none of them ends, for none enrolled
// anew; the operator is warned, and each is reached at its own again when policy says so.
func TestAudit_USE22_OneEndpointOfPolicysForSeveralInstancesEndsNone(t *testing.T) {
	t.Parallel()
	for name, where := range map[string]func(first string) string{
		"where nobody is": func(string) string { return "https://127.0.0.1:1" },
		"the first one's": func(first string) string { return first },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := new(journal)
			host := start(t, func(c *connectplugin.ServeConfig) { c.Logger = log.logger() })
			var instances []*hosttest.Plugin
			var at []string
			for range 2 {
				p := host.StartPlugin(t, "provider", func(c *connectplugin.PluginServerConfig) { c.Services, c.HealthInterval = echoServices(), never })
				instances, at = append(instances, p), append(at, status(t, host, p.Client.RuntimeID()).Endpoint)
			}
			wantAt := func(want ...string) {
				t.Helper()
				for i, p := range instances {
					if got := status(t, host, p.Client.RuntimeID()); got.Endpoint != want[i] || len(got.Services) != 1 {
						t.Errorf("instance %d is reached at %q, want %q, and provides %q", i, got.Endpoint, want[i], got.Services)
					}
				}
			}
			for range 2 {
				one := where(at[0])
				hosttest.SetPolicy(t, host.Host, providerMay(func(r *connectplugin.PluginPolicy) { r.AllowOwnAddress, r.Endpoint = false, one }))
				wantAt(one, one)
				hosttest.SetPolicy(t, host.Host, policy())
				wantAt(at...)
				for _, p := range instances {
					if told := status(t, host, p.Client.RuntimeID()); told.Health != healthy {
						t.Errorf("at its own address it is %v: %q", told.Health, told.Reason)
					}
				}
			}
			if count(host, connectplugin.AuditEnded, "") != 0 || count(host, connectplugin.AuditIssued, "provider") != 2 {
				t.Error("an identity ended")
			}
			if log.warnings("policy has one Endpoint for several live instances") != 1 || log.warnings("self_id=provider") == 0 {
				t.Error("the log does not warn")
			}
		})
	}
}

// A process that comes back at the endpoint of policy's ends its former lives there, as ever, however
// these came to be several; one that is there and registers again ends nobody.
func TestAudit_USE43_WhoRegistersAtAnEndpointOfPolicysEndsItsFormerLives(t *testing.T) {
	t.Parallel()
	host := start(t, nil)
	live := func() *connectplugin.Client {
		return host.Enrol(t, "provider", func(c *connectplugin.ClientConfig) { c.Metadata.Provides = hosttest.Provides(echoType) })
	}
	register := func(c *connectplugin.Client, at string) {
		t.Helper()
		if err := hosttest.RegisterWith(t, c, &connectpluginv1.RegisterServiceRequest{
			ServiceType: echoType, Version: "1.0.0", Metadata: map[string]string{"base_url": "https://" + at},
		}); err != nil {
			t.Fatal(err)
		}
	}
	own := []string{hosttest.FreeAddr(t), hosttest.FreeAddr(t), hosttest.FreeAddr(t)}
	first, second := live(), live()
	register(first, own[0])
	register(second, own[1])
	one := providerMay(func(r *connectplugin.PluginPolicy) {
		r.AllowOwnAddress, r.Endpoint = false, "https://"+hosttest.FreeAddr(t)
	})
	hosttest.SetPolicy(t, host.Host, one)
	register(first, own[0])
	if n := count(host, connectplugin.AuditEnded, ""); n != 0 || len(host.Registry().GetAllProviders(echoType)) != 2 {
		t.Errorf("%d identities ended, of two that stay", n)
	}
	third := live()
	register(third, own[2])
	for _, e := range host.Audit.Events() {
		if e.Kind == connectplugin.AuditEnded && e.Reason != "its process enrolled anew" {
			t.Errorf("ended: %q", e.Reason)
		}
	}
	if n := count(host, connectplugin.AuditEnded, "provider"); n != 2 || len(host.Registry().GetAllProviders(echoType)) != 1 || !host.Registered(echoType, third.RuntimeID()) {
		t.Errorf("%d former lives ended, of two", n)
	}
}

func status(t *testing.T, host *hosttest.Restartable, runtimeID string) connectplugin.PluginStatus {
	t.Helper()
	for _, p := range host.Plugins() {
		if p.RuntimeID == runtimeID {
			return p
		}
	}
	t.Fatalf("%s is not there", runtimeID)
	return connectplugin.PluginStatus{}
}

// A plugin whose own endpoint policy names for another has it again when policy does not any more.
func TestAudit_USE22_AnEndpointThatPolicyGaveToAnotherComesBack(t *testing.T) {
	t.Parallel()
	l := hosttest.Listen(t)
	taken := policy()
	taken.Plugins["other"] = hosttest.Allow(func(p *connectplugin.PluginPolicy) {
		p.Provides, p.Endpoint = []string{"other"}, "https://"+l.Addr().String()
	})
	host := start(t, nil)
	plugin := host.StartPlugin(t, "provider", func(c *connectplugin.PluginServerConfig) {
		c.Services, c.HealthInterval, c.Listener = echoServices(), never, l
	})
	s := service(t, caller(t, host))
	answers := func() bool { return once(t.Context(), s) == nil }
	hosttest.Eventually(t, "it answers", answers)
	hosttest.SetPolicy(t, host.Host, taken)
	if answers() {
		t.Error("policy named the endpoint for another, and the plugin is called there")
	}
	if told := status(t, host, plugin.Client.RuntimeID()); told.Health == healthy || told.Endpoint != "" {
		t.Errorf("it is %v at %q", told.Health, told.Endpoint)
	}
	hosttest.SetPolicy(t, host.Host, policy())
	hosttest.Eventually(t, "it answers again", answers)
}

// Of two plugins that share a type the second comes back when policy opens the type again, and
// what a plugin took back itself, or registered anew, stays as the plugin left it.
func TestAudit_USE22_ASharedTypeComesBack(t *testing.T) {
	t.Parallel()
	shared := func(multiple ...string) *connectplugin.Policy {
		p := policy()
		p.Plugins["second"], p.AllowMultiple = p.Plugins["provider"], multiple
		return p
	}
	host := start(t, func(c *connectplugin.ServeConfig) { c.Policy = shared(echoType) })
	serve := func(c *connectplugin.PluginServerConfig) { c.Services, c.HealthInterval = echoServices(), never }
	host.StartPlugin(t, "provider", serve)
	second := host.StartPlugin(t, "second", serve)
	third := host.StartPlugin(t, "second", serve)
	twin := host.StartPlugin(t, "provider", serve)
	providers := func() int { return len(host.Registry().GetAllProviders(echoType)) }
	if providers() != 4 {
		t.Fatalf("%d providers", providers())
	}
	hosttest.SetPolicy(t, host.Host, shared())
	if providers() != 2 || !host.Registered(echoType, twin.Client.RuntimeID()) {
		t.Errorf("the type is the first one's, of which there are two, and has %d providers", providers())
	}
	if told := status(t, host, second.Client.RuntimeID()); !strings.Contains(told.Reason, echoType) {
		t.Errorf("the second is told to be %v: %q", told.Health, told.Reason)
	}
	third.Stop(t)
	hosttest.SetPolicy(t, host.Host, shared(echoType))
	if providers() != 3 || !host.Registered(echoType, second.Client.RuntimeID()) {
		t.Errorf("%d providers, of four of which one has left", providers())
	}
}

// What the operator leaves a live plugin comes back when that is more again.
func TestAudit_USE22_AllowedServicesThatAreMoreAgain(t *testing.T) {
	t.Parallel()
	host := start(t, nil)
	plugin := host.StartPlugin(t, "provider", func(c *connectplugin.PluginServerConfig) { c.Services, c.HealthInterval = echoServices(), never })
	s := service(t, caller(t, host))
	answers := func() bool { return once(t.Context(), s) == nil }
	hosttest.Eventually(t, "it answers", answers)
	host.Registry().SetAllowedServices(plugin.Client.RuntimeID(), []string{"other"})
	if answers() || host.Registered(echoType, plugin.Client.RuntimeID()) {
		t.Error("it is left what it may not provide")
	}
	hosttest.SetPolicy(t, host.Host, policy())
	if host.Registered(echoType, plugin.Client.RuntimeID()) {
		t.Error("policy gave back what the operator did not leave it")
	}
	host.Registry().SetAllowedServices(plugin.Client.RuntimeID(), []string{"other", echoType})
	hosttest.Eventually(t, "it answers again", answers)
}

// What is withheld since another plugin has the type comes back when that leaves, however it does.
func TestAudit_USE22_WhatAnotherHasComesBackWhenThatLeaves(t *testing.T) {
	t.Parallel()
	shared := func(multiple ...string) *connectplugin.Policy {
		p := policy()
		p.Plugins["second"], p.AllowMultiple = p.Plugins["provider"], multiple
		return p
	}
	for name, leave := range map[string]func(*testing.T, *hosttest.Restartable, *hosttest.Plugin){
		"stops": func(t *testing.T, _ *hosttest.Restartable, p *hosttest.Plugin) { t.Helper(); p.Stop(t) },
		"is revoked": func(_ *testing.T, h *hosttest.Restartable, p *hosttest.Plugin) {
			h.RevokeSelf(p.Client.Config().SelfID)
		},
		"is drained": func(t *testing.T, h *hosttest.Restartable, p *hosttest.Plugin) {
			t.Helper()
			if err := h.Drain(t.Context(), p.Client.RuntimeID()); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := start(t, func(c *connectplugin.ServeConfig) { c.Policy = shared(echoType) })
			serve := func(c *connectplugin.PluginServerConfig) { c.Services, c.HealthInterval = echoServices(), never }
			first := host.StartPlugin(t, "provider", serve)
			second := host.StartPlugin(t, "second", serve)
			s := service(t, caller(t, host))
			hosttest.SetPolicy(t, host.Host, shared())
			if host.Registered(echoType, second.Client.RuntimeID()) {
				t.Fatal("the type is the first one's")
			}
			leave(t, host, first)
			hosttest.Eventually(t, "the second provides", func() bool {
				return host.Registered(echoType, second.Client.RuntimeID()) && once(t.Context(), s) == nil
			})
		})
	}
}

// A plugin of the host that policy gives to a client that is connected can be dispensed, without
// another Connect; while it is not given, who asks again and again does not make a handshake each time.
func TestAudit_USE22_WhatPolicyGivesLaterCanBeDispensed(t *testing.T) {
	t.Parallel()
	lines := new(hosttest.RecordingLogger)
	host := start(t, func(c *connectplugin.ServeConfig) {
		c.Plugins = connectplugin.PluginSet{"logger": hosttest.LoggerPlugin{}}
		c.Impls = map[string]any{"logger": lines}
	})
	begin := time.Now()
	api := host.Enrol(t, "api", func(c *connectplugin.ClientConfig) {
		c.Plugins = connectplugin.PluginSet{"logger": hosttest.LoggerPlugin{}}
	})
	given := func() bool {
		_, err := api.Dispense("logger")
		if err != nil && !errors.Is(err, connectplugin.ErrPluginNotFound) {
			t.Fatal(err)
		}
		return err == nil
	}
	if given() {
		t.Fatal("policy does not give it")
	}
	hosttest.Eventually(t, "the host is asked again", func() bool { _ = given(); return count(host, connectplugin.AuditRenewed, "api") > 0 })
	for range 100 {
		_ = given()
	}
	if n := count(host, connectplugin.AuditRenewed, "api"); n > int(time.Since(begin)/time.Second) {
		t.Errorf("asked %d times in %v", n, time.Since(begin))
	}
	id := api.RuntimeID()
	p := policy()
	p.Plugins["api"] = hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.HostPlugins = []string{"logger"} })
	hosttest.SetPolicy(t, host.Host, p)
	hosttest.Eventually(t, "it can be dispensed", given)
	logger, err := connectplugin.DispenseTyped[loggerv1connect.LoggerClient](api, "logger")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := logger.Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{Message: "x"})); err != nil || api.RuntimeID() != id {
		t.Errorf("%v; %q became %q", err, id, api.RuntimeID())
	}
}
