package main

import (
	"context"
	"fmt"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/logger/v1"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/logger/v1/loggerv1connect"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/storage/v1/storagev1connect"
)

// links are the services that api calls. They are there once it is connected to
// the host, whether or not somebody provides them at the time.
type links struct {
	connected chan struct{} // closed when the rest is set
	storage   storagev1connect.StorageServiceClient
	logger    loggerv1connect.LoggerServiceClient
}

// connect runs once, before the host sends any call.
func (l *links) connect(ctx context.Context, client *connectplugin.Client) error {
	storage, err := client.Service(ctx, "storage", "1.0.0")
	if err != nil {
		return fmt.Errorf("api: %w", err)
	}

	logger, err := client.Service(ctx, "logger", "1.0.0")
	if err != nil {
		return fmt.Errorf("api: %w", err)
	}

	l.storage = storagev1connect.NewStorageServiceClient(storage.HTTPClient(), storage.BaseURL())
	l.logger = loggerv1connect.NewLoggerServiceClient(logger.HTTPClient(), logger.BaseURL())
	close(l.connected)

	return nil
}

// send passes log entries on.
func (l *links) send(ctx context.Context, entries []*loggerv1.Entry) error {
	select {
	case <-l.connected:
	case <-ctx.Done():
		return ctx.Err()
	}

	if _, err := l.logger.Log(ctx, &loggerv1.LogRequest{Entries: entries}); err != nil {
		return fmt.Errorf("logger: %w", err)
	}

	return nil
}
