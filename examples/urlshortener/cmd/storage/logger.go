package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/logger/v1"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/logs"
	capability "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
)

var errNotGranted = errors.New("the host has not granted the capability yet")

// capabilityLogger logs through the host's capability "logger".
type capabilityLogger struct {
	*logs.Buffer

	client atomic.Pointer[capabilityClient] // nil before connect
}

type capabilityClient struct{ loggerv1connect.LoggerClient }

func newCapabilityLogger() *capabilityLogger {
	l := &capabilityLogger{}
	l.Buffer = logs.NewBuffer(l.send)

	return l
}

// connect asks the host for the capability. A grant that runs out is renewed by
// the connection itself.
func (l *capabilityLogger) connect(ctx context.Context, client *connectplugin.Client) error {
	conn, err := client.Capability(ctx, "logger", "1.0.0")
	if err != nil {
		return fmt.Errorf("storage logs through the host: %w", err)
	}

	l.client.Store(&capabilityClient{loggerv1connect.NewLoggerClient(conn.HTTPClient(), conn.BaseURL())})

	return nil
}

func (l *capabilityLogger) send(ctx context.Context, entries []*loggerv1.Entry) error {
	client := l.client.Load()
	if client == nil {
		return errNotGranted
	}

	for _, e := range entries {
		_, err := client.Log(ctx, connect.NewRequest(&capability.LogRequest{
			Level: e.GetLevel(), Message: e.GetMessage(), Fields: e.GetFields(),
		}))
		if err != nil {
			return fmt.Errorf("capability: %w", err)
		}
	}

	return nil
}
