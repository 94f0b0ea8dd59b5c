// Command caller calls the service "greeter" with a certificate of your own public key
// infrastructure.
package main

import (
	"context"
	"flag"
	"fmt"

	connectplugin "github.com/masegraye/connect-plugin-go"
	greeterv1 "github.com/masegraye/connect-plugin-go/examples/greeter/gen/greeter/v1"
	"github.com/masegraye/connect-plugin-go/examples/greeter/gen/greeter/v1/greeterv1connect"
	"github.com/masegraye/connect-plugin-go/examples/internal/devhost"
)

func main() { devhost.Main(run) }

func run(ctx context.Context) error {
	host := flag.String("host", "https://127.0.0.1:8443", "the host's base URL")
	dir := flag.String("dir", "run/pki/caller", "the directory of the certificate")
	flag.Parse()

	tls, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: *dir})
	if err != nil {
		return err
	}

	client, err := connectplugin.NewClient(connectplugin.ClientConfig{
		HostURL: *host, SelfID: "caller", TLS: tls,
		Metadata: connectplugin.PluginMetadata{Requires: []connectplugin.ServiceDependency{{Type: "greeter"}}},
	})
	if err != nil {
		return err
	}
	defer client.Leave(context.WithoutCancel(ctx)) //nolint:errcheck // the process ends

	if err := client.Connect(ctx); err != nil {
		return err
	}

	conn, err := client.Service(ctx, "greeter", "1.0.0")
	if err != nil {
		return err
	}

	greeter := greeterv1connect.NewGreeterServiceClient(conn.HTTPClient(), conn.BaseURL())

	res, err := greeter.Greet(ctx, &greeterv1.GreetRequest{Name: flag.Arg(0)})
	if err != nil {
		return err
	}

	fmt.Println(res.GetGreeting())

	return nil
}
