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
  connectplugin-conformance serve plugin|host            is such a program itself, on this library
  connectplugin-conformance serve first|first host       is a plugin, or a host, of the first version of the wire
flags:
  -first-version    the peer speaks the first version of the wire; rows that it cannot have are left out
  -protocols LIST   that a plugin's services are served in, of connect,grpc,grpcweb (which is the default)
  -v                print what all programs log
`

// options are what the command line says.
type options struct {
	command   []string
	first     bool      // the peer speaks the first version of the wire
	protocols string    // that the peer speaks
	verbose   io.Writer // of logs; nil for none
	lenient   bool      // plays every row with a peer that proves nothing, to see them fail
}

// unproven reports whether the peer proves no secret.
func (o *options) unproven() bool { return o.first || o.lenient }

func main() {
	err := untilSignal(func(ctx context.Context) error { return run(ctx, os.Args[1:], os.Stdout) })
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func untilSignal(f func(context.Context) error) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return f(ctx)
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
	t := &table{out: out, first: o.first, limit: rowTime}
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
	set.SetOutput(io.Discard) // the error says what is wrong, and usage what there is
	set.BoolVar(&o.first, "first-version", false, "")
	set.StringVar(&o.protocols, "protocols", "connect,grpc,grpcweb", "")
	verbose := set.Bool("v", false, "")
	if err := set.Parse(args); err != nil {
		return nil, fmt.Errorf("%w\n%w", err, errUsage)
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
