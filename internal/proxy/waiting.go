package proxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/intime"
)

// waitingCallers is how many callers may have as many calls wait as one may.
const waitingCallers = 4

// waiting is a call that waits for a connection. A nil one does not wait yet.
type waiting struct {
	*waiter

	room    *time.Timer // how long it may wait for room
	soon    *time.Timer // how long it may wait for any connection, as hurry has it; nil is as long as the dial may
	expired bool
}

// enterLocked makes the call wait, for the first time or once more. It fails
// where too many wait, and where the call has waited long enough.
func (w *waiting) enterLocked(c *call, ch choice) (*waiting, error) {
	if w != nil {
		c.p.lines.waiting.again(w.waiter)
		if ch.barred {
			c.p.offerLocked() // others may have what this one was woken for
		}
		if w.expired && ch.dial == nil {
			return w, ErrBusy
		}
		return w, nil
	}
	waiter := c.p.lines.waiting.add(c.account(), waitingCallers*c.p.cfg.MaxWaiting, c.p.cfg.MaxWaiting)
	if waiter == nil {
		return nil, ErrBusy
	}
	return &waiting{waiter: waiter, room: time.NewTimer(c.patience()), soon: c.hurry()}, nil
}

// wait returns when the call should look again. An error is that of the call, or
// of the only way there would have been.
func (w *waiting) wait(c *call, ch choice) error {
	var dialled, late <-chan struct{}
	var soon <-chan time.Time
	if w.soon != nil {
		soon = w.soon.C
	}
	if ch.dial != nil {
		dialled, late = ch.dial.done, ch.dial.late
	}
	var pause <-chan time.Time
	if ch.wait > 0 {
		timer := time.NewTimer(ch.wait)
		defer timer.Stop()
		pause = timer.C
	}
	select {
	case <-w.turn:
	case <-pause:
	case <-dialled:
	case <-late:
	case <-w.room.C:
		w.expired = true
	case <-soon:
		if !c.p.Connected() {
			return errSoon
		}
	case <-c.interrupted():
		return c.why()
	}
	if failed := ch.dial.failure(); failed != nil && !c.p.Connected() {
		return failed
	}
	return nil
}

// errSoon is what calls get that have to go on to another provider, or to be told, before
// their time is over. It is no fault of the provider: their callers say how short that is.
var errSoon = errors.New("provider is not connected yet, and half of the time that the call had is over")

// hurry is a timer for how long the call may wait in vain, nil where it states no time. The other half of
// its time is for another provider, or for the answer: where connections take so long, all else does too.
func (c *call) hurry() *time.Timer {
	left, stated := c.left()
	if !stated || c.Urgent {
		return nil
	}
	wait, ok := intime.Half(left)
	if !ok {
		return nil
	}
	return time.NewTimer(wait)
}

// patience is how long the call may wait for room: where it states a time, its caller is told while it still listens, or
// when the time is over where hardly any is left.
func (c *call) patience() time.Duration {
	left, stated := c.left()
	if !stated || c.Urgent {
		return c.p.cfg.RoomTimeout
	}
	if wait, ok := intime.Wait(left); ok {
		left = wait
	}
	return min(c.p.cfg.RoomTimeout, max(left, 0))
}

// left is what is left of the time that the call states.
func (c *call) left() (left time.Duration, stated bool) {
	limit, stated := timeoutOf(c.r.Header)
	began := c.Began
	if began.IsZero() {
		began = c.start
	}
	return limit - time.Since(began), stated
}

// errLate is what calls get that waited for a connection for as long as they may.
var errLate = fmt.Errorf("%w: still not: %w", errUnavailable, context.DeadlineExceeded)

// failure returns why the attempt failed, or is taken for failed, nil if it did not or is
// under way.
func (d *dial) failure() error {
	if d == nil {
		return nil
	}
	select {
	case <-d.done:
		return d.err
	default:
	}
	if d.isLate() {
		return errLate
	}
	return nil
}

// leave ends the waiting. Whoever is next looks where there is room left.
func (w *waiting) leave(p *Provider) {
	if w == nil {
		return
	}
	w.room.Stop()
	if w.soon != nil {
		w.soon.Stop()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines.waiting.remove(w.waiter)
	p.offerLocked()
}

// Connected reports whether there is any connection.
func (p *Provider) Connected() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.lines.conns) > 0
}
