// Command router measures what a routed call costs: the same calls without a
// router, through a bare [net/http/httputil.ReverseProxy] with net/http on every
// side, and through a host with authentication, policy, limits and audit to a plugin:
// once called with net/http, and once as a user has it, with Client.Service.
//
//	router [-round 500ms] [-rounds 14] [-profile DIR]
//
// Caller, host, bare proxy and provider are processes of their own, connected over
// TLS 1.3 and HTTP/2 on loopback. The ways take turns within each round, so that
// whatever else the machine does meets all of them alike.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const (
	defaultRound  = 500 * time.Millisecond
	defaultRounds = 14
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "router:", err)
		os.Exit(1)
	}
}

// role is what a process that the command starts needs to know.
type role struct {
	name     string
	dir      string
	host     string
	provider string
}

func command(ctx context.Context, args []string) error {
	var p plan
	var r role
	flags := flag.NewFlagSet("router", flag.ContinueOnError)
	flags.DurationVar(&p.round, "round", defaultRound, "how long each way is measured in each round")
	flags.IntVar(&p.rounds, "rounds", defaultRounds, "rounds for each row")
	flags.IntVar(&p.held, "held", heldStreams, "streams held open to measure their memory")
	flags.StringVar(&p.only, "only", "", "measure only the rows whose name contains this, for example 'unary 256 B x 32'")
	flags.StringVar(&p.profiles, "profile", "", "directory for CPU profiles of the host and the bare proxy, one for each row")
	flags.StringVar(&r.name, "role", "", "what a process is that the command starts: host, proxy, provider, plain or caller")
	flags.StringVar(&r.dir, "dir", "", "directory of the authority that all processes share")
	flags.StringVar(&r.host, "host", "", "URL of the host")
	flags.StringVar(&r.provider, "provider", "", "URL of the provider")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", errOrder, err)
	}
	switch r.name {
	case "":
		return p.run(ctx, os.Stdout)
	case roleHost:
		return serveHost(ctx, r.dir)
	case roleProxy:
		return serveProxy(ctx, r.dir, r.provider)
	case roleProvider:
		return serveProvider(ctx, r.dir, r.host)
	case rolePlain:
		return servePlain(ctx, r.dir)
	case roleCaller:
		return serveCaller(ctx, r.dir, r.host)
	default:
		return fmt.Errorf("%w: -role %q", errOrder, r.name)
	}
}
