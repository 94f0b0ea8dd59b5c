package connectplugin_test

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// recordingLogger is a logger service that keeps what it was sent, and by whom.
type recordingLogger struct {
	mu      sync.Mutex
	lines   []string
	callers []string
	headers []http.Header
}

func (l *recordingLogger) Log(ctx context.Context, req *connect.Request[loggerv1.LogRequest]) (*connect.Response[loggerv1.LogResponse], error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, req.Msg.GetMessage())
	l.headers = append(l.headers, req.Header().Clone())
	if c, ok := connectplugin.CallerFromContext(ctx); ok {
		l.callers = append(l.callers, c.SelfID)
	}
	return connect.NewResponse(&loggerv1.LogResponse{}), nil
}

func (l *recordingLogger) got() (lines, callers []string, headers []http.Header) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines), slices.Clone(l.callers), slices.Clone(l.headers)
}

// loggerService is a logger that a plugin serves.
func loggerService(l *recordingLogger) connectplugin.PluginService {
	path, handler := loggerv1connect.NewLoggerHandler(l)
	return connectplugin.PluginService{Type: "logger", Version: "1.0.0", Path: path, Handler: handler}
}

// loggerPolicy lets "logger" provide and "api" require the type logger.
func loggerPolicy() *connectplugin.Policy {
	return &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
		"logger": hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Provides = []string{"logger"} }),
		"api":    hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Requires = []string{"logger"} }),
		"other":  hosttest.Allow(nil),
	}}
}

func withPolicy(p *connectplugin.Policy) func(*connectplugin.ServeConfig) {
	return func(c *connectplugin.ServeConfig) { c.Policy = p }
}

func requires(types ...string) func(*connectplugin.ClientConfig) {
	return func(c *connectplugin.ClientConfig) { c.Metadata.Requires = hosttest.Requires(types...) }
}

func TestPath_PluginCallsPluginThroughHost(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, withPolicy(loggerPolicy()))
	logger := &recordingLogger{}
	plugin := host.StartPlugin(t, "logger", func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{loggerService(logger)}
	})
	api := host.Enrol(t, "api", requires("logger"))
	conn, err := api.Service(t.Context(), "logger", ">=1.0")
	if err != nil {
		t.Fatalf("Service: %v", err)
	}
	for name, opts := range protocols {
		client := loggerv1connect.NewLoggerClient(conn.HTTPClient(), conn.BaseURL(), opts...)
		if _, err := client.Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{Message: name})); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	lines, _, headers := logger.got()
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
