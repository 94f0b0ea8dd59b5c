// Command recovery measures how plugins come back: it kills a host, a provider and all
// providers, and replaces a provider, while every provider is called through the host, and
// prints per case the calls that failed by code, the time until the first and 95 % and all
// of the providers were reached again, the identities that the host gave and renewed, the
// connections that it accepted, the processor time of the host, of the plugins and of
// the callers, and by how much each of them was late at most where it wanted to go on after a
// pause. Of the calls whose time was over it says how many had reached a provider.
//
// The host and the providers are processes of their own. Many plugins share a process, each
// with an identity, a connection and a server of its own.
//
// Usage:
//
//	recovery [-n 1,100,1000] [-watches 5] [-only "host killed"] [-restarts 20] [-profile DIR]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

var errRole = errors.New("no such role")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var s site
	role := flag.String("role", "", "of a process that the command starts")
	sizes := flag.String("n", "1,100,1000", "numbers of plugins")
	restarts := flag.Int("restarts", defaultRestarts, "restarts of the host of one plugin, of which the median is told; 0 leaves them out")
	flag.IntVar(&s.perAddress, "per-address", unlimited, "Limits.MaxConnectionsPerPeer of the host; 0 is the default")
	flag.IntVar(&s.watches, "watches", defaultWatches, "of each plugin")
	flag.StringVar(&s.only, "only", "", "play the cases alone whose name contains this")
	flag.StringVar(&s.profiles, "profile", "", "write profiles of the processor of each process and case to this directory")
	flag.StringVar(&s.dir, "dir", "", "of the authority")
	flag.StringVar(&s.addr, "addr", "", "of the host")
	flag.IntVar(&s.first, "first", 0, "number of the first plugin")
	flag.IntVar(&s.plugins, "plugins", 0, "how many plugins")
	flag.Parse()
	if *role == "" {
		return errors.Join(measureAll(ctx, *sizes, s), measureRestarts(ctx, s, *restarts, os.Stdout))
	}
	if s.profiles != "" {
		profiling := profile(filepath.Join(s.profiles, *role+strconv.Itoa(os.Getpid())))
		defer profiling()
	}
	switch *role {
	case roleHost:
		return s.host(ctx)
	case rolePlugins:
		return s.provide(ctx)
	}
	return fmt.Errorf("%w: %q", errRole, *role)
}

func measureAll(ctx context.Context, sizes string, s site) error {
	for size := range strings.SplitSeq(sizes, ",") {
		if size == "" {
			continue // only restarts
		}
		n, err := strconv.Atoi(size)
		if err != nil {
			return fmt.Errorf("-n: %w", err)
		}
		if err := measure(ctx, s, n, os.Stdout); err != nil {
			return fmt.Errorf("%d plugins: %w", n, err)
		}
	}
	return nil
}
