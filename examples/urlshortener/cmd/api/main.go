// Command api is a plugin that provides the service "shortener". It keeps its
// codes in the service "storage", without which it does not start, and logs
// through the service "logger", without which it is degraded and goes on.
package main

import (
	"context"
	"flag"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/shortener/v1/shortenerv1connect"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/cli"
)

func main() {
	flags := cli.NewPluginFlags("api")
	flag.Parse()

	cli.Main(func(ctx context.Context) error {
		client, err := flags.ClientConfig("1.0.0")
		if err != nil {
			return err
		}
		client.Metadata.Requires = []connectplugin.ServiceDependency{
			{Type: "storage", MinVersion: "1.0.0", RequiredForStartup: true},
			{Type: "logger", MinVersion: "1.0.0", WatchForChanges: true},
		}
		service := newShortener()
		defer service.Close()
		path, handler := shortenerv1connect.NewShortenerServiceHandler(service, connect.WithCompressMinBytes(connectplugin.CompressMinBytes))

		return connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
			Client:         client,
			Addr:           flags.Addr(),
			Services:       []connectplugin.PluginService{{Type: "shortener", Version: "1.0.0", Path: path, Handler: handler}},
			HealthInterval: time.Second,
			OnConnected:    service.connect,
		})
	})
}
