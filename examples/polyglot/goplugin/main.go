// Command goplugin is the relay in Go.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	polyglotv1 "github.com/masegraye/connect-plugin-go/examples/polyglot/gen/polyglot/v1"
	"github.com/masegraye/connect-plugin-go/examples/polyglot/gen/polyglot/v1/polyglotv1connect"
)

func main() {
	host := flag.String("host", "https://127.0.0.1:8443", "the host's base URL")
	run := flag.String("run", "run", "the directory with the credentials")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := serve(ctx, *host, *run)
	stop()

	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// relay calls the plugins of the other languages.
type relay struct {
	next map[string]polyglotv1connect.RelayServiceClient // by language; written before the plugin is registered
}

// Relay implements polyglotv1connect.RelayServiceHandler.
func (r *relay) Relay(ctx context.Context, m *polyglotv1.RelayRequest) (*polyglotv1.RelayResponse, error) {
	caller, _ := connectplugin.CallerFromContext(ctx)
	lines := []string{fmt.Sprintf("go heard %q from %s", m.GetText(), caller.SelfID)}

	if len(m.GetRoute()) > 0 {
		next, ok := r.next[m.GetRoute()[0]]
		if !ok {
			return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("no relay in %q", m.GetRoute()[0]))
		}

		rest, err := next.Relay(ctx, &polyglotv1.RelayRequest{Route: m.GetRoute()[1:], Text: m.GetText()})
		if err != nil {
			return nil, err
		}

		lines = append(lines, rest.GetLines()...)
	}

	return &polyglotv1.RelayResponse{Lines: lines}, nil
}

func serve(ctx context.Context, host, run string) error {
	tls, err := connectplugin.AwaitCredentials(ctx, connectplugin.CredentialsConfig{Dir: filepath.Join(run, "go"), Logger: slog.Default()})
	if err != nil {
		return err
	}

	r := &relay{next: map[string]polyglotv1connect.RelayServiceClient{}}
	path, handler := polyglotv1connect.NewRelayServiceHandler(r)

	return connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
		Client: connectplugin.ClientConfig{
			HostURL: host, SelfID: "go", TLS: tls, Logger: slog.Default(),
			Metadata: connectplugin.PluginMetadata{Requires: []connectplugin.ServiceDependency{{Type: "relay.node"}, {Type: "relay.python"}}},
		},
		Services: []connectplugin.PluginService{{Type: "relay.go", Version: "1.0.0", Path: path, Handler: handler}},
		OnConnected: func(ctx context.Context, client *connectplugin.Client) error {
			for _, language := range []string{"node", "python"} {
				conn, err := client.Service(ctx, "relay."+language, "1.0.0")
				if err != nil {
					return err
				}
				// grpcio speaks gRPC alone, and the router translates nothing.
				r.next[language] = polyglotv1connect.NewRelayServiceClient(conn.HTTPClient(), conn.BaseURL(), connect.WithGRPC())
			}

			return nil
		},
	})
}
