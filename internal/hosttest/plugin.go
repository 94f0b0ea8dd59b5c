package hosttest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

// ClientConfig is the configuration of an honest client that proves [Secret] as
// selfID, without a certificate.
func (h *Host) ClientConfig(t testing.TB, selfID string) connectplugin.ClientConfig {
	t.Helper()
	return connectplugin.ClientConfig{
		HostURL: h.URL, SelfID: selfID, SelfVersion: "1.0.0",
		Secret: Secret, TLS: h.StrangerTLS(), Logger: Logger(t), Timeout: Wait,
	}
}

// Enrol connects an honest client as selfID that declares what it requires, and
// closes it at the end of the test.
func (h *Host) Enrol(t testing.TB, selfID string, edit func(*connectplugin.ClientConfig)) *connectplugin.Client {
	t.Helper()
	cfg := h.ClientConfig(t, selfID)
	if edit != nil {
		edit(&cfg)
	}
	c, err := connectplugin.NewClient(cfg)
	if err != nil {
		t.Fatalf("NewClient(%s): %v", selfID, err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Connect(t.Context()); err != nil {
		t.Fatalf("Connect(%s): %v", selfID, err)
	}
	return c
}

// Requires declares service types that a client requires.
func Requires(types ...string) []connectplugin.ServiceDependency {
	var out []connectplugin.ServiceDependency
	for _, s := range types {
		out = append(out, connectplugin.ServiceDependency{Type: s})
	}
	return out
}

// Provides declares service types that a client provides, at version 1.0.0.
func Provides(types ...string) []connectplugin.ServiceDeclaration {
	var out []connectplugin.ServiceDeclaration
	for _, s := range types {
		out = append(out, connectplugin.ServiceDeclaration{Type: s, Version: "1.0.0"})
	}
	return out
}

// Declaring lets a client declare what it provides and requires.
func Declaring(provides, requires []string) func(*connectplugin.ClientConfig) {
	return func(c *connectplugin.ClientConfig) {
		c.Metadata.Provides, c.Metadata.Requires = Provides(provides...), Requires(requires...)
	}
}

// Requiring lets a client declare that it requires service types.
func Requiring(types ...string) func(*connectplugin.ClientConfig) {
	return func(c *connectplugin.ClientConfig) { c.Metadata.Requires = Requires(types...) }
}

// Providing lets a client declare that it provides service types, at version 1.0.0.
func Providing(types ...string) func(*connectplugin.ClientConfig) {
	return func(c *connectplugin.ClientConfig) { c.Metadata.Provides = Provides(types...) }
}

// Plugin is a plugin that [connectplugin.ServePlugin] runs.
type Plugin struct {
	// Client is the plugin's connected client.
	Client *connectplugin.Client

	cancel context.CancelFunc
	done   chan error
}

// StartPlugin runs a plugin that holds a certificate for selfID and proves
// [Secret]. It returns when the plugin's services are registered and the host knows how it is,
// and stops it at the end of the test.
func (h *Host) StartPlugin(t testing.TB, selfID string, edit func(*connectplugin.PluginServerConfig)) *Plugin {
	t.Helper()
	tlsConfig, err := h.Authority.PluginTLS(selfID)
	if err != nil {
		t.Fatalf("PluginTLS(%s): %v", selfID, err)
	}
	p := &Plugin{done: make(chan error, 1)}
	connected := make(chan *connectplugin.Client, 1)
	cfg := &connectplugin.PluginServerConfig{
		Client: h.ClientConfig(t, selfID),
		OnConnected: func(_ context.Context, c *connectplugin.Client) error {
			connected <- c
			return nil
		},
	}
	cfg.Client.TLS = tlsConfig
	if edit != nil {
		edit(cfg)
	}
	var ctx context.Context
	ctx, p.cancel = context.WithCancel(context.Background())
	go func() { p.done <- connectplugin.ServePlugin(ctx, cfg) }()
	t.Cleanup(func() { p.Stop(t) })
	select {
	case p.Client = <-connected:
	case err := <-p.done:
		p.done <- err
		t.Fatalf("ServePlugin(%s): %v", selfID, err)
	case <-time.After(Wait):
		t.Fatalf("ServePlugin(%s): did not connect", selfID)
	}
	for _, s := range cfg.Services {
		Eventually(t, "registration of "+s.Type, func() bool {
			return h.Registered(s.Type, p.Client.RuntimeID())
		})
	}
	if len(cfg.Services) > 0 {
		Eventually(t, "its first report", func() bool { return h.reported(p.Client.RuntimeID()) })
	}
	return p
}

// reported reports whether a plugin said how it is.
func (h *Host) reported(runtimeID string) bool {
	return slices.ContainsFunc(h.Plugins(), func(p connectplugin.PluginStatus) bool {
		return p.RuntimeID == runtimeID && p.Health != connectpluginv1.HealthState_HEALTH_STATE_UNSPECIFIED
	})
}

// Registered reports whether a plugin holds a registration of a type.
func (h *Host) Registered(serviceType, runtimeID string) bool {
	for _, p := range h.Registry().GetAllProviders(serviceType) {
		if p.RuntimeID == runtimeID {
			return true
		}
	}
	return false
}

// Stop ends the plugin and waits for its end, which must be clean. Later calls do
// nothing.
func (p *Plugin) Stop(t testing.TB) {
	t.Helper()
	if p.cancel == nil {
		return
	}
	p.cancel()
	p.cancel = nil
	select {
	case err := <-p.done:
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("plugin: %v", err)
		}
	case <-time.After(Wait):
		t.Error("plugin did not stop")
	}
}
