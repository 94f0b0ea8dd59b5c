package watch_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// BenchmarkWatchFanOut measures, over TLS, from a change until each watcher of its
// type has its event, while as many of another type sleep. Bytes are those of both
// ends, since the watchers live in the same process.
func BenchmarkWatchFanOut(b *testing.B) {
	const connections, each = 8, 250
	const watchers = connections * each
	host, f := watchHost(b, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Rights(map[string][2][]string{"p": {{"a"}, nil}, "c": {nil, {"a", "b"}}})
		c.Logger, c.Limits.MaxWatchesPerPlugin, c.Limits.ChangeBurst = nil, 2*watchers, 4*watchers
	})
	c := host.Enrol(b, "c", hosttest.Requiring("a", "b"))
	ctx, stop := context.WithCancel(b.Context())
	var (
		reading, told, begun sync.WaitGroup
		others               atomic.Int64
	)
	defer reading.Wait()
	defer stop()
	before := heap()
	follow := func(client connectpluginv1connect.ServiceRegistryClient, serviceType string, do func()) {
		stream, err := client.WatchService(ctx, hosttest.WithCredentials(&connectpluginv1.WatchServiceRequest{ServiceType: serviceType}, c.RuntimeID(), c.RuntimeToken()))
		if err != nil {
			b.Error(err)
			return
		}
		begun.Add(1)
		reading.Go(func() {
			defer stream.Close()
			ok := stream.Receive()
			begun.Done()
			for ok {
				if ok = stream.Receive(); ok {
					do()
				}
			}
			if ctx.Err() == nil {
				b.Errorf("a watch of %s ended: %v", serviceType, stream.Err())
			}
		})
	}
	for range connections {
		onA := connectpluginv1connect.NewServiceRegistryClient(hosttest.HTTPClient(b, host.StrangerTLS()), host.URL)
		onB := connectpluginv1connect.NewServiceRegistryClient(hosttest.HTTPClient(b, host.StrangerTLS()), host.URL, connect.WithGRPC())
		for range each {
			follow(onA, "a", told.Done)
			follow(onB, "b", func() { others.Add(1) })
		}
	}
	begun.Wait()
	perWatch := float64(heap()-before) / (2 * watchers)
	for b.Loop() {
		told.Add(watchers)
		f.flap(1)
		told.Wait()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/watchers, "ns/watcher")
	b.ReportMetric(perWatch, "B/watch")
	if others.Load() != 0 {
		b.Errorf("%d watchers of another type woke", others.Load())
	}
}
