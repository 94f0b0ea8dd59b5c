package watch_test

import (
	"log/slog"
	"strings"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A plugin that ends says nothing of services that go on; that one came it says in words.
func TestPlugin_EndsWithoutAWordOfServices(t *testing.T) {
	t.Parallel()
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Rights(map[string][2][]string{"logger": {{"logger"}, nil}, "api": {nil, {"logger"}}})
	})
	h.StartPlugin(t, "logger", func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{hosttest.LoggerService(&hosttest.RecordingLogger{})}
	})
	var log hosttest.Buffer
	api := h.StartPlugin(t, "api", func(c *connectplugin.PluginServerConfig) {
		c.Client.Logger = slog.New(slog.NewTextHandler(&log, nil))
		c.Client.Metadata.Requires = []connectplugin.ServiceDependency{{Type: "logger", WatchForChanges: true}}
	})
	hosttest.Eventually(t, "it sees the service", func() bool { return strings.Contains(log.String(), "service=logger reason=available") })
	api.Stop(t)
	if strings.Contains(log.String(), "unavailable") || strings.Contains(log.String(), "SERVICE_STATE") {
		t.Errorf("it logged: %s", log.String())
	}
}
