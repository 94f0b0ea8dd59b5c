// Command host is the host of three plugins in three languages. It writes the credentials of each into run/NAME.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8443", "the address to listen on")
	run := flag.String("run", "run", "the directory for the authority and the credentials")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := serve(ctx, *addr, *run)
	stop()

	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, addr, run string) error {
	config := connectplugin.AuthorityConfig{Dir: filepath.Join(run, "authority")}

	authority, err := connectplugin.LoadAuthority(config)
	if errors.Is(err, fs.ErrNotExist) {
		authority, err = connectplugin.NewAuthority(config)
	}

	if err != nil {
		return err
	}

	// Each language provides its relay and may call those of the others.
	all := []string{"relay.go", "relay.node", "relay.python"}
	plugins := map[string]connectplugin.PluginPolicy{"play": {Requires: all}}

	for _, language := range []string{"go", "node", "python"} {
		plugins[language] = connectplugin.PluginPolicy{Provides: []string{"relay." + language}, Requires: all, AllowOwnAddress: true}
	}

	for name := range plugins {
		if err := authority.WriteCredentials(filepath.Join(run, name), name); err != nil {
			return err
		}
	}

	return connectplugin.Serve(&connectplugin.ServeConfig{
		Addr: addr, Authority: authority, Policy: &connectplugin.Policy{Plugins: plugins}, Logger: slog.Default(), StopCh: ctx.Done(),
	})
}
