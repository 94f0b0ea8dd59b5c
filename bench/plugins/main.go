// Command plugins measures launched plugins of this library beside those of
// hashicorp/go-plugin with AutoMTLS: the same trivial service, hosts and plugins in processes
// of their own, in turns.
//
// Usage:
//
//	plugins -programs DIR [-starts 200] [-launches 200] [-rounds 5] [-time 1s] [-many 10]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Defaults of the flags.
const (
	defaultStarts   = 200
	defaultLaunches = 200
	defaultRounds   = 5
	defaultMany     = 10
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var errNothing = errors.New("nothing to measure: every number and the time have to be above 0")

func command(ctx context.Context) error {
	var p plan
	flag.StringVar(&p.programs, "programs", "", "directory with the built programs own, ownplugin, theirs and plugin")
	flag.IntVar(&p.starts, "starts", defaultStarts, "measured starts")
	flag.IntVar(&p.launches, "launches", defaultLaunches, "launches of which a tenth is killed")
	flag.IntVar(&p.rounds, "rounds", defaultRounds, "rounds of calls")
	flag.DurationVar(&p.time, "time", time.Second, "time of calls in each round")
	flag.IntVar(&p.many, "many", defaultMany, "plugins at the same time, for their memory")
	flag.Parse()
	if min(p.starts, p.launches, p.rounds, p.many) < 1 || p.time <= 0 {
		return errNothing
	}
	return p.measure(ctx, os.Stdout)
}
