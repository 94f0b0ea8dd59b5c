// Command host is a host with certificates of your own public key infrastructure.
package main

import (
	"context"
	"crypto/tls"
	"flag"
	"log/slog"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/examples/internal/devhost"
)

func main() {
	devhost.Main(func(context.Context) error {
		addr := flag.String("addr", "127.0.0.1:8443", "the address to listen on")
		flag.Parse()

		// One for each side: what the host serves with, and what it dials plugins with.
		server, err := credentials()
		if err != nil {
			return err
		}

		client, err := credentials()
		if err != nil {
			return err
		}

		return connectplugin.Serve(&connectplugin.ServeConfig{
			Addr: *addr, TLS: server, PluginTLS: client, Hosts: []string{"127.0.0.1", "localhost"}, Logger: slog.Default(),
			Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
				"greeter": {
					Provides: []string{"greeter"}, Certificates: []string{"greeter.pki.example"}, AllowOwnAddress: true,
				},
				"caller": {Requires: []string{"greeter"}, Certificates: []string{"caller.pki.example"}},
			}},
		})
	})
}

// credentials are read again when the files change.
func credentials() (*tls.Config, error) {
	return connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: "run/pki/host", Logger: slog.Default()})
}
