// Command loggerv2 is the command logger with Connect's second version.
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
	"github.com/masegraye/connect-plugin-go/examples/start/genv2/capability/logger/v1/loggerv1connect"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
)

type logger struct{}

// Log prints an entry, and who wrote it: the host has proven that.
func (logger) Log(ctx context.Context, req *loggerv1.LogRequest) (*loggerv1.LogResponse, error) {
	caller, _ := connectplugin.CallerFromContext(ctx)
	fmt.Printf("%s: %s\n", caller.SelfID, req.GetMessage())

	return &loggerv1.LogResponse{}, nil
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
	tls, err := connectplugin.AwaitCredentials(ctx, connectplugin.CredentialsConfig{Dir: "run/logger", Logger: slog.Default()})
	if err != nil {
		return err
	}

	server := connect.NewServer()
	loggerv1connect.RegisterLoggerHandler(server, logger{})

	return connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
		Client:   connectplugin.ClientConfig{HostURL: host, SelfID: "logger", TLS: tls, Logger: slog.Default()},
		Services: []connectplugin.PluginService{connectpluginv2.NewService("logger", "1.0.0", server)},
	})
}

//docs:end
