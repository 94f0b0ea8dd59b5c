package host_test

import (
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

func TestPath_PluginCallsPluginThroughHost(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	logger := &hosttest.RecordingLogger{}
	plugin := host.StartPlugin(t, "logger", func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{hosttest.LoggerService(logger)}
	})
	api := host.Enrol(t, "api", hosttest.Requiring("logger"))
	conn, err := api.Service(t.Context(), "logger", ">=1.0")
	if err != nil {
		t.Fatalf("Service: %v", err)
	}
	for name, opts := range hosttest.Protocols {
		client := loggerv1connect.NewLoggerClient(conn.HTTPClient(), conn.BaseURL(), opts...)
		if _, err := client.Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{Message: name})); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	lines, _, headers := logger.Got()
	if len(lines) != 3 {
		t.Fatalf("logger got %d lines, want 3", len(lines))
	}
	for _, h := range headers {
		if got := h.Get("X-Plugin-Caller-Id"); got != api.RuntimeID() {
			t.Errorf("X-Plugin-Caller-Id = %q, want %q", got, api.RuntimeID())
		}
		if h.Get("Authorization") != "" || h.Get("X-Plugin-Runtime-Id") != "" {
			t.Errorf("the provider saw the caller's credentials: %v", h)
		}
	}
	plugin.Stop(t)
	hosttest.Eventually(t, "state of the service", func() bool {
		return conn.State() == connectpluginv1.ServiceState_SERVICE_STATE_UNAVAILABLE
	})
	_, err = loggerv1connect.NewLoggerClient(conn.HTTPClient(), conn.BaseURL()).Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{}))
	if connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("call without a provider: %v, want unavailable", err)
	}
}
