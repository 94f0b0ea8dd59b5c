// Command host is a host that grants a capability: its own log.
package main

import (
	"context"
	"log/slog"
	"net/http"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/examples/internal/devhost"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
)

func main() {
	devhost.Main(func(context.Context) error {
		broker := connectplugin.NewCapabilityBroker("")
		broker.RegisterCapability(newLogger())

		return devhost.Serve(&connectplugin.ServeConfig{
			CapabilityBroker: broker,
			Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
				"worker": {Capabilities: []string{"logger"}},
				"nosy":   {},
			}},
		}, "worker", "nosy")
	})
}

// logger is the capability "logger".
type logger struct{ http.Handler }

func newLogger() *logger {
	l := &logger{}
	_, l.Handler = loggerv1connect.NewLoggerHandler(l, connect.WithCompressMinBytes(connectplugin.CompressMinBytes))

	return l
}

// CapabilityType implements [connectplugin.CapabilityHandler].
func (*logger) CapabilityType() string { return "logger" }

// Version implements [connectplugin.CapabilityHandler].
func (*logger) Version() string { return "1.0.0" }

// Log writes an entry. Who asked is what the host knows, not what the entry says.
func (*logger) Log(ctx context.Context, req *connect.Request[loggerv1.LogRequest]) (*connect.Response[loggerv1.LogResponse], error) {
	caller, _ := connectplugin.CallerFromContext(ctx)
	slog.Info("a plugin logs", "plugin", caller.SelfID,
		"severity", req.Msg.GetLevel(), "text", req.Msg.GetMessage(), "fields", req.Msg.GetFields())

	return connect.NewResponse(&loggerv1.LogResponse{}), nil
}
