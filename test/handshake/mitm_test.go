package handshake_test

import (
	"net/http"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// otherLogger is a second plugin service of the host, on a path of its own.
type otherLogger struct{ hosttest.LoggerPlugin }

func (otherLogger) Metadata() connectplugin.PluginMetadata {
	return connectplugin.PluginMetadata{
		Name: "archive", Version: "1.0.0", Path: "/archive.v1.Logger/",
		Provides: []connectplugin.ServiceDeclaration{
			{Type: "left", Version: "1.0.0", Path: "/left.v1.Left/"}, {Type: "right", Version: "1.0.0"},
		},
		Requires: []connectplugin.ServiceDependency{
			{Type: "up", MinVersion: "1.0.0", RequiredForStartup: true, WatchForChanges: true}, {Type: "down"},
		},
	}
}

func (otherLogger) ConnectServer(any) (string, http.Handler, error) {
	return "/archive.v1.Logger/", http.NotFoundHandler(), nil
}

// attackedHost is a host whose answer to the victim has something in every field,
// and whose bounds no test meets by accident.
func attackedHost(t testing.TB, edit func(*connectplugin.ServeConfig)) *hosttest.Host {
	t.Helper()
	return hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		const many = 1_000_000
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"victim": hosttest.Allow(
			func(p *connectplugin.PluginPolicy) {
				p.HostPlugins, p.Capabilities, p.MaxInstances = []string{"*"}, []string{"*"}, many
			})}}
		c.ProtocolVersion, c.MinProtocolVersion, c.DeprecatedBelow = 3, 1, 3
		c.ServerMetadata = map[string]string{"region": "north", "zone": "b"}
		c.Plugins = connectplugin.PluginSet{"logger": hosttest.LoggerPlugin{}, "archive": otherLogger{}}
		c.Impls = map[string]any{"logger": &hosttest.RecordingLogger{}, "archive": struct{}{}}
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(hosttest.LoggerCapability(&hosttest.RecordingLogger{}))
		c.CapabilityBroker.RegisterCapability(hosttest.NewCapability(hosttest.LoggerCapability(&hosttest.RecordingLogger{}).Handler, "clock", "1.2.0"))
		c.Limits.MaxIdentities, c.Limits.MaxIdentitiesPerPeer, c.HandshakeAuth.ReplayCacheSize = many, many, many
		if edit != nil {
			edit(c)
		}
	})
}
