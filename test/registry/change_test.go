package registry_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A provider whose identity ended can neither be discovered nor called, and who
// watches is told.
func TestAudit_H08_ProviderWithoutIdentityIsGone(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(t *testing.T, host *hosttest.Host, runtimeID string){
		"revoked": func(t *testing.T, host *hosttest.Host, runtimeID string) {
			t.Helper()
			if !host.Revoke(runtimeID) {
				t.Fatal("no such identity")
			}
		},
		"withdrawn by policy": func(t *testing.T, host *hosttest.Host, _ string) {
			t.Helper()
			hosttest.SetPolicy(t, host, hosttest.Rights(map[string][2][]string{"c": {nil, {"a"}}}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, hosttest.WithPolicy(hosttest.Rights(map[string][2][]string{"p": {{"a"}, nil}, "c": {nil, {"a"}}})))
			s := &hosttest.Streamer{}
			p := host.StartPlugin(t, "p", func(cfg *connectplugin.PluginServerConfig) {
				cfg.Services = []connectplugin.PluginService{s.Service("a")}
				cfg.HealthInterval = time.Hour // it does not notice by itself
			})
			id := p.Client.RuntimeID()
			c := host.Enrol(t, "c", hosttest.Requiring("a"))
			w := hosttest.Watch(t, c, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "a"})
			w.Until(t, hosttest.IsState(hosttest.Available))
			stream := hosttest.Streaming(t, c, host, "a", id)
			end(t, host, id)
			w.Until(t, hosttest.IsState(hosttest.Unavailable))
			if _, err := hosttest.Discover(t, c, "a", ""); connect.CodeOf(err) != connect.CodeUnavailable {
				t.Errorf("discover: %v", err)
			}
			if code := stream.Code(hosttest.Wait); code != connect.CodeUnavailable {
				t.Errorf("the stream in flight ended with %v, want unavailable", code)
			}
			_, err := connectpluginv1connect.NewHealthServiceClient(c.HTTPClient(), host.URL+"/services/a/"+id+"/a").
				Check(t.Context(), connect.NewRequest(&connectpluginv1.HealthCheckRequest{}))
			if connect.CodeOf(err) != connect.CodeUnavailable {
				t.Errorf("route: %v", err)
			}
		})
	}
}

// Whatever changes the state of a type, those who watch it are told.
func TestAudit_H40_EveryChangeNotifies(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Rights(map[string][2][]string{"p": {{"a"}, nil}, "brief": {{"b"}, nil}, "c": {nil, {"a", "b"}}})
		c.RuntimeTokenTTL = 6 * time.Second // a busy machine may renew late by seconds
	})
	c := host.Enrol(t, "c", hosttest.Requiring("a", "b"))
	w := hosttest.Watch(t, c, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "a"})
	w.Until(t, hosttest.IsState(hosttest.Unavailable))
	p := host.Enrol(t, "p", hosttest.Providing("a"))
	report := func(s connectpluginv1.HealthState) func() error {
		return func() error { return p.ReportHealth(t.Context(), s, "", nil) }
	}
	var id string
	add := func() (err error) { id, err = hosttest.Register(t, p, "a", "1.0.0"); return err }
	for _, step := range []struct {
		name string
		act  func() error
		want connectpluginv1.ServiceState
	}{
		{"register", add, hosttest.Available},
		{"degraded", report(connectpluginv1.HealthState_HEALTH_STATE_DEGRADED), hosttest.Degraded},
		{"unhealthy", report(connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY), hosttest.Unavailable},
		{"healthy", report(connectpluginv1.HealthState_HEALTH_STATE_HEALTHY), hosttest.Available},
		{"unregister", func() error { return hosttest.Unregister(t, p, id) }, hosttest.Unavailable},
		{"register again", add, hosttest.Available},
		{"removed by the host", func() error { host.Registry().UnregisterPluginServices(p.RuntimeID()); return nil }, hosttest.Unavailable},
		{"register once more", add, hosttest.Available},
		{"narrowed by the host", func() error { host.Registry().SetAllowedServices(p.RuntimeID(), nil); return nil }, hosttest.Unavailable},
		{"registered by the host", func() error {
			_, err := host.Registry().RegisterService(t.Context(), hosttest.InProcess(p.RuntimeID(), &connectpluginv1.RegisterServiceRequest{ServiceType: "a", Version: "1.0.0"}))
			return err
		}, hosttest.Available},
		{"revoked", func() error { host.Revoke(p.RuntimeID()); return nil }, hosttest.Unavailable},
	} {
		if err := step.act(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		e := w.Next(t)
		if e.GetState() != step.want || (e.GetEndpoint() != nil) != (step.want != hosttest.Unavailable) {
			t.Fatalf("%s: event %v", step.name, e)
		}
	}
	// Nobody renews this one: it expires.
	brief := host.Enrol(t, "brief", hosttest.Providing("b"))
	onB := hosttest.Watch(t, c, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "b"})
	onB.Until(t, hosttest.IsState(hosttest.Unavailable))
	if _, err := hosttest.Register(t, brief, "b", "1.0.0"); err != nil {
		t.Fatal(err)
	}
	onB.Until(t, hosttest.IsState(hosttest.Available))
	_ = brief.Close()
	onB.Until(t, hosttest.IsState(hosttest.Unavailable))
}

// Asking changes no selection, and neither does a caller who may not select.
func TestAudit_H44_AskingChangesNoSelection(t *testing.T) {
	t.Parallel()
	policy := hosttest.Rights(map[string][2][]string{"p": {{"a"}, nil}, "c": {nil, {"a"}}, "x": {nil, nil}})
	host := hosttest.Start(t, hosttest.WithPolicy(policy))
	var want []string
	for range 3 {
		p := host.Enrol(t, "p", hosttest.Providing("a"))
		if _, err := hosttest.Register(t, p, "a", "1.0.0"); err != nil {
			t.Fatal(err)
		}
		want = append(want, p.RuntimeID())
	}
	host.Registry().SetSelectionStrategy("a", connectplugin.SelectionRoundRobin)
	c, x := host.Enrol(t, "c", hosttest.Requiring("a")), host.Enrol(t, "x", hosttest.Requiring("a"))
	for i := range 12 {
		for range i {
			if !host.Registry().HasService("a", "1.0.0") || host.Registry().HasService("a", "2.0.0") {
				t.Fatal("HasService is wrong")
			}
			host.Registry().GetAllProviders("a")
			if _, err := hosttest.Discover(t, x, "a", ""); connect.CodeOf(err) != connect.CodeNotFound {
				t.Fatalf("the stranger: %v", err)
			}
		}
		got, err := hosttest.Discover(t, c, "a", "")
		if err != nil || got.GetEndpoint().GetProviderId() != want[i%3] {
			t.Fatalf("selection %d: %v, %v; want %s", i, got, err, want[i%3])
		}
	}
}

// Health comes from the plugin itself, in states that the wire knows, with text
// that is bounded; it counts for that plugin.
func TestAudit_H45_HealthIsThePluginsOwnAndBounded(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.Rights(map[string][2][]string{"p": {{"a"}, nil}, "c": {nil, {"a"}}})))
	p := host.Enrol(t, "p", hosttest.Providing("a"))
	if _, err := hosttest.Register(t, p, "a", "1.0.0"); err != nil {
		t.Fatal(err)
	}
	many := slices.Repeat([]string{"a"}, 65)
	for name, m := range map[string]*connectpluginv1.ReportHealthRequest{
		"no state":          {},
		"unknown state":     {State: 4},
		"negative state":    {State: -1},
		"long reason":       {State: 3, Reason: strings.Repeat("x", 1025)},
		"forging reason":    {State: 3, Reason: "ok\nlevel=ERROR msg=forged"},
		"terminal reason":   {State: 3, Reason: "\x1b]0;owned\x07"},
		"turned text":       {State: 3, Reason: "\u202eabc"},
		"many dependencies": {State: 3, UnavailableDependencies: many},
		"odd dependency":    {State: 3, UnavailableDependencies: []string{"a/b"}},
		"long dependency":   {State: 3, UnavailableDependencies: []string{strings.Repeat("a", 129)}},
	} {
		_, err := connectpluginv1connect.NewPluginLifecycleClient(p.HTTPClient(), host.URL).ReportHealth(t.Context(), connect.NewRequest(m))
		if connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: %v, want invalid_argument", name, err)
		}
		if host.Lifecycle().GetHealthState(p.RuntimeID()) != nil || !host.Lifecycle().ShouldRouteTraffic(p.RuntimeID()) {
			t.Fatalf("%s: a refused report counts", name)
		}
	}
	// Nobody reports for another, not even with its runtime id.
	for code, token := range map[connect.Code]string{connect.CodeUnauthenticated: host.Enrol(t, "c", nil).RuntimeToken()} {
		if got := hosttest.ReportAs(t, host, p.RuntimeID(), token); got != code {
			t.Errorf("another's report: %v, want %v", got, code)
		}
	}
	if err := p.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY, "disk full", []string{"a"}); err != nil {
		t.Fatal(err)
	}
	got := host.Lifecycle().GetHealthState(p.RuntimeID())
	if got == nil || got.State != connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY || got.Reason != "disk full" || !slices.Equal(got.UnavailableDependencies, []string{"a"}) {
		t.Errorf("health %+v", got)
	}
	if host.Registry().HasService("a", "") || host.Lifecycle().ShouldRouteTraffic(p.RuntimeID()) {
		t.Error("an unhealthy provider can be selected")
	}
}
