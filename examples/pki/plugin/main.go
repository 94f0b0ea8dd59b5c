// Command plugin provides the service "greeter" with a certificate of your own public key
// infrastructure.
package main

import (
	"context"
	"flag"
	"log/slog"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	greeterv1 "github.com/masegraye/connect-plugin-go/examples/greeter/gen/greeter/v1"
	"github.com/masegraye/connect-plugin-go/examples/greeter/gen/greeter/v1/greeterv1connect"
	"github.com/masegraye/connect-plugin-go/examples/internal/devhost"
)

type greeter struct{}

func (greeter) Greet(_ context.Context, req *greeterv1.GreetRequest) (*greeterv1.GreetResponse, error) {
	return &greeterv1.GreetResponse{Greeting: "Hello, " + req.GetName() + "!"}, nil
}

func main() {
	devhost.Main(func(ctx context.Context) error {
		host := flag.String("host", "https://127.0.0.1:8443", "the host's base URL")
		dir := flag.String("dir", "run/pki/plugin", "the directory of the certificate")
		flag.Parse()

		tls, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: *dir, Logger: slog.Default()})
		if err != nil {
			return err
		}

		path, handler := greeterv1connect.NewGreeterServiceHandler(greeter{}, connect.WithCompressMinBytes(connectplugin.CompressMinBytes))

		return connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
			Client:       connectplugin.ClientConfig{HostURL: *host, SelfID: "greeter", TLS: tls, Logger: slog.Default()},
			Services:     []connectplugin.PluginService{{Type: "greeter", Version: "1.0.0", Path: path, Handler: handler}},
			HostIdentity: "host.pki.example", // nobody else may call the plugin
		})
	})
}
