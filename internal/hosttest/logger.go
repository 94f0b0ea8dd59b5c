package hosttest

import (
	"context"
	"net/http"
	"slices"
	"sync"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
)

// RecordingLogger is a logger service that keeps what it was sent, and by whom.
type RecordingLogger struct {
	mu      sync.Mutex
	lines   []string
	callers []string
	headers []http.Header
}

func (l *RecordingLogger) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines, l.callers, l.headers = nil, nil, nil
}

func (l *RecordingLogger) Log(ctx context.Context, req *connect.Request[loggerv1.LogRequest]) (*connect.Response[loggerv1.LogResponse], error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, req.Msg.GetMessage())
	l.headers = append(l.headers, req.Header().Clone())
	if c, ok := connectplugin.CallerFromContext(ctx); ok {
		l.callers = append(l.callers, c.SelfID)
	}
	return connect.NewResponse(&loggerv1.LogResponse{}), nil
}

func (l *RecordingLogger) Got() (lines, callers []string, headers []http.Header) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines), slices.Clone(l.callers), slices.Clone(l.headers)
}

// LoggerPlugin serves the logger as one of the host's own plugins.
type LoggerPlugin struct{}

func (LoggerPlugin) Metadata() connectplugin.PluginMetadata {
	return connectplugin.PluginMetadata{Name: "logger", Version: "1.0.0", Path: "/" + loggerv1connect.LoggerName + "/"}
}

func (LoggerPlugin) ConnectServer(impl any) (string, http.Handler, error) {
	handler, ok := impl.(loggerv1connect.LoggerHandler)
	if !ok {
		return "", nil, connectplugin.ErrInvalidPluginImpl
	}
	path, h := loggerv1connect.NewLoggerHandler(handler)
	return path, h, nil
}

func (LoggerPlugin) ConnectClient(baseURL string, httpClient connect.HTTPClient) (any, error) {
	return loggerv1connect.NewLoggerClient(httpClient, baseURL), nil
}

// LoggerService is a logger that a plugin serves.
func LoggerService(l *RecordingLogger) connectplugin.PluginService {
	path, handler := loggerv1connect.NewLoggerHandler(l)
	return connectplugin.PluginService{Type: "logger", Version: "1.0.0", Path: path, Handler: handler}
}

// LoggerCapability is the host's capability "logger".
func LoggerCapability(l *RecordingLogger) Capability {
	_, h := loggerv1connect.NewLoggerHandler(l)
	return NewCapability(h, "logger", "1.2.0")
}
