// Command logger is a plugin that provides the service "logger": it keeps what
// other plugins log.
package main

import (
	"context"
	"flag"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/logger/v1/loggerv1connect"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/cli"
)

func main() {
	flags := cli.NewPluginFlags("logger")
	file := flag.String("file", "logger.jsonl", "`file` to append the entries to")
	flag.Parse()

	cli.Main(func(ctx context.Context) error {
		client, err := flags.ClientConfig("1.0.0")
		if err != nil {
			return err
		}
		service, err := openLog(*file)
		if err != nil {
			return err
		}
		defer service.Close()
		path, handler := loggerv1connect.NewLoggerServiceHandler(service, connect.WithCompressMinBytes(connectplugin.CompressMinBytes))

		return connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
			Client:         client,
			Addr:           flags.Addr(),
			Services:       []connectplugin.PluginService{{Type: "logger", Version: "1.0.0", Path: path, Handler: handler}},
			HealthInterval: time.Second,
		})
	})
}
