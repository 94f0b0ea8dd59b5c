package edge

import (
	"errors"
	"os"
	"time"
)

// heading is how long the head of a request may still take that has begun to come. It is of who
// reads.
type heading struct {
	count int           // of heads that began
	left  time.Duration // that the peer may take for the rest
	timed bool          // the connection has a deadline for reading

	seated bool          // it has a seat in its listener's midst
	seat   int           // count of the head for which
	later  time.Duration // to wait before it reads on, when it has none any more
}

// readOn reads what comes next, and no longer than the head under way may take. A deadline that
// passed ends the connection.
func (c *Conn) readOn(p []byte) (int, error) {
	if c.meter == nil || !c.timeHead() {
		return c.Conn.Read(p) //nolint:wrapcheck // stands for what it wraps
	}
	for {
		if c.head.dallied(c.slot.listener.cfg.HandshakeTimeout) && c.slot.listener.midst.wanted(c) {
			c.unfinished()
			return 0, ErrCutOff
		}
		begun := time.Now()
		n, err := c.Conn.Read(p)
		c.head.left -= time.Since(begun)
		late := errors.Is(err, os.ErrDeadlineExceeded) && !c.isCut()
		if late && c.head.seated && c.head.left > 0 {
			c.timeHead()
			continue
		}
		if late {
			c.slot.cutOff(c, CutOffSlow) // without a word: within a header block the peer is told nothing
		}
		return n, err //nolint:wrapcheck // stands for what it wraps
	}
}

// dallied reports that a peer which has a seat was waited for as long as may be while others wait for one.
func (h *heading) dallied(whole time.Duration) bool { return h.seated && whole-h.left >= dallies }

// until is how long the peer is waited for at a time: with a seat until it is to be looked whether others wait for that.
func (h *heading) until(whole time.Duration) time.Duration {
	switch {
	case !h.seated:
		return h.left
	case h.dallied(whole):
		return min(h.left, dallies)
	}
	return min(h.left, dallies-(whole-h.left))
}

// timeHead sets the deadline of the head under way, or takes back that of one that is whole. It
// reports whether there is one. What the peer waits for before it is read is no time of its own.
func (c *Conn) timeHead() bool {
	if !c.meter.inHead() && !c.head.timed {
		return false
	}
	deadline := time.Time{}
	c.head.timed = c.meter.inHead()
	if c.head.timed {
		if c.head.count != c.meter.heads {
			c.head.count, c.head.left = c.meter.heads, c.slot.listener.cfg.HandshakeTimeout
		}
		deadline = time.Now().Add(c.head.until(c.slot.listener.cfg.HandshakeTimeout))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut == nil { // else the connection has the deadline of its parting
		_ = c.SetReadDeadline(deadline)
	}
	return c.head.timed
}
