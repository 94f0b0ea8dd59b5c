package watch_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// flapper is a provider of type "a" whose health the test changes, each time a
// state that watchers must see.
type flapper struct {
	t    testing.TB
	host *hosttest.Host
	id   string
	bad  bool
}

// watchHost is a host with a provider of type "a", which "c" may watch.
func watchHost(t testing.TB, edit func(*connectplugin.ServeConfig)) (*hosttest.Host, *flapper) {
	t.Helper()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Rights(map[string][2][]string{"p": {{"a"}, nil}, "c": {nil, {"a"}}})
		if edit != nil {
			edit(c)
		}
	})
	p := host.Enrol(t, "p", hosttest.Providing("a"))
	err := hosttest.RegisterWith(t, p, &connectpluginv1.RegisterServiceRequest{
		ServiceType: "a", Version: "1.0.0", Metadata: map[string]string{"padding": strings.Repeat("x", 200)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return host, &flapper{t: t, host: host, id: p.RuntimeID()}
}

// flap changes the state n times.
func (f *flapper) flap(n int) {
	f.t.Helper()
	for range n {
		f.bad = !f.bad
		state := connectpluginv1.HealthState_HEALTH_STATE_HEALTHY
		if f.bad {
			state = connectpluginv1.HealthState_HEALTH_STATE_DEGRADED
		}
		_, err := f.host.Lifecycle().ReportHealth(f.t.Context(), hosttest.InProcess(f.id, &connectpluginv1.ReportHealthRequest{State: state}))
		if err != nil {
			f.t.Error(err)
		}
	}
}

func (f *flapper) state() connectpluginv1.ServiceState {
	if f.bad {
		return hosttest.Degraded
	}
	return hosttest.Available
}

// A watch that comes back is told what it missed, each change once; one that asks
// for what is not kept any more, or never was, gets the current state and is told
// that it is that.
func TestAudit_PROTO62_WatchResumes(t *testing.T) {
	t.Parallel()
	for dialect, opts := range hosttest.Protocols {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			host, f := watchHost(t, func(c *connectplugin.ServeConfig) { c.Limits.WatchBuffer = 8 })
			c := host.Enrol(t, "c", hosttest.Requiring("a"))
			resume := func(after uint64, epoch string) *hosttest.Watching {
				return hosttest.Watch(t, c, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "a", ResumeAfter: after, Epoch: epoch}, opts...)
			}
			w := resume(0, "")
			last := w.Next(t)
			if last.GetResync() || last.GetEpoch() == "" || last.GetSequence() == 0 {
				t.Fatalf("first event %v", last)
			}
			w.Cancel()
			// Nothing missed: nothing said.
			w = resume(last.GetSequence(), last.GetEpoch())
			if code := w.Code(hosttest.Moment); code != 0 || len(w.Events) > 0 {
				t.Errorf("a resumption that missed nothing: %v, %d events", code, len(w.Events))
			}
			w.Cancel()
			// What was missed and is kept comes in order.
			f.flap(5)
			w = resume(last.GetSequence(), last.GetEpoch())
			for i := range uint64(5) {
				if e := w.Next(t); e.GetSequence() != last.GetSequence()+1+i || e.GetResync() || e.GetMissed() != 0 || e.GetEpoch() != last.GetEpoch() {
					t.Errorf("event %d after the resumption: %v", i, e)
				}
			}
			w.Cancel()
			// What is not kept is counted.
			f.flap(20)
			w = resume(last.GetSequence(), last.GetEpoch())
			if e := w.Next(t); !e.GetResync() || e.GetMissed() != 24 || e.GetSequence() != last.GetSequence()+25 || e.GetState() != f.state() {
				t.Errorf("resync %v", e)
			}
			w.Cancel()
			for name, w := range map[string]*hosttest.Watching{
				"another epoch":       resume(last.GetSequence(), "another"),
				"a number to come":    resume(1<<62, last.GetEpoch()),
				"a number, no epoch":  resume(last.GetSequence(), ""),
				"the largest number":  resume(^uint64(0), last.GetEpoch()),
				"epoch beyond reason": resume(1, strings.Repeat("x", 100_000)),
				"epoch, no text":      resume(1, "\n\x00"),
			} {
				e := w.Next(t)
				if !e.GetResync() || e.GetMissed() != 0 || e.GetState() != f.state() || e.GetSequence() != last.GetSequence()+25 {
					t.Errorf("%s: %v", name, e)
				}
				w.Cancel()
			}
		})
	}
}

// The number of events that the host keeps is configured, and who fell behind is
// recorded.
func TestAudit_PROTO63_WatchBufferIsConfigurable(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 4, 32} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			host, f := watchHost(t, func(c *connectplugin.ServeConfig) { c.Limits.WatchBuffer = size })
			c := host.Enrol(t, "c", hosttest.Requiring("a"))
			w := hosttest.Watch(t, c, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "a"})
			last := w.Next(t)
			w.Cancel()
			again := &connectpluginv1.WatchServiceRequest{ServiceType: "a", ResumeAfter: last.GetSequence(), Epoch: last.GetEpoch()}
			f.flap(size)
			w = hosttest.Watch(t, c, host.URL, again)
			if e := w.Next(t); e.GetResync() || e.GetSequence() != last.GetSequence()+1 {
				t.Errorf("%d behind: %v", size, e)
			}
			w.Cancel()
			if host.Audit.Has(connectplugin.AuditWatcherDropped) {
				t.Error("a watcher that kept up was recorded as slow")
			}
			f.flap(1)
			w = hosttest.Watch(t, c, host.URL, again)
			if e := w.Next(t); !e.GetResync() || e.GetMissed() != uint64(size) {
				t.Errorf("%d behind: %v", size+1, e)
			}
			if !host.Audit.Has(connectplugin.AuditWatcherDropped) {
				t.Error("the slow watcher was not recorded")
			}
		})
	}
}

// A watcher that does not read is told how many events it missed, and the host
// records who it is, by how much the buffer is too small for it. With a buffer
// that holds them all it misses none. One beside it that reads misses nothing
// either way and is recorded never.
func TestAudit_PROTO63_SlowWatcherIsObservable(t *testing.T) {
	t.Parallel()
	const changes = 600 // of which the stream holds less than 200
	for size, slow := range map[int]bool{16: true, changes: false} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			host, f := watchHost(t, func(c *connectplugin.ServeConfig) {
				c.Limits.WatchBuffer = size
				c.Logger = nil
			})
			sleeper, honest := host.Enrol(t, "c", hosttest.Requiring("a")), host.Enrol(t, "c", hosttest.Requiring("a"))
			stream := stalled(t, host, sleeper, hosttest.Uncompressed)
			first := stream.Msg().GetSequence()
			w := hosttest.Watch(t, honest, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "a"}, hosttest.Uncompressed)
			w.Next(t)
			for seen := first; seen < first+changes; {
				f.flap(8)
				for range 8 {
					if e := w.Next(t); e.GetSequence() != seen+1 || e.GetResync() || e.GetMissed() != 0 {
						t.Fatalf("the honest watcher got %v after %d", e, seen)
					}
					seen++
				}
			}
			missed := uint64(0)
			for seen := first; seen < first+changes; {
				if !stream.Receive() {
					t.Fatalf("the stalled watch ended at %d: %v", seen, stream.Err())
				}
				m := stream.Msg()
				if m.GetSequence() != seen+m.GetMissed()+1 || (m.GetMissed() > 0) != m.GetResync() {
					t.Fatalf("after %d came %v", seen, m)
				}
				seen, missed = m.GetSequence(), missed+m.GetMissed()
			}
			if stream.Msg().GetState() != f.state() || slow != (missed > 0) {
				t.Errorf("the stalled watcher missed %d of %d and ends with %v", missed, changes, stream.Msg().GetState())
			}
			recorded := uint64(0)
			for _, e := range host.Audit.Events() {
				if e.Kind != connectplugin.AuditWatcherDropped {
					continue
				}
				var n uint64
				if _, err := fmt.Sscanf(e.Reason, "watcher fell behind and missed %d events", &n); err != nil || n == 0 {
					t.Errorf("reason %q: %v", e.Reason, err)
				}
				if e.RuntimeID != sleeper.RuntimeID() || e.SelfID != "c" || e.Subject != "a" || e.Peer != "127.0.0.1" {
					t.Errorf("recorded %+v, want %s", e, sleeper.RuntimeID())
				}
				recorded += n
			}
			if recorded != missed {
				t.Errorf("the host recorded %d missed events, the watcher was told of %d", recorded, missed)
			}
		})
	}
}

// stalled opens a watch and reads one event of it.
func stalled(t testing.TB, host *hosttest.Host, c *connectplugin.Client, opts ...connect.ClientOption) *connect.ServerStreamForClient[connectpluginv1.WatchServiceEvent] {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	client := connectpluginv1connect.NewServiceRegistryClient(hosttest.SmallWindow(t, host.StrangerTLS()), host.URL, opts...)
	stream, err := client.WatchService(ctx, hosttest.WithCredentials(&connectpluginv1.WatchServiceRequest{ServiceType: "a"}, c.RuntimeID(), c.RuntimeToken()))
	if err != nil || !stream.Receive() {
		t.Fatalf("watch: %v, %v", err, stream.Err())
	}
	return stream
}

// A watcher that does not read for ten thousand changes costs the host next to
// nothing, ends with the right state and is told how many it missed. It is not in
// the way of another that reads. It does not run in parallel: it measures the heap.
func TestAudit_REG10_StalledWatcher(t *testing.T) {
	const changes = 10_000
	host, f := watchHost(t, func(c *connectplugin.ServeConfig) { c.Logger = nil })
	c := host.Enrol(t, "c", hosttest.Requiring("a"))
	stream := stalled(t, host, c)
	first := stream.Msg().GetSequence()
	reader := hosttest.Watch(t, c, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "a"})
	reader.Next(t)
	f.flap(changes / 10) // until the stream is full
	before := heap()
	for at := first + changes/10; at < first+changes; at += 100 {
		f.flap(100)
		reader.Until(t, func(e *connectpluginv1.WatchServiceEvent) bool { return e.GetSequence() == at+100 })
	}
	if grown := int64(heap()) - int64(before); grown > 1<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	f.flap(1)
	seen, missed, events := first, uint64(0), 0
	for seen < first+changes+1 {
		if !stream.Receive() {
			t.Fatalf("the stalled watch ended at %d: %v", seen, stream.Err())
		}
		m := stream.Msg()
		if m.GetSequence() != seen+m.GetMissed()+1 || (m.GetMissed() > 0) != m.GetResync() {
			t.Fatalf("after %d came %v", seen, m)
		}
		seen, missed, events = m.GetSequence(), missed+m.GetMissed(), events+1
	}
	if got := stream.Msg().GetState(); got != f.state() {
		t.Errorf("the last state is %v, want %v", got, f.state())
	}
	if missed == 0 || !host.Audit.Has(connectplugin.AuditWatcherDropped) {
		t.Errorf("missed %d of %d changes; recorded: %t", missed, changes, host.Audit.Has(connectplugin.AuditWatcherDropped))
	}
	t.Logf("%d changes: %d events, %d missed", changes+1, events, missed)
}

// heap is how many bytes are allocated and reachable.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// oldEvent is an event as a client of the first wire version knows it.
func oldEvent(e *connectpluginv1.WatchServiceEvent) *connectpluginv1.WatchServiceEvent {
	return &connectpluginv1.WatchServiceEvent{ServiceType: e.GetServiceType(), State: e.GetState(), Endpoint: e.GetEndpoint()}
}

// A client that knows no sequence sees every state while it keeps up, and the
// current one once it reads again: what it knows of the events is enough.
func TestAudit_REG10_OldClientsGetEveryStateThatMatters(t *testing.T) {
	t.Parallel()
	host, f := watchHost(t, nil)
	c := host.Enrol(t, "c", hosttest.Requiring("a"))
	w := hosttest.Watch(t, c, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "a"})
	first := w.Next(t)
	if first.GetState() != hosttest.Available {
		t.Fatalf("first %v", first)
	}
	for range 20 {
		f.flap(1)
		if e := oldEvent(w.Next(t)); e.GetState() != f.state() || e.GetEndpoint().GetProviderId() != f.id {
			t.Fatalf("event %v, want %v", e, f.state())
		}
	}
	w.Cancel()
	stream := stalled(t, host, c)
	f.flap(3001)
	var last *connectpluginv1.WatchServiceEvent
	for stream.Receive() {
		if last = oldEvent(stream.Msg()); stream.Msg().GetSequence() == first.GetSequence()+3021 {
			break
		}
	}
	if last.GetState() != f.state() {
		t.Errorf("the last state that an old client sees is %v, want %v", last, f.state())
	}
}

// Watches that ended, politely or not, leave nothing behind. It does not run in
// parallel: it counts goroutines.
func TestAudit_H43_EndedWatchesLeaveNothing(t *testing.T) {
	host, f := watchHost(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Rights(map[string][2][]string{"p": {{"a"}, nil}, "c": {nil, {"a", "b"}}})
	})
	p := hosttest.NewProxy(t, host)
	c := host.Enrol(t, "c", func(cfg *connectplugin.ClientConfig) {
		cfg.HostURL, cfg.Metadata.Requires = p.URL, hosttest.Requires("a", "b")
	})
	base, goroutines := host.Usage(), runtime.NumGoroutine()
	for _, end := range []string{"politely", "cut"} {
		var watches []*hosttest.Watching
		for i := range 20 {
			serviceType := []string{"a", "b"}[i%2]
			watches = append(watches, hosttest.Watch(t, c, p.URL, &connectpluginv1.WatchServiceRequest{ServiceType: serviceType}))
			watches[i].Next(t)
		}
		f.flap(2)
		if open := host.Usage().Watches; open != 20 {
			t.Fatalf("%d watches are open, want 20", open)
		}
		if end == "cut" {
			p.Cut()
		}
		for _, w := range watches {
			w.Cancel()
		}
		hosttest.Eventually(t, "nothing is left of the watches that ended "+end, func() bool {
			return host.Usage() == base
		})
	}
	hosttest.Eventually(t, "the goroutines are gone", func() bool { return runtime.NumGoroutine() <= goroutines+4 })
}

// Neither open watches nor watches that nobody reads hold up the shutdown, and a
// revocation ends the latter too.
func TestAudit_H46_StalledWatchesHoldUpNothing(t *testing.T) {
	t.Parallel()
	for dialect, opts := range hosttest.Protocols {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			host, f := watchHost(t, func(c *connectplugin.ServeConfig) { c.GracefulShutdownTimeout = time.Minute })
			c, other := host.Enrol(t, "c", hosttest.Requiring("a")), host.Enrol(t, "c", hosttest.Requiring("a"))
			plain := append([]connect.ClientOption{hosttest.Uncompressed}, opts...)
			stalled(t, host, c, plain...)
			stalled(t, host, other, plain...)
			open := hosttest.Watch(t, other, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "a"}, plain...)
			open.Next(t)
			for range 400 { // less than 200 fill a stream
				f.flap(1)
				open.Next(t)
			}
			began := time.Now()
			host.Revoke(c.RuntimeID())
			hosttest.Eventually(t, "the stalled call of the revoked identity has ended", func() bool { return host.Usage().Calls == 2 })
			if code := open.Code(0); code != 0 {
				t.Errorf("another's watch ended: %v", code)
			}
			host.Stop(t)
			if took := time.Since(began); took > hosttest.Wait {
				t.Errorf("it took %v", took)
			}
			if code := open.Code(hosttest.Wait); code != connect.CodeUnavailable {
				t.Errorf("the open watch ended with %v, want unavailable", code)
			}
		})
	}
}
