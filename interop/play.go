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
	caseTime  = 60 * time.Second
	quietOver = 60 * time.Second // beyond the silence

	directTries = 3
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
	// reference is called where the host is left out: the provider itself, or connect-go's
	// where the provider accepts nobody but the host.
	reference *provider
	job       echo.Job // of the caller
	quiet     func()   // is told that the streams of a silence are open
}

func newPlayer(s *stage, w *world, o *options, p pair, suffix string) (*player, error) {
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
	if err != nil {
		return nil, err
	}
	pl := &player{stage: s, opts: o, pair: p, prov: prov, reference: prov, job: j, quiet: func() {}}
	if p.provider.own {
		pl.reference, err = newProvider(s, o, w.providers[peerConnectGo], name+"-ref")
	}
	return pl, err
}

func (p *player) close() {
	p.prov.close()
	if p.reference != p.prov {
		p.reference.close()
	}
}

// play plays a case through the host and, where it fails, once more without.
func (p *player) play(ctx context.Context, name string) result {
	if why, ok := p.pair.skip(name); ok {
		return result{state: notPlayed, text: why}
	}
	limit := caseTime
	if name == echo.CaseSilence {
		limit = p.opts.silence + quietOver
	}
	note, err := p.once(ctx, p.prov, name, limit, false)
	if err == nil {
		return result{state: green, text: note}
	}
	p.prov.reset() // what failed may have left something
	if !p.directly(name) {
		return result{state: red, text: err.Error()}
	}
	var direct error
	for range directTries { // some of what peers do, they do now and then
		if _, direct = p.once(ctx, p.reference, name, limit, true); direct != nil {
			p.reference.reset()
			return result{state: redToo, text: err.Error() + "; without the host: " + direct.Error()}
		}
	}
	return result{state: red, text: err.Error() + "; without the host it holds"}
}

// directly reports whether the case can be played without the host.
func (p *player) directly(name string) bool {
	return !p.pair.caller.own && name != echo.CaseSilence && name != echo.CaseKill
}

func (p *player) once(ctx context.Context, prov *provider, name string, limit time.Duration, direct bool) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := prov.ensure(ctx); err != nil {
		return "", err
	}
	j := p.job
	j.Life = int(limit.Seconds())
	if direct {
		j.Target, j.Present = prov.target(), true
	} else {
		j.Target, j.Prefix = p.stage.addr, prov.prefix()
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
			if name == echo.CaseSilence {
				p.quiet()
			}
			if err := disturb(ctx, prov, name, caller); err != nil {
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
func disturb(ctx context.Context, prov *provider, name string, caller *process) error {
	switch name {
	case echo.CaseSilence:
	case echo.CaseStop:
		if !prov.process.stop() {
			return errEnd
		}
	default:
		prov.process.kill()
		if err := prov.ensure(ctx); err != nil {
			return err
		}
	}
	return caller.tell(prov.prefix())
}
