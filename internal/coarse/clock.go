// Package coarse has timers for those that are many and in no hurry: what keeps watch over
// connections that rest. However many there are, the machine is woken a few times in the period.
package coarse

import (
	"sync"
	"time"
)

// parts is how many times in a period a clock may wake up. So much later than asked a timer fires.
const parts = 16

// Clock makes timers. The zero value is ready. It is safe for concurrent use, and holds no
// goroutine and no timer of the runtime's while it has no timers of its own.
type Clock struct {
	mu     sync.Mutex
	start  time.Time
	queues map[time.Duration]*queue
}

// queue has the timers of one period, those that are due first in front: all wait equally long,
// so whoever comes last is due last.
type queue struct {
	clock       *Clock
	period      time.Duration
	first, last *Timer
	wake        *time.Timer
}

// Timer calls a function once, after its period.
type Timer struct {
	queue *queue
	f     func()

	// Guarded by the clock's mu.
	due        time.Duration // since the clock's start
	prev, next *Timer
	waits      bool
}

// AfterFunc has f called after the period, or up to a sixteenth of it later, in a goroutine that
// it shares with other timers: f must not block. The period is positive.
func (c *Clock) AfterFunc(period time.Duration, f func()) *Timer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.queues == nil {
		c.start, c.queues = time.Now(), map[time.Duration]*queue{}
	}
	q := c.queues[period]
	if q == nil {
		q = &queue{clock: c, period: period}
		c.queues[period] = q
	}
	t := &Timer{queue: q, f: f}
	q.addLocked(t)
	return t
}

// Reset has the function called once more, after the period from now. It may be called by the
// function itself.
func (t *Timer) Reset() {
	t.queue.clock.mu.Lock()
	defer t.queue.clock.mu.Unlock()
	t.queue.removeLocked(t)
	t.queue.addLocked(t)
}

// Stop keeps the function from being called, and reports whether it did: it does not where the
// function has been called, or is about to be, or the timer was stopped before.
func (t *Timer) Stop() bool {
	t.queue.clock.mu.Lock()
	defer t.queue.clock.mu.Unlock()
	return t.queue.removeLocked(t)
}

func (q *queue) addLocked(t *Timer) {
	grain := max(q.period/parts, 1)
	t.due = (time.Since(q.clock.start) + q.period + grain - 1).Truncate(grain)
	t.prev, t.next, t.waits = q.last, nil, true
	if q.last != nil {
		q.last.next = t
	} else {
		q.first = t
		q.armLocked()
	}
	q.last = t
}

func (q *queue) removeLocked(t *Timer) bool {
	if !t.waits {
		return false
	}
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		q.first = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	} else {
		q.last = t.prev
	}
	t.prev, t.next, t.waits = nil, nil, false
	if q.first == nil && q.wake != nil {
		q.wake.Stop()
	}
	return true
}

// armLocked wakes the queue when its first timer is due.
func (q *queue) armLocked() {
	wait := q.first.due - time.Since(q.clock.start)
	if q.wake == nil {
		q.wake = time.AfterFunc(wait, q.run)
		return
	}
	q.wake.Reset(wait)
}

// run calls what is due.
func (q *queue) run() {
	for _, f := range q.take() {
		f()
	}
}

func (q *queue) take() []func() {
	q.clock.mu.Lock()
	defer q.clock.mu.Unlock()
	var due []func()
	for now := time.Since(q.clock.start); q.first != nil && q.first.due <= now; {
		t := q.first
		due = append(due, t.f)
		q.removeLocked(t)
	}
	if q.first != nil {
		q.armLocked()
	}
	return due
}
