// Command attack attacks a host of its own in every way that package kinds knows, a few
// seconds each, with four honest callers beside it. It prints per attack when the attacker was
// cut off, or that what it costs is bounded; what the host used; and what the honest callers
// noticed. It fails where an attacker was neither cut off nor bounded, and where an honest
// call failed.
//
// A bad plugin takes turns with two things that it is compared with: a program outside that burns as much processor
// time as host, provider and attacker used beyond what honest calls do, at the same moments of its turn; and another
// host that is attacked in the same way. How much worse the 99th percentile is comes with an interval, drawn from pairs
// of turns; a few rounds, or a longer -for, make it narrow. In a turn of a few seconds it is decided by the first
// tenth of a second, in which whatever is bounded begins at once: so a turn has 20 seconds, and the 99th percentile of
// its first second stands beside that of all (attack, burner, other host). -turn says how long a turn is. With -itself the
// other host stands on both sides: what is printed then is what the comparison is worth on a machine.
//
// Strangers and hostile providers are compared with a host that nobody attacks, for as long: they take the processors that
// the others leave (chrt(1)), as if they were on a machine of their own, unless -yield=false; and with calls beside the
// same attack on another host of this machine, which says what of the difference is the machine's.
//
// The host, the honest provider and the attacker are processes of their own, on loopback.
//
// Usage:
//
//	attack [-only TEXT] [-for 5s] [-turn 20s] [-rounds 1] [-itself] [-yield=false] [-defaults] [-list]
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/bench/attack/kinds"
	"github.com/masegraye/connect-plugin-go/bench/stage"
)

// Roles of the processes that the command starts.
const (
	roleHost     = "host"
	roleProvider = "provider"
	roleAttacker = "attacker"
	roleBurner   = "burner"
)

const (
	lasts = 5 * time.Second
	turn  = 20 * time.Second
)

var (
	errRole = errors.New("no such role")
	errKind = errors.New("no attack has such a name; -list lists them")
)

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
	var p play
	role := flag.String("role", "", "of a process that the command starts")
	list := flag.Bool("list", false, "list the attacks")
	flag.StringVar(&p.only, "only", "", "play attacks whose names contain this")
	flag.DurationVar(&p.lasts, "for", 0, "how long each attack lasts, three minutes at most (default 5s, and a turn for a bad plugin)")
	flag.StringVar(&p.dir, "dir", "", "of the authority")
	curve := flag.String("curve", "", "file of the curve that a burner follows")
	flag.StringVar(&p.addr, "addr", "", "of the host, on loopback")
	flag.StringVar(&p.profile, "profile", "", "write profiles of the host during the last attack to this file, with .cpu and .heap after it")
	flag.DurationVar(&p.turn, "turn", turn, "how long a bad plugin attacks until it is the turn of what it is compared with")
	flag.IntVar(&p.rounds, "rounds", 1, "how often each attack is played; what is measured is of all of them")
	flag.BoolVar(&p.itself, "itself", false, "play the control twice and compare it with itself: what a bad plugin is compared by")
	flag.BoolVar(&p.yields, "yield", true, "have whoever is no plugin leave the processors to others, as if it were at another machine")
	flag.BoolVar(&p.defaults, "defaults", false, "a host with the default limits, not those of a small machine")
	flag.Parse()
	switch {
	case *role == roleBurner:
		return burn(ctx, *curve)
	case *role != "":
		return p.role(ctx, *role)
	case *list:
		return p.list(os.Stdout)
	}
	return p.all(ctx, os.Stdout)
}

// burn is a process that burns processor time, as the curve in a file has it.
func burn(ctx context.Context, path string) error {
	var c stage.Curve
	curve, err := os.ReadFile(filepath.Clean(path))
	if err == nil {
		err = json.Unmarshal(curve, &c)
	}
	if err != nil {
		return fmt.Errorf("curve: %w", err)
	}
	if err := stage.Tell("ready"); err != nil {
		return err
	}
	stage.Burn(ctx, c)
	return stage.Tell("done")
}

// role is a process that has the authority.
func (p *play) role(ctx context.Context, role string) error {
	authority, err := stage.Authority(p.dir)
	if err != nil {
		return err
	}
	switch role {
	case roleHost:
		cfg := stage.HostConfig(authority)
		if p.defaults {
			// Nobody is cut off for silence before the attack is over, however slow the machine is.
			cfg.Limits = connectplugin.Limits{WriteTimeout: 2 * kinds.MostTime, KeepAliveInterval: 2 * kinds.MostTime}
		}
		return stage.ServeHost(ctx, cfg, p.profile)
	case roleProvider:
		return stage.ServeProvider(ctx, authority, p.addr)
	case roleAttacker:
		for _, k := range kinds.All() {
			if k.Who+": "+k.Name != p.only {
				continue
			}
			if err := stage.Tell("ready"); err != nil {
				return err
			}
			outcome, err := k.Play(ctx, authority, p.addr, p.lasts)
			if err != nil {
				return err
			}
			return stage.Tell(outcome)
		}
		return errKind
	}
	return fmt.Errorf("%w: %q", errRole, role)
}
