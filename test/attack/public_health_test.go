package attack_test

import (
	"net/http"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// That all of the host's own plugins are public says nothing of the services of other plugins.
func TestAudit_ATK21_NobodyLearnsOfHealthThatIsNotPublic(t *testing.T) {
	t.Parallel()
	health := connectplugin.NewHealthServer()
	health.SetServingStatus("billing", connectpluginv1.ServingStatus_SERVING_STATUS_NOT_SERVING)
	health.SetServingStatus("tool", connectpluginv1.ServingStatus_SERVING_STATUS_SERVING)
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.HealthService = health
		c.Policy = &connectplugin.Policy{Public: []string{"*"}, Default: &connectplugin.PluginPolicy{
			AllowUnproven: true, HostPlugins: []string{"*"}, Capabilities: []string{"*"}, Requires: []string{"*"},
		}}
		c.Plugins, c.Impls = connectplugin.PluginSet{"logger": hosttest.LoggerPlugin{}}, map[string]any{"logger": &hosttest.RecordingLogger{}}
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(hosttest.NewCapability(http.NotFoundHandler(), "tool", "1.0.0"))
	})
	for protocol, options := range protocols {
		client := connectpluginv1connect.NewHealthServiceClient(host.Stranger(t), host.URL, options...)
		for service, want := range map[string]connect.Code{"": 0, "logger": 0, "billing": connect.CodeNotFound, "tool": connect.CodeNotFound, "nothing": connect.CodeNotFound} {
			_, err := client.Check(t.Context(), connect.NewRequest(&connectpluginv1.HealthCheckRequest{Service: service}))
			if got := hosttest.CodeOrZero(err); got != want {
				t.Errorf("%s: a stranger asks for %q: %v", protocol, service, err)
			}
		}
	}
	// A plugin that may require it is told.
	c, err := enrol(t, connectplugin.ClientConfig{HostURL: host.URL, SelfID: "any", TLS: host.StrangerTLS(), Metadata: connectplugin.PluginMetadata{Requires: hosttest.Requires("billing")}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := connectpluginv1connect.NewHealthServiceClient(c.HTTPClient(), host.URL).Check(t.Context(),
		connect.NewRequest(&connectpluginv1.HealthCheckRequest{Service: "billing"})); err != nil {
		t.Errorf("a plugin that requires it: %v", err)
	}
}
