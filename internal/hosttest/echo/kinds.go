package echo

import (
	"errors"
	"net/http"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// HostPlugin serves one call of each kind as one of the host's own plugins.
type HostPlugin struct{ Handler http.Handler }

// Metadata names the plugin "echo".
func (HostPlugin) Metadata() connectplugin.PluginMetadata {
	return connectplugin.PluginMetadata{Name: "echo", Version: "1.0.0", Path: Base}
}

// ConnectServer serves the handler, whatever the implementation.
func (p HostPlugin) ConnectServer(any) (string, http.Handler, error) {
	return Base, p.Handler, nil
}

// ConnectClient is not made for that.
func (HostPlugin) ConnectClient(string, connect.HTTPClient) (any, error) {
	return nil, errors.New("not made for that")
}

// Place is one way to reach calls of every kind on a host.
type Place struct {
	URL    string
	Header http.Header // of a caller who may
	Echo   *Whoami
}

// KindsHost serves calls of every kind as a host's own plugin, as a capability and
// by another plugin behind the router.
type KindsHost struct {
	*hosttest.Host

	plugin, capability, routed *Whoami
	Provider                   *hosttest.Plugin
}

// StartKindsHost starts a host, for which edit may be nil.
func StartKindsHost(t *testing.T, edit func(*connectplugin.ServeConfig)) *KindsHost {
	t.Helper()
	h := &KindsHost{plugin: &Whoami{}, capability: &Whoami{}, routed: &Whoami{}}
	all := []string{"*"}
	h.Host = hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"caller":   hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Requires, p.Capabilities, p.HostPlugins = all, all, all }),
			"provider": hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Provides = all }),
		}}
		c.Plugins, c.Impls = connectplugin.PluginSet{"echo": HostPlugin{Handler: h.plugin.Handler()}}, map[string]any{"echo": true}
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(hosttest.NewCapability(h.capability.Handler(), Type, "1.0.0"))
		c.Limits.MaxIdentitiesPerSelfID = 10_000
		if edit != nil {
			edit(c)
		}
	})
	h.Provider = h.StartPlugin(t, "provider", func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{{Type: "echo", Version: "1.0.0", Path: Base, Handler: h.routed.Handler()}}
	})
	return h
}

// Places returns the ways to reach a call for a new caller.
func (h *KindsHost) Places(t *testing.T) (caller *connectplugin.Client, places map[string]Place) {
	t.Helper()
	return h.PlacesOf(t, "caller")
}

// PlacesOf returns them for a new caller of a name that policy has.
func (h *KindsHost) PlacesOf(t *testing.T, name string) (caller *connectplugin.Client, places map[string]Place) {
	t.Helper()
	caller = h.Enrol(t, name, hosttest.Requiring("echo"))
	resp, err := connectpluginv1connect.NewCapabilityBrokerClient(caller.HTTPClient(), h.URL).
		RequestCapability(t.Context(), connect.NewRequest(&connectpluginv1.RequestCapabilityRequest{CapabilityType: "echo"}))
	if err != nil {
		t.Fatal(err)
	}
	own := hosttest.IdentityHeader(caller.RuntimeID(), caller.RuntimeToken())
	return caller, map[string]Place{
		"host plugin": {h.URL, own, h.plugin},
		"route":       {h.URL + "/services/echo/" + h.Provider.Client.RuntimeID(), own, h.routed},
		"capability":  {resp.Msg.GetGrant().GetEndpointUrl(), hosttest.BearerHeader(resp.Msg.GetGrant().GetBearerToken()), h.capability},
	}
}
