// Package turns has many do something a few at a time, as TLS handshakes compute: where thousands do so at once, all
// of them are slow, and whatever else the process has to do waits behind them.
package turns

import (
	"context"
	"sync/atomic"
	"time"
)

// Longest is how long somebody waits at most while nobody gets a turn: those that have one may be asking somebody
// else, as callbacks of a TLS configuration do. As long as that lasts the next waits for half as long, and so on.
const Longest = 50 * time.Millisecond

// halvings bound how short such a wait becomes.
const halvings = 6

// Turns are how many there may be at it at a time. They are safe for concurrent use.
type Turns struct {
	// Fixed at creation.
	taken chan struct{} // as many as there may be
	looks chan struct{} // capacity one: held by who looks whether all wait in vain

	given  atomic.Uint64 // turns so far
	stalls atomic.Int64  // how many in a row went on without one
}

// New returns so many turns, one at least.
func New(n int) *Turns {
	return &Turns{taken: make(chan struct{}, max(n, 1)), looks: make(chan struct{}, 1)}
}

// Await waits for a turn, and reports whether there was one: it is to be given back. Where nobody gets one for as
// long as [Longest], one of those who wait goes on without; when life ends all do.
func (t *Turns) Await(life context.Context) bool {
	select {
	case t.taken <- struct{}{}:
		return t.moves()
	default:
	}
	select {
	case t.taken <- struct{}{}:
		return t.moves()
	case t.looks <- struct{}{}: // all others wait without a timer: they may be thousands
	case <-life.Done():
		return false
	}
	defer func() { <-t.looks }()
	return t.look(life)
}

// Give gives a turn back.
func (t *Turns) Give() { <-t.taken }

// look is what Await does for who looks.
func (t *Turns) look(life context.Context) bool {
	for {
		given := t.given.Load()
		timer := time.NewTimer(Longest >> min(t.stalls.Load(), halvings))
		select {
		case t.taken <- struct{}{}:
			timer.Stop()
			return t.moves()
		case <-life.Done():
			timer.Stop()
			return false
		case <-timer.C:
		}
		if t.given.Load() == given {
			t.stalls.Add(1)
			return false
		}
	}
}

// moves notes that somebody got a turn.
func (t *Turns) moves() bool {
	t.given.Add(1)
	t.stalls.Store(0)
	return true
}
