package inflight

import (
	"maps"
	"slices"
	"sync"
)

// Permits are the calls in flight that go on only as long as a rule of type R
// allows them. The zero value is empty. It is safe for concurrent use; no question
// is asked under its lock.
type Permits[R any] struct {
	mu  sync.Mutex
	all map[*Permit[R]]struct{}
}

// Subject is what a rule allows or not. It may be asked when its call is over.
type Subject[R any] interface{ AllowedBy(rule R) bool }

// Permit is the place of one call among them, for once. The zero value is ready.
type Permit[R any] struct {
	call *Call
	what Subject[R]
}

// question is a subject that is a function.
type question[R any] func(R) bool

// AllowedBy implements Subject.
func (q question[R]) AllowedBy(rule R) bool { return q(rule) }

// Admit lets a call go on while allowed says so, as [Permits.Hold] does, until it is released.
func (p *Permits[R]) Admit(c *Call, current func() R, allowed func(R) bool) (release func(), ok bool) {
	held := new(Permit[R])
	if !p.Hold(held, c, current, question[R](allowed)) {
		return nil, false
	}
	return func() { p.Drop(held) }, true
}

// Hold lets a call go on while the rule allows what it is about: that is asked now, of the rule
// that current returns, and at every [Permits.Enforce] until the permit is dropped. It
// reports false where the rule does not allow it, and nothing is to be dropped. The call is
// noted before the rule is read, so whoever replaces the rule and then enforces it misses none.
func (p *Permits[R]) Hold(held *Permit[R], c *Call, current func() R, what Subject[R]) bool {
	held.call, held.what = c, what
	p.add(held)
	if !what.AllowedBy(current()) {
		p.Drop(held)
		return false
	}
	return true
}

// Drop ends what Hold began.
func (p *Permits[R]) Drop(held *Permit[R]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.all, held)
}

// Enforce ends the calls that a rule does not allow and returns how many.
func (p *Permits[R]) Enforce(rule R, cause error) int {
	p.mu.Lock()
	all := slices.Collect(maps.Keys(p.all))
	p.mu.Unlock()
	ended := 0
	for _, held := range all {
		if !held.what.AllowedBy(rule) {
			held.call.End(cause)
			ended++
		}
	}
	return ended
}

// Len returns how many calls there are.
func (p *Permits[R]) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.all)
}

func (p *Permits[R]) add(held *Permit[R]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = map[*Permit[R]]struct{}{}
	}
	p.all[held] = struct{}{}
}
