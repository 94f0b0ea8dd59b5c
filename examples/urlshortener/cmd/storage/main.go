// Command storage is a plugin that provides the service "storage": keys and
// values in a bbolt file. It logs through the capability "logger", which the
// host's broker grants it.
package main

import (
	"context"
	"flag"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/storage/v1/storagev1connect"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/cli"
)

func main() {
	flags := cli.NewPluginFlags("storage")
	file := flag.String("file", "storage.db", "`file` to keep the data in")
	flag.Parse()

	cli.Main(func(ctx context.Context) error {
		client, err := flags.ClientConfig("1.0.0")
		if err != nil {
			return err
		}
		service, err := openStorage(*file)
		if err != nil {
			return err
		}
		defer service.Close()
		path, handler := storagev1connect.NewStorageServiceHandler(service, connect.WithCompressMinBytes(connectplugin.CompressMinBytes))

		return connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
			Client:         client,
			Addr:           flags.Addr(),
			Services:       []connectplugin.PluginService{{Type: "storage", Version: "1.0.0", Path: path, Handler: handler}},
			HealthInterval: time.Second,
			OnConnected:    service.logger.connect,
		})
	})
}
