// Command plugin is a plugin in the manner of the library before: a server of its own, a
// client that connects, and one call each to register and to report health.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	greeterv1 "github.com/masegraye/connect-plugin-go/examples/greeter/gen/greeter/v1"
	"github.com/masegraye/connect-plugin-go/examples/greeter/gen/greeter/v1/greeterv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

type greeter struct{}

func (greeter) Greet(_ context.Context, req *greeterv1.GreetRequest) (*greeterv1.GreetResponse, error) {
	return &greeterv1.GreetResponse{Greeting: "Hello, " + req.GetName() + "!"}, nil
}

func main() {
	host := flag.String("host", "http://127.0.0.1:8080", "the host's base URL")
	fields := flag.String("fields", "", "the new fields: open, secure, or nothing")
	flag.Parse()

	if err := run(*host, *fields); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(host, fields string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	cfg := connectplugin.ClientConfig{
		HostURL: host, SelfID: "greeter", SelfVersion: "1.0.0",
		Metadata: connectplugin.PluginMetadata{
			Name: "Greeter", Version: "1.0.0",
			Provides: []connectplugin.ServiceDeclaration{{Type: "greeter", Version: "1.0.0", Path: greeterv1connect.GreeterServiceName}},
		},
	}
	if err := fill(&cfg, fields); err != nil {
		return err
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // as it was written before
	if err != nil {
		return err
	}

	server, scheme := newServer(cfg)
	defer server.Close() //nolint:errcheck // the process ends

	if cfg.TLS == nil {
		go server.Serve(listener) //nolint:errcheck // as it was written before
	} else {
		go server.ServeTLS(listener, "", "") //nolint:errcheck // as it was written before
	}

	client, err := connectplugin.NewClient(cfg)
	if err != nil {
		return err
	}
	defer client.Close() //nolint:errcheck // the process ends

	if err := client.Connect(ctx); err != nil {
		return err
	}

	if err := register(ctx, client, scheme+listener.Addr().String()); err != nil {
		return err
	}

	<-ctx.Done()

	return nil
}

// newServer returns the plugin's server, and the scheme of its URL.
func newServer(cfg connectplugin.ClientConfig) (*http.Server, string) {
	mux := http.NewServeMux()
	mux.Handle(greeterv1connect.NewGreeterServiceHandler(greeter{}))

	scheme := "http://"
	if cfg.TLS != nil {
		scheme = "https://"
	}

	return &http.Server{Handler: mux, TLSConfig: cfg.TLS.Clone()}, scheme //nolint:gosec // as it was written before
}

func register(ctx context.Context, client *connectplugin.Client, baseURL string) error {
	_, err := client.RegistryClient().RegisterService(ctx, connect.NewRequest(&connectpluginv1.RegisterServiceRequest{
		ServiceType: "greeter", Version: "1.0.0", EndpointPath: "/" + greeterv1connect.GreeterServiceName + "/",
		Metadata: map[string]string{"base_url": baseURL},
	}))
	if err != nil {
		return err
	}

	if err := client.ReportHealth(ctx, connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil); err != nil {
		return err
	}

	slog.Info("service registered")

	return nil
}
