// Command host makes a certificate authority once, writes the credentials of two plugins,
// and serves them as policy says.
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
	name := flag.String("name", "localhost", "the name or address at which plugins reach the host")
	flag.Parse()

	if err := serve(*addr, *name); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

//docs:region serve
func serve(addr, name string) error {
	config := connectplugin.AuthorityConfig{Dir: "run/authority"}

	authority, err := connectplugin.LoadAuthority(config)
	if errors.Is(err, fs.ErrNotExist) {
		authority, err = connectplugin.NewAuthority(config)
	}

	if err != nil {
		return err
	}

	// The host renews them as long as it runs. Another machine gets its directory by hand, or as a mounted secret.
	for _, plugin := range []string{"logger", "app"} {
		if err := authority.WriteCredentials("run/"+plugin, plugin); err != nil {
			return err
		}
	}

	return connectplugin.Serve(&connectplugin.ServeConfig{
		Addr:      addr,
		Hosts:     []string{name, "localhost", "127.0.0.1", "::1"},
		Authority: authority,
		Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			// It says where it is called, on its own address; Endpoint would say it here.
			"logger": {Provides: []string{"logger"}, AllowOwnAddress: true},
			"app":    {Requires: []string{"logger"}},
		}},
		Logger: slog.Default(),
	})
}

//docs:end
