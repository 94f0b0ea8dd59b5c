// Command interop lets real servers and clients of other libraries call one another
// through a real host and prints a table of peers and cases.
//
//	interop [-pairs all] [-only CASE,…] [-silence 10m] [-list] [-front]
//
// Every server and client is a process of its own, on loopback. What is not
// installed is named and left out; interop/setup.sh installs it. A case that fails is
// played once more without the host, so that the table tells what fails with it from
// what fails without it, too.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

const (
	defaultSilence = 10 * time.Minute
	defaultStreams = 1000
	defaultLarge   = 30 << 20
)

var (
	errUsage = errors.New("wrong use")
	errRed   = errors.New("cases failed")
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		os.Exit(1)
	}
}

// options are what the flags say.
type options struct {
	pairs   string
	only    string
	silence time.Duration
	streams int
	large   int
	peers   string // directory of the programs of other languages
	cache   string // directory where their packages are installed
	list    bool
	front   bool
	verbose bool
}

func command(ctx context.Context, args []string) error {
	var o options
	var serve, call, name string
	cache, err := os.UserCacheDir()
	if err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	flags := flag.NewFlagSet("interop", flag.ContinueOnError)
	flags.StringVar(&o.pairs, "pairs", "", "PROVIDER:CALLER,… or all; empty is all of them, with Go on one side")
	flags.StringVar(&o.only, "only", "", "play only these cases, for example unary,kill")
	flags.DurationVar(&o.silence, "silence", defaultSilence, "how long a stream is quiet; 0 leaves the case out")
	flags.IntVar(&o.streams, "streams", defaultStreams, "streams that are open at once")
	flags.IntVar(&o.large, "large", defaultLarge, "bytes of a large message")
	flags.StringVar(&o.peers, "peers", "peers", "directory of the peers' programs")
	flags.StringVar(&o.cache, "cache", filepath.Join(cache, "connectplugin", "interop"), "directory into which setup.sh installed packages")
	flags.BoolVar(&o.list, "list", false, "list the peers and what is not installed")
	flags.BoolVar(&o.front, "front", false, "play the balancers in front of the host alone")
	flags.BoolVar(&o.verbose, "v", false, "say how each case went as soon as it has")
	flags.StringVar(&serve, "serve", "", "what a process is that the command starts: a provider of this name")
	flags.StringVar(&call, "call", "", "what a process is that the command starts: a caller of this name")
	flags.StringVar(&name, "case", "", "the case that the caller plays")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	switch {
	case serve != "":
		return serveRole(ctx, serve)
	case call != "":
		return callRole(ctx, call, name)
	default:
		return o.run(ctx, os.Stdout)
	}
}
