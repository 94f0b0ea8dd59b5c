package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/bench/attack/kinds"
	"github.com/masegraye/connect-plugin-go/bench/stage"
)

const (
	quiet = time.Second          // how long the probe calls before the attack
	pause = 4 * time.Millisecond // of the probe, from call to call
)

// play is a run of the command, or what one of its processes is told.
type play struct {
	only    string
	lasts   time.Duration
	dir     string
	addr    string
	profile string
}

func (p *play) list(w io.Writer) error {
	for _, k := range kinds.All() {
		if _, err := fmt.Fprintf(w, "%s: %s\n", k.Who, k.Name); err != nil {
			return fmt.Errorf("list: %w", err)
		}
	}
	return nil
}

// all plays the attacks and prints a row for each.
func (p *play) all(ctx context.Context, w io.Writer) error {
	chosen := kinds.Named(p.only)
	if len(chosen) == 0 {
		return errKind
	}
	var err error
	if p.dir, err = os.MkdirTemp("", "attack"); err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(p.dir) }()
	authority, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{Dir: p.dir})
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	t := table{out: w}
	t.begin()
	for _, k := range chosen {
		r, err := p.play(ctx, authority, k)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", k.Who, k.Name, err)
		}
		t.add(r)
	}
	return t.end()
}

// scene is a host with an honest provider and an honest caller.
type scene struct {
	host, provider *stage.Process
	probe          *stage.Caller
}

func (p *play) open(ctx context.Context, authority *connectplugin.Authority) (s *scene, err error) {
	s = &scene{}
	defer func() {
		if err != nil {
			s.close(ctx)
		}
	}()
	if s.host, err = stage.Start(ctx, roleHost, "-dir", p.dir, "-profile", p.profile); err != nil {
		return s, err
	}
	p.addr = s.host.Said
	if s.provider, err = stage.Start(ctx, roleProvider, "-dir", p.dir, "-addr", p.addr); err != nil {
		return s, err
	}
	s.probe, err = stage.Connect(ctx, authority, p.addr, stage.Probe, stage.Echo)
	if err == nil {
		err = s.probe.Await(ctx)
	}
	return s, err
}

func (s *scene) close(ctx context.Context) {
	if s.probe != nil {
		s.probe.Close(ctx)
	}
	for _, p := range []*stage.Process{s.provider, s.host} {
		if p != nil {
			p.Kill()
		}
	}
}

// play plays one attack on a host that is new.
func (p *play) play(ctx context.Context, authority *connectplugin.Authority, k kinds.Kind) (row, error) {
	r := row{kind: k, lasts: p.lasts}
	s, err := p.open(ctx, authority)
	if err != nil {
		return r, err
	}
	defer s.close(ctx)
	r.quiet = s.measure(ctx, quiet)
	var before stage.Rest
	if err := s.host.Ask(stage.WordRest, &before); err != nil {
		return r, err
	}
	if err := p.attack(ctx, s, &r); err != nil {
		return r, err
	}
	if k.Who != kinds.Plugin {
		return r, nil
	}
	// A program outside burns what the attacker, the host and the provider used, for as long.
	active := p.lasts
	if r.outcome.CutAfter > 0 {
		active = min(active, r.outcome.CutAfter)
	}
	burner, err := stage.Start(ctx, roleBurner, "-cores", fmt.Sprint(r.used().Seconds()/active.Seconds()), "-for", active.String())
	if err != nil {
		return r, err
	}
	r.control = s.measure(ctx, p.lasts)
	_, err = burner.End()
	return r, err
}

// attack attacks, and notes what the host used and what the probe noticed.
func (p *play) attack(ctx context.Context, s *scene, r *row) error {
	start, err := s.usage()
	if err != nil {
		return err
	}
	watch := s.host.Watch(ctx)
	name := r.kind.Who + ": " + r.kind.Name
	attacker, err := stage.Start(ctx, roleAttacker, "-dir", p.dir, "-addr", p.addr, "-only", name, "-for", p.lasts.String())
	if err != nil {
		watch()
		return err
	}
	if p.profile != "" {
		var on bool
		_ = s.host.Ask(stage.WordProfile, &on)
		defer func() { _ = s.host.Ask(stage.WordProfile, &on) }()
	}
	r.loud = s.measure(ctx, p.lasts)
	if err := attacker.Hear(&r.outcome); err != nil {
		watch()
		return err
	}
	r.attacker, err = attacker.End()
	end, errUsage := s.usage()
	r.memory = watch() - start[0].Resident
	if err == nil {
		err = errUsage
	}
	r.host, r.provider = end[0].CPU-start[0].CPU, end[1].CPU-start[1].CPU
	return err
}

// usage is what the host and the provider use.
func (s *scene) usage() (u [2]stage.Usage, err error) {
	for i, p := range []*stage.Process{s.host, s.provider} {
		if u[i], err = p.Usage(); err != nil {
			return u, err
		}
	}
	return u, nil
}

// measure has the probe call for a time.
func (s *scene) measure(ctx context.Context, d time.Duration) probed {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var p probed
	p.times, p.failed, p.last = s.probe.Probe(ctx, pause)
	return p
}
