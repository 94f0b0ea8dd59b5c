package registry_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// patient is a plugin that answers the host's questions as the test says.
type patient struct {
	connectpluginv1connect.UnimplementedPluginControlHandler

	answer atomic.Pointer[func(context.Context) (*connectpluginv1.GetHealthResponse, error)]
	asked  atomic.Int64
}

func (p *patient) GetHealth(ctx context.Context, _ *connect.Request[connectpluginv1.GetHealthRequest]) (*connect.Response[connectpluginv1.GetHealthResponse], error) {
	p.asked.Add(1)
	m, err := (*p.answer.Load())(ctx)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(m), nil
}

func (p *patient) answers(with func(context.Context) (*connectpluginv1.GetHealthResponse, error)) {
	p.answer.Store(&with)
}

func (p *patient) says(state connectpluginv1.HealthState) {
	p.answers(func(context.Context) (*connectpluginv1.GetHealthResponse, error) {
		return &connectpluginv1.GetHealthResponse{State: state}, nil
	})
}

// admit starts a plugin that provides a type at an address of its own, and whose
// answers are the test's.
func admit(t *testing.T, host *hosttest.Host, selfID, serviceType string) (*patient, *connectplugin.Client) {
	t.Helper()
	cfg, err := host.Authority.PluginTLS(selfID)
	if err != nil {
		t.Fatal(err)
	}
	p := &patient{}
	p.says(connectpluginv1.HealthState_HEALTH_STATE_HEALTHY)
	_, handler := connectpluginv1connect.NewPluginControlHandler(p)
	base := hosttest.ServeTLS(t, cfg, handler)
	c := host.Enrol(t, selfID, hosttest.Providing(serviceType))
	err = hosttest.RegisterWith(t, c, &connectpluginv1.RegisterServiceRequest{ServiceType: serviceType, Version: "1.0.0", Metadata: map[string]string{"base_url": base}})
	if err != nil {
		t.Fatal(err)
	}
	return p, c
}

// What a plugin answers counts, no answer counts as unhealthy after a while, and
// of what it says and what it shows the worse does. Those who watch are told.
func TestHealthProbe_HostAsks(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Rights(map[string][2][]string{"p": {{"a"}, nil}, "c": {nil, {"a"}}})
		c.HealthProbe = connectplugin.HealthProbeConfig{Interval: 20 * time.Millisecond, Timeout: 5 * time.Second, FailureThreshold: 2, Lease: time.Hour}
	})
	p, client := admit(t, host, "p", "a")
	w := hosttest.Watch(t, host.Enrol(t, "c", hosttest.Requiring("a")), host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "a"})
	const healthy, ill, bad = connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, connectpluginv1.HealthState_HEALTH_STATE_DEGRADED, connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY
	fails := func(code connect.Code) func() {
		return func() {
			p.answers(func(context.Context) (*connectpluginv1.GetHealthResponse, error) {
				return nil, connect.NewError(code, errors.New("as the test says"))
			})
		}
	}
	report := func(s connectpluginv1.HealthState) func() {
		return func() {
			if err := client.ReportHealth(t.Context(), s, "", nil); err != nil {
				t.Error(err)
			}
		}
	}
	w.Until(t, hosttest.IsState(hosttest.Available))
	for _, step := range []struct {
		name string
		act  func()
		want connectpluginv1.ServiceState
	}{
		{"it answers degraded", func() { p.says(ill) }, hosttest.Degraded},
		{"it answers healthy", func() { p.says(healthy) }, hosttest.Available},
		{"it answers unhealthy", func() { p.says(bad) }, hosttest.Unavailable},
		{"it knows no such question", fails(connect.CodeUnimplemented), hosttest.Available},
		{"it fails", fails(connect.CodeInternal), hosttest.Unavailable},
		{"what it says itself is better", func() { report(healthy)(); p.says(ill) }, hosttest.Degraded},
		{"it answers healthy again", func() { p.says(healthy) }, hosttest.Available},
		{"what it says itself is worse", report(bad), hosttest.Unavailable},
		{"both are well", report(healthy), hosttest.Available},
	} {
		step.act()
		if e := w.Next(t); e.GetState() != step.want {
			t.Fatalf("%s: %v", step.name, e)
		}
	}
	if _, err := hosttest.Discover(t, host.Enrol(t, "c", hosttest.Requiring("a")), "a", ""); err != nil {
		t.Errorf("a healthy provider: %v", err)
	}
}

// What a plugin showed at one endpoint says nothing of it at another: a plugin that is
// found dead and registers elsewhere is used at once, before it is asked.
func TestHealthProbe_AVerdictIsOfAnEndpoint(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Rights(map[string][2][]string{"p": {{"a"}, nil}, "c": {nil, {"a"}}})
		c.HealthProbe = connectplugin.HealthProbeConfig{Interval: 20 * time.Millisecond, Timeout: time.Hour / 2, FailureThreshold: 2, Lease: time.Hour}
	})
	p, client := admit(t, host, "p", "a")
	w := hosttest.Watch(t, host.Enrol(t, "c", hosttest.Requiring("a")), host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "a"})
	w.Until(t, hosttest.IsState(hosttest.Available))
	p.answers(func(context.Context) (*connectpluginv1.GetHealthResponse, error) {
		return nil, connect.NewError(connect.CodeInternal, errors.New("as the test says"))
	})
	w.Until(t, hosttest.IsState(hosttest.Unavailable))
	silent, stop := &patient{}, make(chan struct{})
	silent.answers(func(ctx context.Context) (*connectpluginv1.GetHealthResponse, error) {
		select {
		case <-ctx.Done():
		case <-stop:
		}
		return nil, ctx.Err()
	})
	defer close(stop)
	cfg, err := host.Authority.PluginTLS("p")
	if err != nil {
		t.Fatal(err)
	}
	_, handler := connectpluginv1connect.NewPluginControlHandler(silent)
	err = hosttest.RegisterWith(t, client, &connectpluginv1.RegisterServiceRequest{
		ServiceType: "a", Version: "1.0.0", Metadata: map[string]string{"base_url": hosttest.ServeTLS(t, cfg, handler)},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Until(t, hosttest.IsState(hosttest.Available))
}

// A plugin that gives no sign of life for its lease is withdrawn with everything
// that it has; one that answers goes on, and so does one that only reports, and
// one that the host has no means to judge.
func TestHealthProbe_SilentPluginsAreWithdrawn(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		types := []string{"silent", "answers", "reports", "unknown"}
		all := map[string][2][]string{"c": {nil, types}}
		for _, name := range types {
			all[name] = [2][]string{{name}, {"answers"}}
		}
		c.Policy = hosttest.Rights(all)
		c.HealthProbe = connectplugin.HealthProbeConfig{Interval: 100 * time.Millisecond, Timeout: time.Second, FailureThreshold: 2, Lease: 3 * time.Second}
	})
	began := time.Now()
	silent, gone := admit(t, host, "silent", "silent")
	silent.answers(func(ctx context.Context) (*connectpluginv1.GetHealthResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	_, answering := admit(t, host, "answers", "answers")
	reporting, unknown := host.Enrol(t, "reports", hosttest.Providing("reports")), host.Enrol(t, "unknown", hosttest.Providing("unknown"))
	for name, c := range map[string]*connectplugin.Client{"reports": reporting, "unknown": unknown} {
		if _, err := hosttest.Register(t, c, name, "1.0.0"); err != nil {
			t.Fatal(err)
		}
	}
	w := hosttest.Watch(t, host.Enrol(t, "c", hosttest.Requiring("silent")), host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "silent"})
	for withdrawn := false; !withdrawn; {
		if err := reporting.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil); err != nil {
			t.Fatal(err)
		}
		if time.Since(began) > hosttest.Wait {
			t.Fatal("the silent plugin was not withdrawn")
		}
		time.Sleep(20 * time.Millisecond) // until its lease is over
		withdrawn = slices.ContainsFunc(host.Audit.Events(), func(e connectplugin.AuditEvent) bool {
			return e.Kind == connectplugin.AuditEnded && e.RuntimeID == gone.RuntimeID() && e.Reason == "silent"
		})
	}
	if took := time.Since(began); took < 3*time.Second {
		t.Errorf("the silent plugin was withdrawn after %v", took)
	}
	w.Until(t, hosttest.IsState(hosttest.Unavailable))
	if code := hosttest.ReportAs(t, host, gone.RuntimeID(), gone.RuntimeToken()); code != connect.CodeUnauthenticated || host.Registered("silent", gone.RuntimeID()) {
		t.Errorf("something of the silent plugin is left: %v", code)
	}
	for name, c := range map[string]*connectplugin.Client{"answers": answering, "reports": reporting, "unknown": unknown} {
		if !host.Registered(name, c.RuntimeID()) {
			t.Errorf("%s was withdrawn", name)
		}
	}
}
