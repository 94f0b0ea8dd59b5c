package registry_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// Nothing that goes in or comes out aliases the registry's state.
func TestAudit_REGRACE1_NothingAliasesTheState(t *testing.T) {
	t.Parallel()
	lifecycle := connectplugin.NewLifecycleServer()
	registry := connectplugin.NewServiceRegistry(lifecycle)
	in := &connectpluginv1.RegisterServiceRequest{ServiceType: "a", Version: "1.0.0", Metadata: map[string]string{"k": "v"}}
	resp, err := registry.RegisterService(t.Context(), hosttest.InProcess("p-1", in))
	if err != nil {
		t.Fatal(err)
	}
	in.Metadata["k"], in.Metadata["new"], in.ServiceType = "changed", "x", "b"
	report := &connectpluginv1.ReportHealthRequest{State: connectpluginv1.HealthState_HEALTH_STATE_DEGRADED, UnavailableDependencies: []string{"d"}}
	if _, err := lifecycle.ReportHealth(t.Context(), hosttest.InProcess("p-1", report)); err != nil {
		t.Fatal(err)
	}
	report.UnavailableDependencies[0] = "changed"
	byID := func() *connectplugin.ServiceProvider {
		p, err := registry.GetProvider(resp.Msg.GetRegistrationId())
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	outs := map[string]func() *connectplugin.ServiceProvider{
		"GetProvider": byID,
		"GetProviderByRuntimeID": func() *connectplugin.ServiceProvider {
			p, err := registry.GetProviderByRuntimeID("p-1")
			if err != nil {
				t.Fatal(err)
			}
			return p
		},
		"GetAllProviders": func() *connectplugin.ServiceProvider { return registry.GetAllProviders("a")[0] },
		"GetServicesBy":   func() *connectplugin.ServiceProvider { return registry.GetServicesBy("p-1")[0] },
		"SelectProvider": func() *connectplugin.ServiceProvider {
			p, err := registry.SelectProvider("a", "")
			if err != nil {
				t.Fatal(err)
			}
			return p
		},
	}
	for name, out := range outs {
		p := out()
		p.Metadata["k"], p.ServiceType, p.RuntimeID, p.EndpointPath = "mine", "mine", "mine", "/mine"
		if got := byID(); got.Metadata["k"] != "v" || len(got.Metadata) != 1 || got.ServiceType != "a" || got.RuntimeID != "p-1" || got.EndpointPath != "" {
			t.Errorf("after changing what %s returned: %+v", name, got)
		}
	}
	registry.GetAllProviders("a")[0] = nil
	health := lifecycle.GetHealthState("p-1")
	if health.UnavailableDependencies[0] != "d" {
		t.Errorf("health took over the caller's slice: %+v", health)
	}
	health.UnavailableDependencies[0], health.State = "mine", connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY
	if got := lifecycle.GetHealthState("p-1"); got.UnavailableDependencies[0] != "d" || got.State != connectpluginv1.HealthState_HEALTH_STATE_DEGRADED {
		t.Errorf("after changing what GetHealthState returned: %+v", got)
	}
}

// Every exported method may be called at the same time as every other; the race
// detector is the judge.
func TestAudit_REGRACE2_EverythingAtOnce(t *testing.T) {
	t.Parallel()
	var router *connectplugin.ServiceRouter
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Unproven("p")
		router = connectplugin.NewServiceRouter(connectplugin.NewHandshakeServer(c), nil, nil)
		c.ServiceRouter = router
	})
	registry, lifecycle := host.Registry(), host.Lifecycle()
	client := host.Enrol(t, "p", func(c *connectplugin.ClientConfig) {
		c.Secret = nil
		c.Metadata.Provides, c.Metadata.Requires = hosttest.Provides("t"), hosttest.Requires("t")
	})
	id := client.RuntimeID()
	acts := []func(i int){
		func(i int) {
			_, _ = registry.RegisterService(t.Context(), hosttest.InProcess(id, &connectpluginv1.RegisterServiceRequest{ServiceType: "t", Version: fmt.Sprintf("1.%d.0", i), Metadata: map[string]string{"i": "x"}}))
		},
		func(int) { _, _ = hosttest.Register(t, client, "t", "1.0.0") },
		func(int) {
			for _, p := range registry.GetAllProviders("t") {
				if p.Metadata != nil { // one that was registered without has none
					p.Metadata["mine"] = "x"
				}
				_, _ = registry.UnregisterService(t.Context(), hosttest.InProcess(id, &connectpluginv1.UnregisterServiceRequest{RegistrationId: p.RegistrationID}))
			}
		},
		func(int) { _, _ = hosttest.Discover(t, client, "t", "") },
		func(int) { registry.HasService("t", "1.0.0"); _, _ = registry.SelectProvider("t", "") },
		func(i int) { registry.SetSelectionStrategy("t", connectplugin.SelectionStrategy(i%4)) },
		func(int) { registry.SetAllowedServices(id, []string{"t"}) },
		func(int) { registry.UnregisterPluginServices(id) },
		func(i int) { router.RegisterPluginEndpoint(id, fmt.Sprintf("https://127.0.0.1:%d", 1+i%3)) },
		func(i int) {
			_, _ = lifecycle.ReportHealth(t.Context(), hosttest.InProcess(id, &connectpluginv1.ReportHealthRequest{State: connectpluginv1.HealthState(1 + i%3)}))
			lifecycle.GetHealthState(id)
			lifecycle.ShouldRouteTraffic(id)
		},
		func(int) {
			w := hosttest.Watch(t, client, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "t"})
			w.Next(t)
			w.Cancel()
		},
	}
	var workers sync.WaitGroup
	for _, act := range acts {
		workers.Go(func() {
			for i := range 30 {
				act(i)
			}
		})
	}
	workers.Wait()
	if _, err := hosttest.Register(t, client, "t", "1.0.0"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// Security events reach the sink, with who and why, escaped, without secrets.
func TestAudit_REGREC11_SecurityEventsReachTheSink(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.LoggerPolicy()
		c.Limits.MaxWatchesPerPlugin = 1
		c.Limits.WatchBuffer = 2
	})
	logger, api := host.Enrol(t, "logger", hosttest.Providing("logger")), host.Enrol(t, "api", hosttest.Requiring("logger"))
	secrets := []string{logger.RuntimeToken(), api.RuntimeToken(), string(hosttest.Secret)}
	id, err := hosttest.Register(t, logger, "logger", "1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = hosttest.Register(t, api, "logger", "1.0.0")
	_ = hosttest.Unregister(t, api, "forged\n\x1b[31mlevel=ERROR")
	hosttest.ReportAs(t, host, api.RuntimeID(), logger.RuntimeToken())
	hosttest.ReportAs(t, host, "made-up", "token")
	_ = hosttest.Watch(t, api, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "logger"}).Next(t)
	hosttest.Watch(t, api, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "logger"}).Code(hosttest.Wait)
	if err := hosttest.Unregister(t, logger, id); err != nil {
		t.Fatal(err)
	}
	host.Revoke(api.RuntimeID())
	hosttest.SetPolicy(t, host, hosttest.LoggerPolicy())
	events := host.Audit.Events()
	for _, want := range []struct {
		kind            connectplugin.AuditKind
		selfID, subject string
	}{
		{connectplugin.AuditIssued, "logger", ""},
		{connectplugin.AuditRegistered, "logger", "logger"},
		{connectplugin.AuditDenied, "api", "logger"},
		{connectplugin.AuditDenied, "api", "forged\ufffd\ufffd[31mlevel=ERROR"},
		{connectplugin.AuditAuthFailed, "", ""},
		{connectplugin.AuditLimited, "api", "logger"},
		{connectplugin.AuditUnregistered, "logger", id},
		{connectplugin.AuditEnded, "api", ""},
		{connectplugin.AuditPolicyChanged, "", ""},
	} {
		if !slices.ContainsFunc(events, func(e connectplugin.AuditEvent) bool {
			return e.Kind == want.kind && e.SelfID == want.selfID && e.Subject+e.Registration == want.subject
		}) {
			t.Errorf("no event %+v", want)
		}
	}
	for _, e := range events {
		said := fmt.Sprintf("%+v", e)
		if e.Time.IsZero() || time.Since(e.Time) > time.Minute || strings.ContainsAny(said, "\n\r\x1b\x00") {
			t.Errorf("event %q", said)
		}
		for _, secret := range secrets {
			if strings.Contains(said, secret) {
				t.Errorf("event %q tells a secret", said)
			}
		}
	}
}

// Other headers, other spellings and another's id do not make a caller act for
// somebody else, whatever it asks for.
func TestAudit_H02_H07_NobodyActsForAnother(t *testing.T) {
	t.Parallel()
	policy := hosttest.LoggerPolicy()
	policy.AllowMultiple = []string{"logger"}
	policy.Plugins["mallory"] = hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Provides = []string{"logger"} })
	host := hosttest.Start(t, hosttest.WithPolicy(policy))
	victim, mallory := host.Enrol(t, "logger", hosttest.Providing("logger")), host.Enrol(t, "mallory", hosttest.Providing("logger"))
	id, err := hosttest.Register(t, victim, "logger", "1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	disguises := map[string]func(http.Header){
		"caller id":            func(h http.Header) { h.Set("X-Plugin-Caller-Id", victim.RuntimeID()) },
		"self id":              func(h http.Header) { h.Set("X-Plugin-Self-Id", "logger") },
		"forwarded":            func(h http.Header) { h.Set("X-Forwarded-User", "logger"); h.Set("Forwarded", "for=logger") },
		"another of that name": func(h http.Header) { h["x-plugin-runtime-id"] = []string{victim.RuntimeID()} },
	}
	for name, disguise := range disguises {
		client := disguised{host.Stranger(t), func(h http.Header) {
			h.Set("X-Plugin-Runtime-ID", mallory.RuntimeID())
			h.Set("Authorization", "Bearer "+mallory.RuntimeToken())
			disguise(h)
		}}
		registry := connectpluginv1connect.NewServiceRegistryClient(client, host.URL)
		_, _ = registry.RegisterService(t.Context(), connect.NewRequest(&connectpluginv1.RegisterServiceRequest{ServiceType: "logger", Version: "6.6.6"}))
		_, err := registry.UnregisterService(t.Context(), connect.NewRequest(&connectpluginv1.UnregisterServiceRequest{RegistrationId: id}))
		if err == nil {
			t.Errorf("%s: unregistered another's service", name)
		}
		_, _ = connectpluginv1connect.NewPluginLifecycleClient(client, host.URL).ReportHealth(t.Context(), connect.NewRequest(&connectpluginv1.ReportHealthRequest{
			State: connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY,
		}))
		got := host.Registry().GetServicesBy(victim.RuntimeID())
		if len(got) != 1 || got[0].RegistrationID != id || got[0].Version != "1.0.0" {
			t.Fatalf("%s: the victim's services are %+v", name, got)
		}
		if host.Lifecycle().GetHealthState(victim.RuntimeID()) != nil {
			t.Fatalf("%s: the victim's health was reported by another", name)
		}
	}
	if err := victim.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_DEGRADED, "me", nil); err != nil {
		t.Fatal(err)
	}
	if h := host.Lifecycle().GetHealthState(victim.RuntimeID()); h == nil || h.Reason != "me" {
		t.Errorf("the victim's own report: %+v", h)
	}
}

// disguised puts headers on every request.
type disguised struct {
	next *http.Client
	edit func(http.Header)
}

func (d disguised) Do(r *http.Request) (*http.Response, error) {
	d.edit(r.Header)
	return d.next.Do(r)
}

// A plugin that withdraws what the host took from it in the same moment is not suspected: only what never was its own is.
func TestWithdrawingTooLateIsNoAttack(t *testing.T) {
	t.Parallel()
	policy := hosttest.LoggerPolicy()
	policy.Plugins["mallory"] = hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Provides = []string{"logger"} })
	host := hosttest.Start(t, hosttest.WithPolicy(policy))
	own, mallory := host.Enrol(t, "logger", hosttest.Providing("logger")), host.Enrol(t, "mallory", hosttest.Providing("logger"))
	id, err := hosttest.Register(t, own, "logger", "1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	withdraw := func(c *connectplugin.Client) {
		t.Helper()
		_, err := c.RegistryClient().UnregisterService(t.Context(), connect.NewRequest(&connectpluginv1.UnregisterServiceRequest{RegistrationId: id}))
		if connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("withdrawn: %v", err)
		}
	}
	denied := func() (all []connectplugin.AuditEvent) {
		for _, e := range host.Audit.Events() {
			if e.Kind == connectplugin.AuditDenied {
				all = append(all, e)
			}
		}
		return all
	}
	host.Registry().UnregisterPluginServices(own.RuntimeID())
	withdraw(own)
	if all := denied(); len(all) != 0 {
		t.Errorf("its own: %+v", all)
	}
	withdraw(mallory)
	if all := denied(); len(all) != 1 || all[0].SelfID != "mallory" || all[0].Reason != "the plugin has no such registration" {
		t.Errorf("that of another: %+v", all)
	}
}
