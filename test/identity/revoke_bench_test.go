package identity_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

const (
	benchPlugins = 1000
	benchPath    = "/bench.v1.Ticker/"
	benchWatch   = benchPath + "Watch"
	// benchBound is what revoking one of them may take, at the 99th percentile.
	benchBound = 100 * time.Millisecond
)

// ticker serves a stream that says something once and then nothing.
func ticker() connectplugin.PluginService {
	handler := connect.NewServerStreamHandler(benchWatch,
		func(ctx context.Context, _ *connect.Request[emptypb.Empty], stream *connect.ServerStream[emptypb.Empty]) error {
			if err := stream.Send(&emptypb.Empty{}); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		})
	return connectplugin.PluginService{Type: "ticker", Version: "1.0.0", Path: benchPath, Handler: handler}
}

// connectedPlugin is a plugin with a connection of its own, on which a watch and a
// routed stream are open.
type connectedPlugin struct {
	client *connectplugin.Client
	ends   chan connect.Code // of both streams
}

func connectPlugin(ctx context.Context, config connectplugin.ClientConfig, providerID string) (*connectedPlugin, error) {
	client, err := connectplugin.NewClient(config)
	if err != nil {
		return nil, err
	}
	p := &connectedPlugin{client: client, ends: make(chan connect.Code, 2)}
	if err := client.Connect(ctx); err != nil {
		return p, err
	}
	watch, err := client.RegistryClient().WatchService(ctx, connect.NewRequest(&connectpluginv1.WatchServiceRequest{ServiceType: "ticker"}))
	if err != nil {
		return p, err
	}
	routed, err := connect.NewClient[emptypb.Empty, emptypb.Empty](client.HTTPClient(),
		config.HostURL+"/services/ticker/"+providerID+benchWatch).CallServerStream(ctx, connect.NewRequest(&emptypb.Empty{}))
	if err != nil {
		return p, err
	}
	if !watch.Receive() {
		return p, watch.Err()
	}
	if !routed.Receive() {
		return p, routed.Err()
	}
	go follow(watch, p.ends)
	go follow(routed, p.ends)
	return p, nil
}

// follow reports how a stream ends.
func follow[T any](stream *connect.ServerStreamForClient[T], ends chan<- connect.Code) {
	for stream.Receive() {
	}
	code := connect.CodeOf(stream.Err())
	_ = stream.Close()
	ends <- code
}

// BenchmarkRevokeConnected revokes one of 1,000 connected plugins, each with a
// watch and a routed stream open, until both have ended at the plugin.
func BenchmarkRevokeConnected(b *testing.B) {
	all := []string{"ticker"}
	host := hosttest.Start(b, func(c *connectplugin.ServeConfig) {
		c.Logger, c.Audit = nil, nil
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"provider": hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Provides = all }),
			"plugin":   hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Requires, p.MaxInstances = all, 2*benchPlugins }),
		}}
		c.Limits.MaxIdentitiesPerPeer, c.HandshakeAuth.ReplayCacheSize = 2*benchPlugins, 1<<24
	})
	provider := host.StartPlugin(b, "provider", func(c *connectplugin.PluginServerConfig) {
		c.Services, c.Client.Logger = []connectplugin.PluginService{ticker()}, nil
	})
	config := connectplugin.ClientConfig{
		HostURL: host.URL, SelfID: "plugin", Secret: hosttest.Secret, TLS: host.StrangerTLS(),
		Metadata: connectplugin.PluginMetadata{Requires: hosttest.Requires("ticker")},
	}
	ctx, cancel := context.WithCancel(context.Background())
	plugins := make([]*connectedPlugin, benchPlugins)
	b.Cleanup(func() {
		cancel()
		for _, p := range plugins {
			if p != nil {
				_ = p.client.Close()
			}
		}
	})
	var connecting sync.WaitGroup
	const workers = 8
	for w := range workers {
		connecting.Go(func() {
			for i := w; i < benchPlugins; i += workers {
				var err error
				if plugins[i], err = connectPlugin(ctx, config, provider.Client.RuntimeID()); err != nil {
					b.Errorf("plugin %d: %v", i, err)
					return
				}
			}
		})
	}
	connecting.Wait()
	if b.Failed() {
		return
	}

	var took []time.Duration
	for b.Loop() {
		p := plugins[len(took)%benchPlugins]
		start := time.Now()
		if !host.Revoke(p.client.RuntimeID()) {
			b.Fatal("Revoke found no identity")
		}
		first, second := <-p.ends, <-p.ends
		took = append(took, time.Since(start))
		b.StopTimer()
		if first != connect.CodeUnauthenticated || second != connect.CodeUnauthenticated {
			b.Errorf("the streams ended with %v and %v", first, second)
		}
		_ = p.client.Close()
		next, err := connectPlugin(ctx, config, provider.Client.RuntimeID())
		if plugins[(len(took)-1)%benchPlugins] = next; err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	slices.Sort(took)
	p99 := took[len(took)*99/100]
	b.ReportMetric(float64(p99)/float64(time.Millisecond), "p99-ms")
	b.ReportMetric(float64(took[len(took)/2])/float64(time.Millisecond), "p50-ms")
	if p99 > benchBound {
		b.Errorf("p99 is %s, want at most %s", p99, benchBound)
	}
}
