package echo

import (
	"net/http"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// Rig is a host, a plugin that provides echo and a client that calls it.
type Rig struct {
	*hosttest.Host

	Provider *hosttest.Plugin
	Caller   *connectplugin.Client
}

// NewRig starts a rig over TLS. edit may be nil.
func NewRig(t *testing.T, service http.Handler, edit func(*connectplugin.ServeConfig)) *Rig {
	t.Helper()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = Policy()
		if edit != nil {
			edit(c)
		}
	})
	r := &Rig{Host: host}
	r.Provider = r.Provide(t, "provider", service, nil)
	r.Caller = host.Enrol(t, "caller", hosttest.Requiring(Type))
	return r
}

// Provide starts another plugin that provides echo.
func (r *Rig) Provide(t *testing.T, selfID string, service http.Handler, edit func(*connectplugin.PluginServerConfig)) *hosttest.Plugin {
	t.Helper()
	return r.StartPlugin(t, selfID, func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{{Type: Type, Version: "1.0.0", Path: Base, Handler: service}}
		if edit != nil {
			edit(c)
		}
	})
}

// Route is the way from the caller to a provider.
func (r *Rig) Route(runtimeID string) Endpoint {
	return Endpoint{Base: r.URL + "/services/" + Type + "/" + runtimeID, Client: r.Caller.HTTPClient()}
}

// ToProvider is the way from the caller to the rig's provider.
func (r *Rig) ToProvider() Endpoint { return r.Route(r.Provider.Client.RuntimeID()) }

// Policy lets "provider" provide and "caller" require the type echo; "other"
// may provide it too.
func Policy() *connectplugin.Policy {
	types := []string{Type}
	return &connectplugin.Policy{
		Plugins: map[string]connectplugin.PluginPolicy{
			"provider": hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Provides = types }),
			"other":    hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Provides = []string{Type, "different"} }),
			"caller":   hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Requires, p.Capabilities = types, types }),
			"both":     hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Requires = []string{Type, "different"} }),
			"stranger": hosttest.Allow(nil),
		},
		AllowMultiple: types,
	}
}
