// Command app is a plugin that calls the service "logger" of another one.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	"github.com/masegraye/connect-plugin-go/gen/loggerv1delegate"
)

func main() {
	host := flag.String("host", "https://127.0.0.1:8443", "the host's base URL")
	flag.Parse()

	if err := run(context.Background(), *host, strings.Join(flag.Args(), " ")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, host, message string) error {
	tls, err := connectplugin.AwaitCredentials(ctx, connectplugin.CredentialsConfig{Dir: "run/app", Logger: slog.Default()})
	if err != nil {
		return err
	}

	client, err := connectplugin.NewClient(connectplugin.ClientConfig{
		HostURL: host, SelfID: "app", TLS: tls, Logger: slog.Default(),
		Metadata: connectplugin.PluginMetadata{Requires: []connectplugin.ServiceDependency{{Type: "logger"}}},
	})
	if err != nil {
		return err
	}
	defer client.Leave(context.WithoutCancel(ctx)) //nolint:errcheck // the process ends

	if err := client.Connect(ctx); err != nil {
		return err
	}

	//docs:region call
	conn, err := client.Service(ctx, "logger", "1.0.0")
	if err != nil {
		return err
	}
	defer conn.Close()

	logger := loggerv1delegate.New(loggerv1connect.NewLoggerClient(conn.HTTPClient(), conn.BaseURL()))

	if err := logger.Log(ctx, "info", message, nil); err != nil {
		return err
	}
	//docs:end

	fmt.Println("logged")

	return nil
}
