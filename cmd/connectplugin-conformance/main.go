// Command connectplugin-conformance plays host to a plugin, or plugin to a host, in any language, and prints a table of what
// holds of docs/protocol.md. README.md beside it says what the program under test has to do.
package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"connectrpc.com/connect"
)

// Names that are shorter here.
type (
	connectInterceptor = connect.Interceptor
	clientOption       = connect.ClientOption
	tlsConfig          = tls.Config
)

const usage = `usage:
  connectplugin-conformance plugin [flags] -- COMMAND…   plays host to the plugin that COMMAND starts
  connectplugin-conformance host [flags] -- COMMAND…     plays plugins to the host that COMMAND starts
  connectplugin-conformance serve plugin|host|first      is such a program itself, on this library
`

// options are what the command line says.
type options struct {
	command   []string
	first     bool      // the peer speaks the first version of the wire
	protocols string    // that the peer speaks
	verbose   io.Writer // of logs; nil for none
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var errUsage = errors.New(strings.TrimSpace(usage))

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errUsage
	}
	role, rest := args[0], args[1:]
	if role == "serve" {
		return serveRole(ctx, strings.Join(rest, " "))
	}
	o, err := parse(role, rest)
	if err != nil {
		return err
	}
	t := &table{out: out, first: o.first}
	switch role {
	case "plugin":
		playHost(ctx, o, t)
	case "host":
		playPlugins(ctx, o, t)
	default:
		return errUsage
	}
	return t.end()
}

func parse(role string, args []string) (*options, error) {
	o := &options{}
	set := flag.NewFlagSet(role, flag.ContinueOnError)
	set.BoolVar(&o.first, "first-version", false, "the peer speaks the first version of the wire; rows that it cannot have are left out")
	set.StringVar(&o.protocols, "protocols", "connect,grpc,grpcweb", "the protocols that a plugin's services are served in")
	verbose := set.Bool("v", false, "print what the program under test and the kit's own host and plugins log")
	if err := set.Parse(args); err != nil {
		return nil, fmt.Errorf("flags: %w", err)
	}
	if *verbose {
		o.verbose = os.Stderr
	}
	if o.command = set.Args(); len(o.command) == 0 {
		return nil, errUsage
	}
	return o, nil
}

func newSecret() []byte {
	secret := make([]byte, secretBytes)
	_, _ = rand.Read(secret)
	return secret
}
