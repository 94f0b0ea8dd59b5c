package attack_test

import (
	"net/http"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// The services of plugins that one of the host's own provides or requires are no stranger's business, though it is public.
func TestAudit_ATK20_AnAnonymousHandshakeLearnsNoServiceTypes(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = policyFor(map[string]func(*connectplugin.PluginPolicy){"may": withSecret})
		c.Policy.Public = []string{"logger"}
		c.Plugins = connectplugin.PluginSet{"logger": dependentLogger{}}
		c.Impls = map[string]any{"logger": &hosttest.RecordingLogger{}}
		c.AuthProviders = []connectplugin.AuthProvider{connectplugin.NewAPIKeyAuth("let-me-in", nil)}
	})
	for protocol, options := range protocols {
		for who, c := range map[string]struct {
			header http.Header
			knows  bool
		}{"a stranger": {nil, false}, "whom a provider knows": {http.Header{"X-Api-Key": {"let-me-in"}}, true}} {
			resp, err := connectpluginv1connect.NewHandshakeServiceClient(withHeader{host.Stranger(t), c.header}, host.URL, options...).
				Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest("")))
			if err != nil || len(resp.Msg.GetPlugins()) != 1 {
				t.Fatalf("%s, %s: %v, %v", protocol, who, resp, err)
			}
			if p := resp.Msg.GetPlugins()[0]; len(p.GetProvides())+len(p.GetRequires()) > 0 != c.knows || p.GetServicePath() == "" {
				t.Errorf("%s, %s: was told of %v", protocol, who, p)
			}
		}
	}
}

// dependentLogger has to do with services of plugins.
type dependentLogger struct{ hosttest.LoggerPlugin }

func (l dependentLogger) Metadata() connectplugin.PluginMetadata {
	m := l.LoggerPlugin.Metadata()
	m.Provides, m.Requires = hosttest.Provides("logs"), hosttest.Requires("vault")
	return m
}
