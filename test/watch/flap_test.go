package watch_test

import (
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A provider that flaps, or that comes and goes, costs each watcher a few events a second,
// and the last state is among them. Those who watch something else, and a change now and
// then, are told at once and of everything.
func TestAudit_USE45_AFlappingProviderCostsAFewEvents(t *testing.T) {
	t.Parallel()
	const perSecond, burst, changes = 4, 5, 400
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Rights(map[string][2][]string{"p": {{"a"}, nil}, "q": {{"b"}, nil}, "c": {nil, {"a", "b"}}})
		c.Limits.WatchEventsPerSecond, c.Limits.WatchEventBurst = perSecond, burst
		c.Limits.ChangesPerSecond, c.Limits.ChangeBurst = 1e6, 1e6
	})
	p, q := host.Enrol(t, "p", hosttest.Providing("a")), host.Enrol(t, "q", hosttest.Providing("b"))
	for name, c := range map[string]*connectplugin.Client{"a": p, "b": q} {
		if _, err := hosttest.Register(t, c, name, "1.0.0"); err != nil {
			t.Fatal(err)
		}
	}
	c := host.Enrol(t, "c", hosttest.Requiring("a", "b"))
	watch := func(name string) *hosttest.Watching {
		w := hosttest.Watch(t, c, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: name})
		w.Next(t)
		return w
	}
	flapping, other := watch("a"), watch("b")
	began := time.Now()
	for n := range changes {
		state := connectpluginv1.HealthState_HEALTH_STATE_HEALTHY
		if n%2 == 0 {
			state = connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY
		}
		if n == changes-1 {
			state = connectpluginv1.HealthState_HEALTH_STATE_DEGRADED
		}
		if err := p.ReportHealth(t.Context(), state, "", nil); err != nil {
			t.Fatal(err)
		}
	}
	events, missed := 0, uint64(0)
	for last := connectpluginv1.ServiceState_SERVICE_STATE_UNSPECIFIED; last != hosttest.Degraded; events++ {
		e := flapping.Next(t)
		last = e.GetState()
		missed += e.GetMissed()
	}
	took := time.Since(began)
	if most := burst + int(took.Seconds()*perSecond) + 2; events > most {
		t.Errorf("%d events in %v, want at most %d", events, took, most)
	}
	if got := uint64(events) + missed; got != changes {
		t.Errorf("%d events and %d missed are not %d changes", events, missed, changes)
	}
	if host.Audit.Has(connectplugin.AuditWatcherDropped) {
		t.Error("the watcher is said to be slow")
	}
	if len(other.Events) != 0 {
		t.Error("the other watcher was woken")
	}
	for _, state := range []connectpluginv1.HealthState{connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY, connectpluginv1.HealthState_HEALTH_STATE_HEALTHY} {
		if err := q.ReportHealth(t.Context(), state, "", nil); err != nil {
			t.Fatal(err)
		}
		if e := other.Next(t); e.GetResync() || e.GetMissed() != 0 {
			t.Errorf("a change now and then: %v", e)
		}
	}
}
