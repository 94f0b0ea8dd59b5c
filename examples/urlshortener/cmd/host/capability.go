package main

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/logger/v1"
	service "github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/logger/v1/loggerv1connect"
	capabilityv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	capability "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
)

const (
	hostSelfID     = "host"
	forwardTimeout = time.Second
)

// logCapability is the capability "logger" of the host. It passes entries on to
// the plugin that provides the service "logger", and writes them to the host's
// own log while there is none.
type logCapability struct {
	http.Handler

	// Fixed at creation.
	log    *slog.Logger
	client *connectplugin.Client

	connecting sync.WaitGroup
	logger     atomic.Pointer[loggerClient] // nil before Connect is done
}

type loggerClient struct{ service.LoggerServiceClient }

var _ connectplugin.CapabilityHandler = (*logCapability)(nil)

// newLogCapability makes the capability of the host at url, of which it will be
// a client like any other. Its owner closes it.
func newLogCapability(url string, authority *connectplugin.Authority, log *slog.Logger) (*logCapability, error) {
	tls, err := authority.PluginTLS(hostSelfID)
	if err != nil {
		return nil, err
	}

	client, err := connectplugin.NewClient(connectplugin.ClientConfig{
		HostURL: url, SelfID: hostSelfID, TLS: tls, Logger: log,
		Metadata: connectplugin.PluginMetadata{Requires: []connectplugin.ServiceDependency{{Type: "logger"}}},
	})
	if err != nil {
		return nil, err
	}

	c := &logCapability{log: log, client: client}
	_, c.Handler = capability.NewLoggerHandler(c, connect.WithCompressMinBytes(connectplugin.CompressMinBytes))

	return c, nil
}

// CapabilityType implements [connectplugin.CapabilityHandler].
func (*logCapability) CapabilityType() string { return "logger" }

// Version implements [connectplugin.CapabilityHandler].
func (*logCapability) Version() string { return "1.0.0" }

// Connect connects to the host in the background, as soon as that serves.
func (c *logCapability) Connect(ctx context.Context) {
	c.connecting.Go(func() {
		err := c.client.Connect(ctx)
		if err == nil {
			var conn *connectplugin.ServiceConn
			if conn, err = c.client.Service(ctx, "logger", ""); err == nil {
				c.logger.Store(&loggerClient{service.NewLoggerServiceClient(conn.HTTPClient(), conn.BaseURL())})
				c.log.Info("the host passes on what plugins log")

				return
			}
		}

		c.log.Warn("the host keeps the entries of plugins in its own log", "error", err)
	})
}

// Close disconnects from the host.
func (c *logCapability) Close() {
	_ = c.client.Close()

	c.connecting.Wait()
}

// Log takes an entry of a plugin that was granted the capability.
func (c *logCapability) Log(ctx context.Context, req *connect.Request[capabilityv1.LogRequest]) (*connect.Response[capabilityv1.LogResponse], error) {
	plugin, _ := connectplugin.CallerFromContext(ctx)
	fields := maps.Clone(req.Msg.GetFields())
	if fields == nil {
		fields = map[string]string{}
	}

	fields["plugin"] = plugin.SelfID // whatever the plugin says

	entry := &loggerv1.Entry{Time: timestamppb.Now(), Level: req.Msg.GetLevel(), Message: req.Msg.GetMessage(), Fields: fields}
	if !c.forward(ctx, entry) {
		c.log.Info("a plugin logs", "plugin", plugin.SelfID,
			"severity", entry.GetLevel(), "text", entry.GetMessage(), "fields", req.Msg.GetFields())
	}

	return connect.NewResponse(&capabilityv1.LogResponse{}), nil
}

func (c *logCapability) forward(ctx context.Context, entry *loggerv1.Entry) bool {
	logger := c.logger.Load()
	if logger == nil {
		return false
	}

	ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
	defer cancel()

	_, err := logger.Log(ctx, &loggerv1.LogRequest{Entries: []*loggerv1.Entry{entry}})

	return err == nil
}
