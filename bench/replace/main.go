// Command replace measures what a replacement of a launched plugin costs its callers: it
// replaces a plugin again and again under constant unary load, of the host itself and of
// another plugin through the router, with streams open all the while.
//
// Usage:
//
//	replace [-n 50] [-streams 100] [-callers 8]
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

const (
	defaultReplacements = 50
	defaultStreams      = 100
	defaultCallers      = 8
)

func main() {
	run := command
	if connectplugin.Launched() {
		run = plugin
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var errNothing = errors.New("nothing to measure: -n and -callers have to be 1 at least, -streams 0")

func command(ctx context.Context) error {
	var p plan
	flag.IntVar(&p.replacements, "n", defaultReplacements, "replacements")
	flag.IntVar(&p.streams, "streams", defaultStreams, "open streams")
	flag.IntVar(&p.callers, "callers", defaultCallers, "callers of each kind")
	flag.Parse()
	if p.replacements < 1 || p.streams < 0 || p.callers < 1 {
		return errNothing
	}
	return p.measure(ctx, os.Stdout)
}
