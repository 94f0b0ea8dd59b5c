// Command conformance runs Connect's own conformance suite
// (https://github.com/connectrpc/conformance) with the router between the client
// and the server, over TLS and HTTP/2 on both hops.
//
//	conformance run -programs DIR -config FILE
//
// starts the suite's runner three times, with this program as the client under test and
// as the server under test. As either it starts the suite's reference client or
// server and puts a host between it and the runner's other side, so that the
// reference implementations at both ends judge the router alone. The third time the host
// launches a plugin that passes on to the reference server what it is asked, so that its own
// server is judged, too.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

var errUsage = errors.New("usage: conformance run|client|server|launched [flags]")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	if connectplugin.Launched() {
		return servePlugin(ctx, args)
	}
	if len(args) == 0 {
		return errUsage
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	programs := flags.String("programs", "", "directory of the suite's programs")
	config := flags.String("config", "conformance/config.yaml", "configuration of the suite, for run")
	tallies := flags.String("tallies", "", "directory for the counts of the routers, for client and server")
	if err := flags.Parse(args[1:]); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	switch args[0] {
	case "run":
		return run(ctx, *programs, *config, flags.Args())
	case "client":
		return serveClient(ctx, *programs, *tallies)
	case "server":
		return serveServer(ctx, *programs, *tallies, newBridge)
	case "launched":
		return serveServer(ctx, *programs, *tallies, newLaunchedBridge)
	default:
		return errUsage
	}
}
