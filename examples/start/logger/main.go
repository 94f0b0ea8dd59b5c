// Command logger is a plugin that provides the service "logger": it prints what others log.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/loggerv1plugin"
)

type logger struct{}

// Log prints an entry, and who wrote it: the host has proven that.
func (logger) Log(ctx context.Context, req *connect.Request[loggerv1.LogRequest]) (*connect.Response[loggerv1.LogResponse], error) {
	caller, _ := connectplugin.CallerFromContext(ctx)
	fmt.Printf("%s: %s\n", caller.SelfID, req.Msg.GetMessage())

	return connect.NewResponse(&loggerv1.LogResponse{}), nil
}

func main() {
	host := flag.String("host", "https://127.0.0.1:8443", "the host's base URL")
	flag.Parse()

	if err := serve(*host); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

//docs:region serve
func serve(host string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	// The host writes them; a plugin that is started first waits.
	tls, err := connectplugin.AwaitCredentials(ctx, connectplugin.CredentialsConfig{Dir: "run/logger", Logger: slog.Default()})
	if err != nil {
		return err
	}

	return connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
		Client:   connectplugin.ClientConfig{HostURL: host, SelfID: "logger", TLS: tls, Logger: slog.Default()},
		Services: []connectplugin.PluginService{loggerv1plugin.ProvideLogger(logger{})},
	})
}

//docs:end
