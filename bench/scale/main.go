// Command scale measures what connected plugins cost their host: so many plugins enrol,
// register a service, watch five types each, and are asked for their health. It prints the
// host's memory and processor time per plugin while nothing happens, the time of one change
// to the last watcher, and the time to enrol them all.
//
// The host is a process of its own, and the plugins share another one, each with an
// identity, a connection and a server of its own.
//
// Usage:
//
//	scale [-n 100,1000,5000] [-idle 20s] [-profile FILE]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/masegraye/connect-plugin-go/bench/stage"
)

const (
	roleHost    = "host"
	rolePlugins = "plugins"

	idleTime = time.Minute // in which 5,000 plugins report once
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
	var b bench
	role := flag.String("role", "", "of a process that the command starts")
	sizes := flag.String("n", "100,1000,5000", "numbers of plugins")
	flag.DurationVar(&b.idle, "idle", idleTime, "how long the host is looked at while nothing happens")
	flag.StringVar(&b.profile, "profile", "", "write profiles of the idle host to this file, with .cpu and .heap after it")
	flag.StringVar(&b.dir, "dir", "", "of the authority")
	flag.StringVar(&b.addr, "addr", "", "of the host")
	flag.IntVar(&b.n, "plugins", 0, "how many plugins a process has")
	flag.Parse()
	if *role == "" {
		return b.measureAll(ctx, *sizes)
	}
	authority, err := stage.Authority(b.dir)
	if err != nil {
		return err
	}
	switch *role {
	case roleHost:
		return stage.ServeHost(ctx, hostConfig(authority), b.profile)
	case rolePlugins:
		return (&plugins{addr: b.addr, n: b.n, authority: authority}).serve(ctx)
	}
	return fmt.Errorf("%w: %q", errRole, *role)
}

func (b *bench) measureAll(ctx context.Context, sizes string) error {
	begin(os.Stdout)
	for size := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.Atoi(size)
		if err != nil {
			return fmt.Errorf("-n: %w", err)
		}
		one := bench{n: n, idle: b.idle, profile: b.profile}
		r, err := one.measure(ctx)
		if err != nil {
			return fmt.Errorf("%d plugins: %w", n, err)
		}
		r.print(os.Stdout)
	}
	reach(os.Stdout)
	return nil
}
