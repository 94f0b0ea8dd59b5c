// Command appv2 is the command app with Connect's second version.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"connectrpc.com/connect/v2"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/connectpluginv2"
	"github.com/masegraye/connect-plugin-go/examples/start/genv2/capability/logger/v1/loggerv1connect"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
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

	//docs:region callv2
	conn, err := client.Service(ctx, "logger", "1.0.0")
	if err != nil {
		return err
	}
	defer conn.Close()

	logger := loggerv1connect.NewLoggerClient(connect.NewClient(connectpluginv2.NewTransport(conn)))

	if _, err := logger.Log(ctx, &loggerv1.LogRequest{Level: "info", Message: message}); err != nil {
		return err
	}
	//docs:end

	fmt.Println("logged")

	return nil
}
