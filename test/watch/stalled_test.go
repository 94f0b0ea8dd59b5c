package watch_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

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
