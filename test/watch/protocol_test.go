package watch_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// onA is a watch of type "a".
func onA(t testing.TB, host *hosttest.Host, c *connectplugin.Client, from *connectpluginv1.WatchServiceEvent) *hosttest.Watching {
	t.Helper()
	return hosttest.Watch(t, c, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "a", ResumeAfter: from.GetSequence(), Epoch: from.GetEpoch()})
}

// What makes an event and what does not, as docs/protocol.md says: every event is
// the whole state, and the events of a type are numbered without gaps.
func TestWatchProtocol_EventsAndNumbers(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Rights(map[string][2][]string{"p": {{"a", "b"}, nil}, "c": {nil, {"a", "b"}}})
	})
	one, two := host.Enrol(t, "p", hosttest.Providing("a", "b")), host.Enrol(t, "p", hosttest.Providing("a", "b"))
	c := host.Enrol(t, "c", hosttest.Requiring("a", "b"))
	report := func(p *connectplugin.Client, s connectpluginv1.HealthState) func() error {
		return func() error { return p.ReportHealth(t.Context(), s, "", nil) }
	}
	add := func(p *connectplugin.Client, serviceType string) func() error {
		return func() error { return hosttest.ErrorOf(hosttest.Register(t, p, serviceType, "1.0.0")) }
	}
	w := onA(t, host, c, nil)
	first := w.Next(t)
	if first.GetSequence() != 0 || first.GetEpoch() == "" || first.GetState() != hosttest.Unavailable || first.GetEndpoint() != nil || first.GetResync() {
		t.Errorf("before the first event: %v", first)
	}
	const healthy, ill, bad = connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, connectpluginv1.HealthState_HEALTH_STATE_DEGRADED, connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY
	for i, step := range []struct {
		name     string
		act      func() error
		state    connectpluginv1.ServiceState // 0: no event
		provider *connectplugin.Client
	}{
		{"the first joins", add(one, "a"), hosttest.Available, one},
		{"another type", add(one, "b"), 0, nil},
		{"the second joins", add(two, "a"), hosttest.Available, one},
		{"the first registers again", add(one, "a"), hosttest.Available, one},
		{"healthy as before", report(one, healthy), 0, nil},
		{"the first is degraded", report(one, ill), hosttest.Available, two},
		{"both are degraded", report(two, ill), hosttest.Degraded, one},
		{"degraded as before", report(two, ill), 0, nil},
		{"the second is unhealthy", report(two, bad), hosttest.Degraded, one},
		{"an unhealthy one leaves", func() error { host.Registry().UnregisterPluginServices(two.RuntimeID()); return nil }, 0, nil},
		{"an unhealthy one joins", add(two, "a"), 0, nil},
		{"nobody is left", report(one, bad), hosttest.Unavailable, nil},
		{"the second is well", report(two, healthy), hosttest.Available, two},
	} {
		if err := step.act(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if step.state == 0 {
			w.Quiet(t, step.name)
			continue
		}
		e := w.Next(t)
		first.Sequence++
		if e.GetSequence() != first.GetSequence() || e.GetEpoch() != first.GetEpoch() || e.GetResync() || e.GetMissed() != 0 || e.GetServiceType() != "a" {
			t.Fatalf("step %d, %s: %v, want number %d", i, step.name, e, first.GetSequence())
		}
		id := ""
		if step.provider != nil {
			id = step.provider.RuntimeID()
		}
		if e.GetState() != step.state || e.GetEndpoint().GetProviderId() != id || (e.GetEndpoint() == nil) != (step.state == hosttest.Unavailable) {
			t.Fatalf("%s: %v", step.name, e)
		}
		if e.GetEndpoint() != nil && e.GetEndpoint().GetEndpointUrl() != "/services/a/"+id {
			t.Errorf("%s: %v", step.name, e)
		}
	}
	if e := hosttest.Watch(t, c, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "b"}).Next(t); e.GetSequence() >= first.GetSequence() {
		t.Errorf("the other type has no numbers of its own: %v", e)
	}
}

// The answer begins before the first event: a client whose resumption missed
// nothing is not left waiting, and from then on it misses nothing.
func TestWatchProtocol_AnswerBeginsAtOnce(t *testing.T) {
	t.Parallel()
	for dialect, opts := range hosttest.Protocols {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			host, f := watchHost(t, nil)
			c := host.Enrol(t, "c", hosttest.Requiring("a"))
			now := onA(t, host, c, nil).Next(t)
			ctx, cancel := context.WithTimeout(t.Context(), hosttest.Wait)
			defer cancel()
			stream, err := connectpluginv1connect.NewServiceRegistryClient(c.HTTPClient(), host.URL, opts...).WatchService(ctx,
				connect.NewRequest(&connectpluginv1.WatchServiceRequest{ServiceType: "a", ResumeAfter: now.GetSequence(), Epoch: now.GetEpoch()}))
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Close()
			if stream.ResponseHeader().Get("Content-Type") == "" || ctx.Err() != nil {
				t.Fatalf("no headers came: %v", ctx.Err())
			}
			f.flap(1)
			if !stream.Receive() || stream.Msg().GetSequence() != now.GetSequence()+1 {
				t.Errorf("after the headers came %v, %v", stream.Msg(), stream.Err())
			}
		})
	}
}

// Numbers outlive the type, for as long as its events are remembered; then, and
// in another host, the series is another and the watcher is told so.
func TestWatchProtocol_Epochs(t *testing.T) {
	t.Parallel()
	policy := hosttest.Rights(map[string][2][]string{"p": {{"a"}, nil}, "c": {nil, {"a"}}})
	host := hosttest.Start(t, hosttest.WithPolicy(policy))
	p, c := host.Enrol(t, "p", hosttest.Providing("a")), host.Enrol(t, "c", hosttest.Requiring("a"))
	upAndDown := func() {
		t.Helper()
		id, err := hosttest.Register(t, p, "a", "1.0.0")
		if err == nil {
			err = hosttest.Unregister(t, p, id)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	gone := func() {
		t.Helper()
		hosttest.Eventually(t, "nobody watches", func() bool { return host.Usage().Watches == 0 })
	}
	upAndDown()
	w := onA(t, host, c, nil)
	last := w.Next(t)
	if last.GetSequence() != 2 {
		t.Errorf("after the type was gone: %v", last)
	}
	w.Cancel()
	gone()
	upAndDown()
	w = onA(t, host, c, last)
	for want := uint64(3); want <= 4; want++ {
		if e := w.Next(t); e.GetSequence() != want || e.GetEpoch() != last.GetEpoch() || e.GetResync() {
			t.Errorf("resumed over a time without the type: %v, want number %d", e, want)
		}
	}
	w.Cancel()
	gone()
	for i := range catalog.DefaultHistory + 1 {
		hosttest.UseUp(t, host, fmt.Sprintf("other-%d", i))
	}
	upAndDown()
	w = onA(t, host, c, last)
	if e := w.Next(t); e.GetEpoch() == last.GetEpoch() || e.GetEpoch() == "" || !e.GetResync() || e.GetMissed() != 0 || e.GetSequence() != 2 || e.GetState() != hosttest.Unavailable {
		t.Errorf("after the events were forgotten: %v", e)
	}
	other := hosttest.Start(t, hosttest.WithPolicy(policy))
	again := onA(t, other, other.Enrol(t, "c", hosttest.Requiring("a")), last).Next(t)
	if again.GetEpoch() == last.GetEpoch() || !again.GetResync() || again.GetMissed() != 0 || again.GetSequence() != 0 {
		t.Errorf("another host: %v", again)
	}
}

// In an event that was overtaken the metadata of who is gone may be missing; the
// last event is complete, and a watch resumes with another identity.
func TestWatchProtocol_OvertakenEvents(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.Rights(map[string][2][]string{"p": {{"a"}, nil}, "c": {nil, {"a"}}})))
	p, c := host.Enrol(t, "p", hosttest.Providing("a")), host.Enrol(t, "c", hosttest.Requiring("a"))
	start := onA(t, host, c, nil)
	from := start.Next(t)
	start.Cancel()
	for _, version := range []string{"1.0.0", "2.0.0"} {
		if err := hosttest.RegisterWith(t, p, &connectpluginv1.RegisterServiceRequest{ServiceType: "a", Version: version, Metadata: map[string]string{"k": version}}); err != nil {
			t.Fatal(err)
		}
	}
	w := onA(t, host, host.Enrol(t, "c", hosttest.Requiring("a")), from)
	overtaken, last := w.Next(t), w.Next(t)
	if e := overtaken.GetEndpoint(); e.GetVersion() != "1.0.0" || len(e.GetMetadata()) != 0 || e.GetProviderId() != p.RuntimeID() {
		t.Errorf("overtaken: %v", overtaken)
	}
	if e := last.GetEndpoint(); e.GetVersion() != "2.0.0" || e.GetMetadata()["k"] != "2.0.0" || last.GetSequence() != 2 {
		t.Errorf("last: %v", last)
	}
}

// Every way in which a stream ends has its code, in every protocol.
func TestWatchProtocol_Ends(t *testing.T) {
	t.Parallel()
	for dialect, opts := range hosttest.Protocols {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			host, _ := watchHost(t, func(c *connectplugin.ServeConfig) { c.Limits.MaxWatchesPerPlugin = 1 })
			open := func(c *connectplugin.Client, serviceType string) *hosttest.Watching {
				return hosttest.Watch(t, c, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: serviceType}, opts...)
			}
			old := host.Enrol(t, "c", hosttest.Requiring("a"))
			ends := map[string]*hosttest.Watching{}
			ends["unauthenticated: expired"] = open(old, "a")
			ends["unauthenticated: expired"].Next(t)
			if n := host.Expire(t, old.RuntimeID()); n != 2 { // the provider is older
				t.Fatalf("%d identities expired", n)
			}
			c := host.Enrol(t, "c", hosttest.Requiring("a"))
			kept := open(c, "a")
			kept.Next(t)
			ends["resource_exhausted"] = open(c, "a")
			ends["invalid_argument"] = open(c, "no type")
			ends["not_found"] = open(c, "b")
			revoked := host.Enrol(t, "c", hosttest.Requiring("a"))
			ends["unauthenticated: revoked"] = open(revoked, "a")
			ends["unauthenticated: revoked"].Next(t)
			host.Revoke(revoked.RuntimeID())
			if err := c.Connect(t.Context()); err != nil { // renews
				t.Fatal(err)
			}
			kept.Quiet(t, "an honest watch, whose identity was renewed")
			stopped := time.Now()
			host.Stop(t)
			if took := time.Since(stopped); took > hosttest.Wait {
				t.Errorf("the shutdown took %v", took)
			}
			ends["unavailable"] = kept
			for want, w := range ends {
				want, _, _ = strings.Cut(want, ":")
				if code := w.Code(hosttest.Wait); code.String() != want {
					t.Errorf("%v, want %s", code, want)
				}
			}
		})
	}
}

// Rights are checked at each delivery: what happens while a change of policy is
// still being carried out is not told to who lost the right to know.
func TestAudit_REG3_RightsAreCheckedAtEachDelivery(t *testing.T) {
	t.Parallel()
	var during atomic.Pointer[func()]
	policy := func(requires []string, gone bool) *connectplugin.Policy {
		all := map[string][2][]string{"p": {{"a"}, nil}, "c": {nil, requires}, "other": {nil, {"a"}}}
		if !gone {
			all["leaves"] = [2][]string{}
		}
		return hosttest.Rights(all)
	}
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = policy([]string{"a"}, false)
		c.Audit = func(e connectplugin.AuditEvent) {
			if f := during.Load(); f != nil && e.Kind == connectplugin.AuditEnded && e.SelfID == "leaves" {
				(*f)()
			}
		}
	})
	host.Enrol(t, "leaves", nil)
	p := host.Enrol(t, "p", hosttest.Providing("a"))
	if _, err := hosttest.Register(t, p, "a", "1.0.0"); err != nil {
		t.Fatal(err)
	}
	loses, keeps := onA(t, host, host.Enrol(t, "c", hosttest.Requiring("a")), nil), onA(t, host, host.Enrol(t, "other", hosttest.Requiring("a")), nil)
	loses.Next(t)
	last := keeps.Next(t)
	f := &flapper{t: t, host: host, id: p.RuntimeID()}
	change := func() {
		f.flap(1) // policy is replaced, and what it withdraws is just about to end
		if code := loses.Code(hosttest.Wait); code != connect.CodeNotFound || len(loses.Events) > 0 {
			t.Errorf("who lost the right: %v, %d events", code, len(loses.Events))
		}
		if e := keeps.Next(t); e.GetSequence() != last.GetSequence()+1 || e.GetState() != f.state() {
			t.Errorf("who kept it: %v", e)
		}
	}
	during.Store(&change)
	hosttest.SetPolicy(t, host, policy(nil, true))
	if !f.bad {
		t.Error("nothing happened during the change")
	}
	keeps.Quiet(t, "who kept the right")
}
