// Package devhost is what the hosts of the small examples have in common: an authority
// in run/authority, and the credentials of their programs in run/NAME.
package devhost

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// Main runs a program until it returns or the process gets SIGINT or SIGTERM, which
// ends ctx. An error goes to standard error, and the exit code is 1.
func Main(run func(ctx context.Context) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has run
	}
}

// Serve parses the flag -addr and serves a host until SIGINT or SIGTERM. It fills in
// what the configuration says nothing about: Addr, Authority and Logger. names are the
// self ids that get credentials.
func Serve(cfg *connectplugin.ServeConfig, names ...string) error {
	addr := flag.String("addr", "127.0.0.1:8443", "the address to listen on")
	flag.Parse()

	authority, err := Authority(names...)
	if err != nil {
		return err
	}

	cfg.Addr, cfg.Authority, cfg.Logger = *addr, authority, slog.Default()

	return connectplugin.Serve(cfg)
}

// Authority returns the authority in run/authority, a new one the first time, and
// writes credentials to run/NAME.
func Authority(names ...string) (*connectplugin.Authority, error) {
	config := connectplugin.AuthorityConfig{Dir: "run/authority"}

	authority, err := connectplugin.LoadAuthority(config)
	if errors.Is(err, fs.ErrNotExist) {
		authority, err = connectplugin.NewAuthority(config)
	}

	if err != nil {
		return nil, err
	}

	for _, name := range names {
		if err := authority.WriteCredentials("run/"+name, name); err != nil {
			return nil, err
		}
	}

	return authority, nil
}

// ClientConfig parses the flags, -host among them, and returns how a program reaches its
// host, with its credentials in run/NAME. The self id may be the value of a flag.
func ClientConfig(name *string) (connectplugin.ClientConfig, error) {
	host := flag.String("host", "https://127.0.0.1:8443", "the host's base URL")
	flag.Parse()

	selfID := *name

	tls, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: "run/" + selfID})
	if err != nil {
		return connectplugin.ClientConfig{}, err
	}

	return connectplugin.ClientConfig{HostURL: *host, SelfID: selfID, TLS: tls, Logger: slog.Default()}, nil
}
