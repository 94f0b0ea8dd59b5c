// Package cli is what the programs of the example have in common: signals, exit
// codes, and how a plugin finds its host and proves who it is.
package cli

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// Main runs a program until it returns or the process gets SIGINT or SIGTERM,
// which ends ctx. An error goes to standard error, and the exit code is 1.
func Main(run func(ctx context.Context) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(os.Args[0]), err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has run
	}
}

// Logger returns a logger to standard error.
func Logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, nil))
}

// PluginFlags are the flags of every plugin.
type PluginFlags struct {
	selfID            string
	host, dir, listen *string
}

// NewPluginFlags defines the flags of the plugin with a self id. The program
// calls flag.Parse.
func NewPluginFlags(selfID string) PluginFlags {
	return PluginFlags{
		selfID: selfID,
		host:   flag.String("host", "https://127.0.0.1:8443", "`URL` of the host"),
		dir:    flag.String("dir", filepath.Join("plugins", selfID), "`directory` of the plugin's credentials, as \"host enrol\" wrote them"),
		listen: flag.String("listen", "", "`address` to listen on, at which the host reaches the plugin; empty is any free port on loopback"),
	}
}

// Addr is the address that the plugin listens on.
func (f PluginFlags) Addr() string { return *f.listen }
