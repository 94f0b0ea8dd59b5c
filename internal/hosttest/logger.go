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

// Reset forgets what was sent.
func (l *RecordingLogger) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines, l.callers, l.headers = nil, nil, nil
}

// Log keeps the line.
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

// Got returns what was sent, by whom, with which headers.
func (l *RecordingLogger) Got() (lines, callers []string, headers []http.Header) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines), slices.Clone(l.callers), slices.Clone(l.headers)
}

// LoggerPlugin serves the logger as one of the host's own plugins.
type LoggerPlugin struct{}

// Metadata names the plugin "logger".
func (LoggerPlugin) Metadata() connectplugin.PluginMetadata {
	return connectplugin.PluginMetadata{Name: "logger", Version: "1.0.0", Path: "/" + loggerv1connect.LoggerName + "/"}
}

// ConnectServer serves an implementation of the logger.
func (LoggerPlugin) ConnectServer(impl any) (string, http.Handler, error) {
	handler, ok := impl.(loggerv1connect.LoggerHandler)
	if !ok {
		return "", nil, connectplugin.ErrInvalidPluginImpl
	}
	path, h := loggerv1connect.NewLoggerHandler(handler)
	return path, h, nil
}

// ConnectClient makes a client of the logger.
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

// SlowLogger answers when it is released, and says when a call has arrived.
type SlowLogger struct {
	Arrived chan struct{}
	Release chan struct{}
}

// NewSlowLogger makes one that lets nobody go yet.
func NewSlowLogger() *SlowLogger {
	return &SlowLogger{Arrived: make(chan struct{}, 16), Release: make(chan struct{})}
}

// Log answers once it may.
func (l *SlowLogger) Log(ctx context.Context, _ *connect.Request[loggerv1.LogRequest]) (*connect.Response[loggerv1.LogResponse], error) {
	l.Arrived <- struct{}{}
	select {
	case <-l.Release:
		return connect.NewResponse(&loggerv1.LogResponse{}), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
