// Command caller is a whole client: it calls the service "greeter" through the host.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"

	connectplugin "github.com/masegraye/connect-plugin-go"
	greeterv1 "github.com/masegraye/connect-plugin-go/examples/minimal/gen/greeter/v1"
	"github.com/masegraye/connect-plugin-go/examples/minimal/gen/greeter/v1/greeterv1connect"
)

func main() {
	host := flag.String("host", "https://127.0.0.1:8443", "the host's base URL")
	flag.Parse()

	if err := greet(context.Background(), *host, flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func greet(ctx context.Context, host, name string) error {
	tls, err := connectplugin.AwaitCredentials(ctx, connectplugin.CredentialsConfig{Dir: "run/caller", Logger: slog.Default()})
	if err != nil {
		return err
	}

	client, err := connectplugin.NewClient(connectplugin.ClientConfig{
		HostURL: host, SelfID: "caller", TLS: tls,
		Metadata: connectplugin.PluginMetadata{Requires: []connectplugin.ServiceDependency{{Type: "greeter"}}},
	})
	if err != nil {
		return err
	}
	defer client.Leave(context.WithoutCancel(ctx)) //nolint:errcheck // the process ends

	if err := client.Connect(ctx); err != nil {
		return err
	}

	//docs:region call
	conn, err := client.Service(ctx, "greeter", "1.0.0")
	if err != nil {
		return err
	}

	greeter := greeterv1connect.NewGreeterServiceClient(conn.HTTPClient(), conn.BaseURL())

	resp, err := greeter.Greet(ctx, &greeterv1.GreetRequest{Name: name})
	if err != nil {
		return err
	}

	fmt.Println(resp.GetGreeting())
	//docs:end

	return nil
}
