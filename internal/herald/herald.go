// Package herald has a few goroutines do what there is to do for many who wait, so that waiting
// takes none.
package herald

import (
	"context"
	"runtime"
	"sync"
)

// Chore is what is done for one who waits. Do is called by one goroutine at a time, and again
// after each [Herald.Wake] that it may have missed. It waits for nobody's peer.
type Chore interface{ Do() }

// Errand is the place of a chore among the others. It is not copied. It waits, whoever wakes it,
// until [Herald.Begin].
type Errand struct {
	// Guarded by the herald's lock.
	chore Chore
	next  *Errand
	state state
}

// state says where an errand is.
type state uint8

const (
	unbegun state = iota
	resting
	queued
	running
	again // runs, and has to once more
)

// Herald does what there is to do with a goroutine for each processor, and with none while there
// is nothing. The zero Herald is ready. It is safe for concurrent use, and its lock is held for a
// few assignments.
type Herald struct {
	mu          sync.Mutex
	first, last *Errand
	workers     int
	idle        chan struct{} // closed when no worker is left; nil while nobody waits for that
}

// Begin has a chore done, now and whenever its errand is woken.
func (h *Herald) Begin(e *Errand, chore Chore) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e.chore = chore
	h.queueLocked(e)
}

// Wake has a chore done soon. It waits for nothing, and may be called under any lock.
func (h *Herald) Wake(e *Errand) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch e.state {
	case resting:
		h.queueLocked(e)
	case running:
		e.state = again
	case unbegun, queued, again:
	}
}

// Wait returns when nothing is left to do, or when ctx ends: a chore may call what is not ours.
func (h *Herald) Wait(ctx context.Context) {
	h.mu.Lock()
	if h.workers == 0 {
		h.mu.Unlock()
		return
	}
	if h.idle == nil {
		h.idle = make(chan struct{})
	}
	idle := h.idle
	h.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}

func (h *Herald) queueLocked(e *Errand) {
	e.state = queued
	if h.last == nil {
		h.first = e
	} else {
		h.last.next = e
	}
	h.last = e
	if h.workers < runtime.GOMAXPROCS(0) {
		h.workers++
		go h.work()
	}
}

// work does what is queued, until nothing is.
func (h *Herald) work() {
	for e := h.take(nil); e != nil; e = h.take(e) {
		e.chore.Do()
	}
}

// take returns the next errand after the one that was done, if any. Without one the worker is none
// any more.
func (h *Herald) take(done *Errand) *Errand {
	h.mu.Lock()
	defer h.mu.Unlock()
	if done != nil {
		if done.state == again {
			h.queueLocked(done)
		} else {
			done.state = resting
		}
	}
	e := h.first
	if e == nil {
		if h.workers--; h.workers == 0 && h.idle != nil {
			close(h.idle)
			h.idle = nil
		}
		return nil
	}
	if h.first = e.next; h.first == nil {
		h.last = nil
	}
	e.next, e.state = nil, running
	return e
}
