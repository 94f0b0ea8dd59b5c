// Command pluginv2 is the command plugin with Connect's second version.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"connectrpc.com/connect/v2"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/connectpluginv2"
	greeterv1 "github.com/masegraye/connect-plugin-go/examples/minimal/gen/greeter/v1"
	"github.com/masegraye/connect-plugin-go/examples/minimal/genv2/greeter/v1/greeterv1connect"
)

type greeter struct{}

func (greeter) Greet(_ context.Context, req *greeterv1.GreetRequest) (*greeterv1.GreetResponse, error) {
	return &greeterv1.GreetResponse{Greeting: "Hello, " + req.GetName() + "!"}, nil
}

func main() {
	host := flag.String("host", "https://127.0.0.1:8443", "the host's base URL")
	flag.Parse()

	if err := serve(*host); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

//docs:region servev2
func serve(host string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	// The host writes them; a plugin that is started first waits.
	tls, err := connectplugin.AwaitCredentials(ctx, connectplugin.CredentialsConfig{Dir: "run/greeter", Logger: slog.Default()})
	if err != nil {
		return err
	}

	server := connect.NewServer()
	greeterv1connect.RegisterGreeterServiceHandler(server, greeter{})

	return connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
		Client:   connectplugin.ClientConfig{HostURL: host, SelfID: "greeter", TLS: tls, Logger: slog.Default()},
		Services: []connectplugin.PluginService{connectpluginv2.NewService("greeter", "1.0.0", server)},
	})
}

//docs:end
