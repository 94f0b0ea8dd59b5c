// Command host is a whole host: it makes a certificate authority once, writes the
// credentials of two programs, and serves them as policy says.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8443", "the address to listen on")
	flag.Parse()

	if err := serve(*addr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(addr string) error {
	config := connectplugin.AuthorityConfig{Dir: "run/authority"}

	authority, err := connectplugin.LoadAuthority(config)
	if errors.Is(err, fs.ErrNotExist) {
		authority, err = connectplugin.NewAuthority(config)
	}

	if err != nil {
		return err
	}

	for _, name := range []string{"greeter", "caller"} {
		if err := authority.WriteCredentials("run/"+name, name); err != nil {
			return err
		}
	}

	return connectplugin.Serve(&connectplugin.ServeConfig{
		Addr:      addr,
		Authority: authority,
		Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"greeter": {Provides: []string{"greeter"}, AllowOwnAddress: true},
			"caller":  {Requires: []string{"greeter"}},
		}},
		Logger: slog.Default(),
	})
}
