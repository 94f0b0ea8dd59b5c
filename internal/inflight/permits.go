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
	all map[*permit[R]]struct{}
}

// permit is immutable.
type permit[R any] struct {
	call    *Call
	allowed func(R) bool
}

// Admit lets a call go on while allowed says so: it is asked now, of the rule that
// current returns, and at every [Permits.Enforce] until the call is released. It
// reports false where the rule does not allow the call. The call is noted before
// the rule is read, so whoever replaces the rule and then enforces it misses none.
func (p *Permits[R]) Admit(c *Call, current func() R, allowed func(R) bool) (release func(), ok bool) {
	held := &permit[R]{c, allowed}
	p.add(held)
	if !allowed(current()) {
		p.remove(held)
		return nil, false
	}
	return func() { p.remove(held) }, true
}

// Enforce ends the calls that a rule does not allow and returns how many.
func (p *Permits[R]) Enforce(rule R, cause error) int {
	p.mu.Lock()
	all := slices.Collect(maps.Keys(p.all))
	p.mu.Unlock()
	ended := 0
	for _, held := range all {
		if !held.allowed(rule) {
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

func (p *Permits[R]) add(held *permit[R]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = map[*permit[R]]struct{}{}
	}
	p.all[held] = struct{}{}
}

func (p *Permits[R]) remove(held *permit[R]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.all, held)
}
