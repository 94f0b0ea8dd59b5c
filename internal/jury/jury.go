// Package jury bounds how many ask the same code of the user's at a time, where that code may itself be one that asks, and tells those
// that are many from those that wait for each other.
package jury

import (
	"sync"
	"time"
)

// Box has seats for those that ask. Its methods are safe for concurrent use.
type Box struct {
	// Fixed before use.
	Seats    int
	Patience time.Duration // for which whoever waits for a seat waits though nobody was answered

	mu       sync.Mutex
	taken    int
	hung     bool          // those with a seat wait for each other; until none is taken
	answered uint64        // answers so far
	changed  chan struct{} // closed and replaced when there may be a seat, or none; nil while nobody waits
}

// Sit takes a seat, for which it waits as long as those who have one are answered. It reports false where they are not: then nobody
// else gets one until all have risen, since each of those that called one another goes on to ask.
func (b *Box) Sit() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.taken >= b.Seats && !b.hung {
		if before := b.answered; !b.waitLocked() && b.answered == before && b.taken >= b.Seats {
			b.hung = true
			b.tellLocked()
		}
	}
	if b.hung {
		return false
	}
	b.taken++
	return true
}

// Answered notes that somebody was.
func (b *Box) Answered() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answered++
}

// Rise gives a seat back.
func (b *Box) Rise() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answered++
	if b.taken--; b.taken == 0 {
		b.hung = false
	}
	b.tellLocked()
}

// waitLocked waits, without the lock, and reports whether there may be a seat.
func (b *Box) waitLocked() bool {
	if b.changed == nil {
		b.changed = make(chan struct{})
	}
	changed := b.changed
	b.mu.Unlock()
	defer b.mu.Lock()
	enough := time.NewTimer(b.Patience)
	defer enough.Stop()
	select {
	case <-changed:
		return true
	case <-enough.C:
		return false
	}
}

func (b *Box) tellLocked() {
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}
