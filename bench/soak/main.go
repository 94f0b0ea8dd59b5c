// Command soak puts a host of its own under mixed load, honest and hostile, for ten minutes,
// and looks what is left afterwards: goroutines, descriptors and memory of the host have to
// be where they began. It fails where they are not, and where an honest call failed.
//
// Usage:
//
//	soak [-for 10m]
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

	"github.com/masegraye/connect-plugin-go/bench/attack/kinds"
	"github.com/masegraye/connect-plugin-go/bench/stage"
)

// Roles of the processes that the command starts.
const (
	roleHost     = "host"
	roleProvider = "provider"
	roleAttacker = "attacker"
)

const (
	lasts  = 10 * time.Minute
	attack = 2 * time.Second // of one kind

	// An attacker that does not give its identity back loses it soon, so that the soak sees the end of it.
	interval = 5 * time.Second
	lease    = 20 * time.Second
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
	var s soak
	role := flag.String("role", "", "of a process that the command starts")
	flag.DurationVar(&s.lasts, "for", lasts, "how long the load lasts")
	flag.StringVar(&s.dir, "dir", "", "of the authority")
	flag.StringVar(&s.addr, "addr", "", "of the host")
	flag.StringVar(&s.profile, "profile", "", "write the host's heap after the soak to this file, with .heap after it")
	kind := flag.Int("kind", 0, "of an attacker, by number")
	flag.Parse()
	if *role == "" {
		return s.measure(ctx, os.Stdout)
	}
	authority, err := stage.Authority(s.dir)
	if err != nil {
		return err
	}
	switch *role {
	case roleHost:
		cfg := stage.HostConfig(authority)
		cfg.HealthProbe.Interval, cfg.HealthProbe.Lease = interval, lease
		return stage.ServeHost(ctx, cfg, s.profile)
	case roleProvider:
		return stage.ServeProvider(ctx, authority, s.addr)
	case roleAttacker:
		if err := stage.Tell("ready"); err != nil {
			return err
		}
		all := kinds.All()
		outcome, err := all[*kind%len(all)].Play(ctx, authority, s.addr, s.lasts)
		if err != nil {
			outcome.Reason = err.Error() // a host that is busy with others sends attackers away, too
		}
		return stage.Tell(outcome)
	}
	return fmt.Errorf("%w: %q", errRole, *role)
}
