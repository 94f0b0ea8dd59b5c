package host_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// kept is a listener of the user's that knows whether it was closed, and says when it is first accepted on.
type kept struct {
	net.Listener

	closed   atomic.Bool
	accepted chan struct{}
}

func (k *kept) Accept() (net.Conn, error) {
	select {
	case k.accepted <- struct{}{}:
	default:
	}
	return k.Listener.Accept()
}

func (k *kept) Close() error {
	k.closed.Store(true)
	return k.Listener.Close()
}

// A listener serves one plugin or host: who comes second is told so, and takes no connection of the first nor closes it. When that
// has ended it is free. They took each other's connections, and refused them.
func TestOneListener_ServesOne(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	own, err := host.Authority.PluginTLS("logger")
	if err != nil {
		t.Fatal(err)
	}
	plugin := func(ctx context.Context, l net.Listener) error {
		cfg := &connectplugin.PluginServerConfig{Client: host.ClientConfig(t, "logger"), Listener: l}
		cfg.Client.TLS = own
		return connectplugin.ServePlugin(ctx, cfg)
	}
	another := func(ctx context.Context, l net.Listener) error {
		h := idleHost(t, func(*connectplugin.ServeConfig) {})
		defer func() { _ = h.Shutdown(context.WithoutCancel(ctx)) }()
		return h.Serve(ctx, l)
	}
	for name, first := range map[string]func(context.Context, net.Listener) error{"a plugin": plugin, "a host": another} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := &kept{Listener: hosttest.Listen(t), accepted: make(chan struct{}, 1)}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- first(ctx, l) }()
			select {
			case <-l.accepted:
			case err := <-done:
				t.Fatal(err)
			}
			at, over := context.WithTimeout(t.Context(), hosttest.Wait)
			defer over()
			if err := plugin(at, l); !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), "Listener: serves another") {
				t.Errorf("another plugin: %v", err)
			}
			if err := another(at, l); err == nil || !strings.Contains(err.Error(), "the listener serves another") {
				t.Errorf("another host: %v", err)
			}
			if l.closed.Load() {
				t.Error("another one closed the listener")
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if err := another(at, l); err == nil || !strings.Contains(err.Error(), "was closed meanwhile") {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}
