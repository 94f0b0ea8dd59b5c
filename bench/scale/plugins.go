package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/bench/stage"
)

const (
	pluginName  = "plugin" // the self id of all of them
	changerName = "changer"

	watches   = 5 // of each plugin
	unlimited = 1e6
	version   = "1.0.0"
	path      = "/bench.v1.Echo/"

	wordWatch = "watch" // open the watches, answer when each has seen something
	wordMark  = "mark"  // count events from here
	wordAwait = "await" // answer when the last watcher has seen one
)

func typeOf(n int) string    { return "type" + strconv.Itoa(n) }
func watchedOf(n int) string { return "watched" + strconv.Itoa(n) }

func hostConfig(a *connectplugin.Authority) *connectplugin.ServeConfig {
	all := []string{"*"}
	return &connectplugin.ServeConfig{
		Authority: a,
		Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			pluginName:  {Provides: all, Requires: all, AllowOwnAddress: true, MaxInstances: unlimited},
			changerName: {Provides: all, AllowOwnAddress: true},
		}},
		// All plugins are one here, and on one address.
		Limits: connectplugin.Limits{
			HandshakesPerSecond: unlimited, HandshakeBurst: unlimited, MaxConnections: unlimited, MaxConnectionsPerPeer: unlimited,
		},
		Audit: func(connectplugin.AuditEvent) {},
	}
}

// plugins are those of one process.
type plugins struct {
	addr      string
	n         int
	authority *connectplugin.Authority

	working sync.WaitGroup

	mu      sync.Mutex
	clients []*connectplugin.Client
	full    chan struct{} // closed when all have connected

	seen  atomic.Int64 // events of the first type, since the mark
	first atomic.Int64 // watches that have seen something
	last  atomic.Int64 // when the last event was seen, as Unix nanoseconds
}

// serve runs the plugins until the input ends. It says so when all have enrolled.
func (p *plugins) serve(ctx context.Context) error {
	ctx, end := context.WithCancel(ctx)
	defer p.working.Wait()
	defer end()
	p.full = make(chan struct{})
	certificate, err := p.authority.PluginTLS(pluginName)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	requires := make([]connectplugin.ServiceDependency, watches)
	for i := range requires {
		requires[i].Type = watchedOf(i)
	}
	for n := range p.n {
		p.working.Go(func() {
			err := connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
				Client: connectplugin.ClientConfig{
					HostURL: "https://" + p.addr, SelfID: pluginName, TLS: certificate.Clone(),
					Metadata: connectplugin.PluginMetadata{Requires: requires},
				},
				Services:    []connectplugin.PluginService{{Type: typeOf(n), Version: version, Path: path, Handler: http.NotFoundHandler()}},
				OnConnected: p.connected,
			})
			if err != nil && ctx.Err() == nil {
				fmt.Fprintln(os.Stderr, err)
			}
		})
	}
	select {
	case <-p.full:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := stage.Tell("enrolled"); err != nil {
		return err
	}
	return stage.Obey(map[string]func() (any, error){
		wordWatch: func() (any, error) { return p.watch(ctx) },
		wordMark:  func() (any, error) { return p.seen.Swap(0), nil },
		wordAwait: func() (any, error) { return p.await(ctx) },
	})
}

func (p *plugins) connected(_ context.Context, c *connectplugin.Client) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clients = append(p.clients, c)
	if len(p.clients) == p.n {
		close(p.full)
	}
	return nil
}

// watch opens the watches of all plugins.
func (p *plugins) watch(ctx context.Context) (any, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.clients {
		for i := range watches {
			p.working.Go(func() { p.follow(ctx, c, i) })
		}
	}
	return nil, wait(ctx, &p.first, int64(watches*p.n))
}

func (p *plugins) follow(ctx context.Context, c *connectplugin.Client, which int) {
	first := true
	for _, err := range c.WatchService(ctx, watchedOf(which)) {
		if err != nil {
			continue
		}
		if first {
			p.first.Add(1)
		}
		if !first && which == 0 {
			p.last.Store(time.Now().UnixNano())
			p.seen.Add(1)
		}
		first = false
	}
}

func (p *plugins) await(ctx context.Context) (any, error) {
	err := wait(ctx, &p.seen, int64(p.n))
	return p.last.Load(), err
}

func wait(ctx context.Context, count *atomic.Int64, n int64) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for count.Load() < n {
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d: %w", count.Load(), n, ctx.Err())
		}
	}
	return nil
}
