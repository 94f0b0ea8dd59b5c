package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/masegraye/connect-plugin-go/interop/echo"
)

const (
	caseTime  = 40 * time.Second
	quietOver = 60 * time.Second // beyond the silence
)

// state is how a case went.
type state int

const (
	notPlayed state = iota
	green
	red
	redToo // red without the host, too
)

// result is a cell of the table.
type result struct {
	state state
	text  string // the note, or the reason
}

// pair is a provider and the caller that calls it.
type pair struct {
	provider, caller *peer
}

func (p pair) String() string { return p.provider.name + ":" + p.caller.name }

// self is the pair as part of a self id.
func (p pair) self() string { return p.provider.name + "." + p.caller.name }

// skip says why the pair cannot play a case.
func (p pair) skip(name string) (string, bool) {
	all := maps.Clone(p.provider.without)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, p.caller.without)
	why, ok := all[name]
	return why, ok
}

// player plays cases of one pair. One goroutine uses it.
type player struct {
	stage *stage
	opts  *options
	pair  pair
	prov  *provider
	job   echo.Job // of the caller
}

func newPlayer(s *stage, o *options, p pair, suffix string) (*player, error) {
	name := p.self() + suffix
	prov, err := newProvider(s, o, p.provider, name)
	if err != nil {
		return nil, err
	}
	self := callerID
	if p.caller.own {
		self = "caller-" + name
	}
	j, err := s.job(o, self, prov.serviceType)
	return &player{stage: s, opts: o, pair: p, prov: prov, job: j}, err
}

func (p *player) close() { p.prov.close() }

// play plays a case through the host and, where it fails, once more without.
func (p *player) play(ctx context.Context, name string) result {
	if why, ok := p.pair.skip(name); ok {
		return result{state: notPlayed, text: why}
	}
	limit := caseTime
	if name == echo.CaseSilence {
		limit = p.opts.silence + quietOver
	}
	note, err := p.once(ctx, name, limit, false)
	if err == nil {
		return result{state: green, text: note}
	}
	p.prov.reset() // what failed may have left something
	if !p.directly(name) {
		return result{state: red, text: err.Error()}
	}
	_, direct := p.once(ctx, name, limit, true)
	p.prov.reset()
	if direct != nil {
		return result{state: redToo, text: err.Error() + "; without the host: " + direct.Error()}
	}
	return result{state: red, text: err.Error() + "; without the host it holds"}
}

// directly reports whether the case can be played without the host.
func (p *player) directly(name string) bool {
	return !p.pair.caller.own && !p.pair.provider.own && name != echo.CaseSilence && name != echo.CaseKill
}

func (p *player) once(ctx context.Context, name string, limit time.Duration, direct bool) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := p.prov.ensure(ctx); err != nil {
		return "", err
	}
	j := p.job
	j.Life = int(limit.Seconds())
	if direct {
		j.Target, j.Present = p.prov.target(), true
	} else {
		j.Target, j.Prefix = p.stage.addr, p.prov.prefix()
		j.ID, j.Token = p.stage.caller.RuntimeID(), p.stage.caller.RuntimeToken()
	}
	caller, err := start(p.pair.caller, j, name)
	if err != nil {
		return "", err
	}
	defer caller.kill()
	for {
		line, err := caller.next(ctx)
		switch {
		case err != nil:
			return "", err
		case line.Ready:
			if err := p.disturb(ctx, name, caller); err != nil {
				return "", err
			}
		case line.OK:
			return line.Note, nil
		default:
			return "", fmt.Errorf("%w: %.300s", errCase, line.Why)
		}
	}
}

var (
	errCase = errors.New("case")
	errEnd  = errors.New("the provider did not end by itself")
)

// disturb does to the provider what the case is about.
func (p *player) disturb(ctx context.Context, name string, caller *process) error {
	if name == echo.CaseStop {
		if !p.prov.process.stop() {
			return errEnd
		}
		return caller.tell(p.prov.prefix())
	}
	p.prov.process.kill()
	if err := p.prov.ensure(ctx); err != nil {
		return err
	}
	return caller.tell(p.prov.prefix())
}
