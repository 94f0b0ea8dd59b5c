package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/bench/attack/kinds"
	"github.com/masegraye/connect-plugin-go/bench/stage"
)

const (
	quiet = time.Second // how long the probes call before a bad plugin attacks

	settling = 100 * time.Millisecond // between turns
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

	apart float64       // processors that honest calls use in host and provider
	turn  time.Duration // of an attack, or of what it is compared with
	curve stage.Curve   // of the last attack: what it made host and provider use, and the attacker used

	defaults bool // of the limits
	itself   bool // the control is compared with itself
	yields   bool // whoever attacks, and is no plugin, takes the processors that others leave
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

// scene is a host with an honest provider and honest callers.
type scene struct {
	addr           string
	host, provider *stage.Process
	probes         probes
}

func (p *play) open(ctx context.Context, authority *connectplugin.Authority, profile string) (s *scene, err error) {
	s = &scene{}
	defer func() {
		if err != nil {
			s.close(ctx)
		}
	}()
	s.host, err = stage.Start(ctx, roleHost, "-dir", p.dir, "-profile", profile, "-defaults="+strconv.FormatBool(p.defaults))
	if err != nil {
		return s, err
	}
	s.addr = s.host.Said
	if s.provider, err = stage.Start(ctx, roleProvider, "-dir", p.dir, "-addr", s.addr); err != nil {
		return s, err
	}
	s.probes, err = connect(ctx, authority, s.addr)
	return s, err
}

func (s *scene) close(ctx context.Context) {
	s.probes.close(ctx)
	for _, p := range []*stage.Process{s.provider, s.host} {
		if p != nil {
			p.Kill()
		}
	}
}

// play plays one attack on a host that is new.
func (p *play) play(ctx context.Context, authority *connectplugin.Authority, k kinds.Kind) (r row, err error) {
	r = row{kind: k, most: mostMemory}
	if p.defaults {
		r.most = mostByRule
	}
	s, err := p.open(ctx, authority, p.profile)
	if err != nil {
		return r, err
	}
	defer s.close(ctx)
	if err := p.honest(ctx, s, k, &r); err != nil {
		return r, err
	}
	if err := s.rest(); err != nil {
		return r, err
	}
	other, err := p.open(ctx, authority, "")
	if err != nil {
		return r, err
	}
	defer other.close(ctx)
	if err := other.rest(); err != nil {
		return r, err
	}
	if k.Who == kinds.Plugin {
		err = p.turns(ctx, s, other, k, &r)
		return r, err
	}
	if err := p.loud(ctx, s, k, p.lasting(), &r); err != nil {
		return r, err
	}
	settle(ctx)
	err = p.control(ctx, s, other, k, p.lasting(), &r)
	return r, err
}

// lasting is how long an attack by anybody but a plugin lasts.
func (p *play) lasting() time.Duration { return cmp.Or(p.lasts, lasts) }

// honest has the probes call while nothing else is at work, and notes what that takes. A bad plugin is compared with
// other things; what anybody else does is compared with this, which lasts as long.
func (p *play) honest(ctx context.Context, s *scene, k kinds.Kind, r *row) error {
	lasts := quiet
	if k.Who != kinds.Plugin {
		lasts = p.lasting()
	}
	before, err := s.usage()
	if err != nil {
		return err
	}
	r.quiet = s.probes.measure(ctx, lasts)
	after, err := s.usage()
	p.apart = 0
	for i := range after {
		p.apart += (after[i].CPU - before[i].CPU).Seconds() / lasts.Seconds()
	}
	return err
}

// turns plays an attack and its control in turns, each as often as the other, so that both see the
// same machine. Which comes first alternates.
func (p *play) turns(ctx context.Context, s, other *scene, k kinds.Kind, r *row) error {
	whole := cmp.Or(p.lasts, p.turn, turn)
	n := max(1, int(whole/cmp.Or(p.turn, turn)))
	each := whole / time.Duration(n)
	for i := range n {
		does := []func(context.Context) error{
			func(ctx context.Context) error { return p.loud(ctx, s, k, each, r) },
			func(ctx context.Context) error { return p.burnt(ctx, s, each, r) },
			func(ctx context.Context) error { return p.control(ctx, s, other, k, each, r) },
		}
		if p.itself {
			does = []func(context.Context) error{
				func(ctx context.Context) error { return p.again(ctx, s, other, k, each, r) }, does[len(does)-1],
			}
		}
		if (p.round+i)%2 == 1 {
			slices.Reverse(does)
		}
		for _, do := range does {
			settle(ctx) // what the turn before left
			if err := do(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// settle waits a little.
func settle(ctx context.Context) {
	t := time.NewTimer(settling)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// loud has the probes call while their own host is attacked.
func (p *play) loud(ctx context.Context, s *scene, k kinds.Kind, lasts time.Duration, r *row) error {
	begun, err := s.usage()
	if err != nil {
		return err
	}
	watch := s.host.Watch(ctx)
	played, err := p.attack(ctx, s, s, k, lasts)
	if r.before == 0 {
		r.before = begun[0].Resident
	}
	r.attacked(played, watch()-r.before, lasts)
	return err
}

// burnt has the probes call while a program outside burns as much processor time as the last attack took, at the
// same moments of its turn.
func (p *play) burnt(ctx context.Context, s *scene, lasts time.Duration, r *row) error {
	burner, err := p.burner(ctx)
	if err != nil {
		return err
	}
	drawn := stage.Draw(ctx, 0, burner) // as beside an attack
	probed := s.probes.measure(ctx, lasts)
	_ = drawn()
	var said string
	if err := burner.Hear(&said); err != nil {
		burner.Kill()
		return err
	}
	used, err := burner.End()
	r.burnt = append(r.burnt, probed)
	r.burning += used
	return err
}

// burner starts a program that burns processor time along the curve. A long turn's is longer than an argument may be.
func (p *play) burner(ctx context.Context) (*stage.Process, error) {
	path := filepath.Join(p.dir, "curve.json")
	curve, err := json.Marshal(p.curve)
	if err == nil {
		err = os.WriteFile(path, curve, 0o600) //nolint:mnd // in the directory of the run, for its owner
	}
	if err != nil {
		return nil, fmt.Errorf("curve: %w", err)
	}
	return stage.Start(ctx, roleBurner, "-curve", path)
}

// control has the probes call while programs outside use as much of the processors as the attack
// did, at the same moments and with as many threads: another host is attacked in the same way.
func (p *play) control(ctx context.Context, s, other *scene, k kinds.Kind, lasts time.Duration, r *row) error {
	played, err := p.attack(ctx, s, other, k, lasts)
	r.control = append(r.control, played.probed)
	r.elsewhere += played.used
	return err
}

// again is control in place of loud.
func (p *play) again(ctx context.Context, s, other *scene, k kinds.Kind, lasts time.Duration, r *row) error {
	played, err := p.attack(ctx, s, other, k, lasts)
	r.attacked(played, 0, lasts)
	return err
}

// played is what came of an attack.
type played struct {
	probed  probed
	outcome kinds.Outcome
	host    time.Duration // of processors, that the host used
	used    time.Duration // and everybody who took part
}

// attack has a host attacked while the probes of a scene call, which may be those of another one.
func (p *play) attack(ctx context.Context, s, attacked *scene, k kinds.Kind, lasts time.Duration) (r played, err error) {
	scenes := []*scene{s}
	if attacked != s {
		scenes = append(scenes, attacked)
	}
	attacker, err := p.attacker(ctx, attacked, k, lasts)
	if err != nil {
		return r, err
	}
	before, err := usages(scenes)
	if err != nil {
		attacker.Kill()
		return r, err
	}
	if p.profile != "" && attacked == s {
		var on bool
		_ = s.host.Ask(stage.WordProfile, &on)
		defer func() { _ = s.host.Ask(stage.WordProfile, &on) }()
	}
	drawn := stage.Draw(ctx, p.apart, attacker, s.host, s.provider)
	r.probed = s.probes.measure(ctx, lasts)
	if curve := drawn(); attacked == s {
		p.curve = curve
	}
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

// attacker starts the process that attacks. One that is no plugin takes no processor of the host, as if it were at another machine.
func (p *play) attacker(ctx context.Context, attacked *scene, k kinds.Kind, lasts time.Duration) (*stage.Process, error) {
	start := stage.Start
	if p.yields && k.Who != kinds.Plugin {
		start = stage.StartYielding
	}
	return start(ctx, roleAttacker, "-dir", p.dir, "-addr", attacked.addr, "-only", k.Who+": "+k.Name, "-for", lasts.String())
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
