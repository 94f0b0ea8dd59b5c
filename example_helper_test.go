package connectplugin_test

import (
	"context"
	"net"
	"sync"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// exampleHost is a host that the examples talk to, on a free port of loopback.
type exampleHost struct {
	*connectplugin.Host

	url       string
	authority *connectplugin.Authority
	cancel    context.CancelFunc
	served    chan error
	clients   []*connectplugin.Client
}

// serveHost adds an authority to a configuration and serves a host of it.
func serveHost(cfg *connectplugin.ServeConfig) *exampleHost {
	h := &exampleHost{
		authority: must(connectplugin.NewAuthority(connectplugin.AuthorityConfig{})), served: make(chan error, 1),
	}
	cfg.Authority = h.authority
	h.Host = must(connectplugin.NewHost(cfg))
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel = cancel
	listener := must(new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0"))
	h.url = "https://" + listener.Addr().String()
	go func() { h.served <- h.Serve(ctx, listener) }()
	return h
}

// stop ends the clients and the host, and waits for both.
func (h *exampleHost) stop() {
	for _, c := range h.clients {
		_ = c.Close()
	}
	h.cancel()
	<-h.served
}

// client makes a client with a certificate of the host's authority.
func (h *exampleHost) client(selfID string, plugins ...connectplugin.PluginSet) *connectplugin.Client {
	cfg := connectplugin.ClientConfig{
		HostURL: h.url, SelfID: selfID, TLS: must(h.authority.PluginTLS(selfID)),
		Metadata: connectplugin.PluginMetadata{Requires: []connectplugin.ServiceDependency{{Type: "greeter"}}},
	}
	for _, set := range plugins {
		cfg.Plugins = set
	}
	c := must(connectplugin.NewClient(cfg))
	h.clients = append(h.clients, c)
	return c
}

// connect makes a client that is connected.
func (h *exampleHost) connect(selfID string, plugins ...connectplugin.PluginSet) *connectplugin.Client {
	c := h.client(selfID, plugins...)
	if err := c.Connect(context.Background()); err != nil {
		panic(err)
	}
	return c
}

// servePlugin serves the greeter, waits until the host knows it, and returns what
// ends it.
func (h *exampleHost) servePlugin(selfID string) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
			Client:   connectplugin.ClientConfig{HostURL: h.url, SelfID: selfID, TLS: must(h.authority.PluginTLS(selfID))},
			Services: []connectplugin.PluginService{{Type: "greeter", Version: "1.0.0", Path: greeterPath, Handler: greeter()}},
		})
	}()
	for event, err := range h.connect("watcher").WatchService(ctx, "greeter") {
		if err != nil {
			panic(err)
		}
		if event.ProviderID != "" {
			break
		}
	}
	return sync.OnceFunc(func() {
		cancel()
		<-ended
	})
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}
