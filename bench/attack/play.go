package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
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
	rounds  int
	round   int // that is played
	lasts   time.Duration
	dir     string
	addr    string
	profile string

	defaults bool // of the limits
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
		var r row
		for p.round = range p.rounds {
			again, err := p.play(ctx, authority, k)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", k.Who, k.Name, err)
			}
			r.join(again)
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
	s.host, err = stage.Start(ctx, roleHost, "-dir", p.dir, "-profile", p.profile, "-defaults="+strconv.FormatBool(p.defaults))
	if err != nil {
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

// play plays one attack on a host that is new. Whether the control comes before it or after
// alternates, so that rounds see what the machine does meanwhile alike.
func (p *play) play(ctx context.Context, authority *connectplugin.Authority, k kinds.Kind) (r row, err error) {
	r = row{kind: k, lasts: p.lasts, most: mostMemory}
	if p.defaults {
		r.most = mostByRule
	}
	s, err := p.open(ctx, authority)
	if err != nil {
		return r, err
	}
	defer s.close(ctx)
	if p.round == 0 {
		r.quiet = s.measure(ctx, quiet)
	}
	controlled := k.Who == kinds.Plugin
	if controlled && p.round%2 == 1 {
		if err := p.control(ctx, authority, s, k, &r); err != nil {
			return r, err
		}
	}
	if err := p.loud(ctx, s, k, &r); err != nil {
		return r, err
	}
	if controlled && p.round%2 == 0 {
		err = p.control(ctx, authority, s, k, &r)
	}
	return r, err
}

// loud has the probe call while its own host is attacked.
func (p *play) loud(ctx context.Context, s *scene, k kinds.Kind, r *row) error {
	if err := s.rest(); err != nil {
		return err
	}
	begun, err := s.usage()
	if err != nil {
		return err
	}
	watch := s.host.Watch(ctx)
	played, err := p.attack(ctx, s, s, k)
	r.memory = watch() - begun[0].Resident
	r.loud, r.outcome, r.host, r.used = turns{played.probed}, played.outcome, played.host, played.used
	return err
}

// control has the probe call while programs outside use as much of the processors as the attack
// did, at the same moments and with as many threads: a host of its own is attacked in the same way.
func (p *play) control(ctx context.Context, authority *connectplugin.Authority, s *scene, k kinds.Kind, r *row) error {
	elsewhere := *p
	elsewhere.profile = ""
	other, err := elsewhere.open(ctx, authority)
	if err != nil {
		return err
	}
	defer other.close(ctx)
	for _, rests := range []*scene{s, other} {
		if err := rests.rest(); err != nil {
			return err
		}
	}
	played, err := elsewhere.attack(ctx, s, other, k)
	r.control, r.elsewhere = turns{played.probed}, played.used
	return err
}

// played is what came of an attack.
type played struct {
	probed  probed
	outcome kinds.Outcome
	host    time.Duration // of processors, that the host used
	used    time.Duration // and everybody who took part
}

// attack has a host attacked while the probe of a scene calls, which may be that of another one.
func (p *play) attack(ctx context.Context, s, attacked *scene, k kinds.Kind) (r played, err error) {
	scenes := []*scene{s}
	if attacked != s {
		scenes = append(scenes, attacked)
	}
	attacker, err := stage.Start(ctx, roleAttacker, "-dir", p.dir, "-addr", p.addr, "-only", k.Who+": "+k.Name, "-for", p.lasts.String())
	if err != nil {
		return r, err
	}
	before, err := usages(scenes)
	if err != nil {
		attacker.Kill()
		return r, err
	}
	if p.profile != "" {
		var on bool
		_ = s.host.Ask(stage.WordProfile, &on)
		defer func() { _ = s.host.Ask(stage.WordProfile, &on) }()
	}
	r.probed = s.measure(ctx, p.lasts)
	if err := attacker.Hear(&r.outcome); err != nil {
		attacker.Kill()
		return r, err
	}
	if r.used, err = attacker.End(); err != nil {
		return r, err
	}
	after, err := usages(scenes)
	for i := range after {
		r.used += after[i].CPU - before[i].CPU
	}
	if err == nil {
		r.host = after[0].CPU - before[0].CPU
	}
	return r, err
}

// usages is what the hosts and the providers of scenes use.
func usages(scenes []*scene) (all []stage.Usage, err error) {
	for _, s := range scenes {
		u, err := s.usage()
		if err != nil {
			return nil, err
		}
		all = append(all, u[:]...)
	}
	return all, nil
}

// rest lets the host rest.
func (s *scene) rest() error {
	var after stage.Rest
	return s.host.Ask(stage.WordRest, &after)
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
