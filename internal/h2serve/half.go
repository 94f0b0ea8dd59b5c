package h2serve

import (
	"slices"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/h2frame"
)

// halfClosedFor is how long whoever was answered may send the rest of its request, at least.
const halfClosedFor = 100 * time.Millisecond

// halfClosed is a stream whose answer was sent before all of its request had come. It is none of the
// connection's any more: what still comes for it was under way, or is stray.
type halfClosed struct {
	id    uint32
	until time.Time
}

// halfCloseLocked tells the peer that nobody wants the rest of a request which was answered, but not at
// once: a client may lose an answer that a reset follows closely, and curl does (RFC 9113, section 8.1, has
// clients keep it). Of those that wait for their reset there are no more than streams may be open.
func (c *conn) halfCloseLocked(id uint32) {
	if len(c.half) >= int(c.s.cfg.MaxStreams) {
		c.hangUpLocked(1)
	}
	c.half = append(c.half, halfClosed{id: id, until: time.Now().Add(halfClosedFor)})
	switch {
	case c.halfTick == nil:
		c.halfTick = c.s.clock.AfterFunc(halfClosedFor, c.hangUp)
	case len(c.half) == 1:
		c.halfTick.Reset()
	}
}

// completeLocked takes in that the rest of a request came, if that was answered before: there is no reset.
// But the peer is sent something: curl 7.88 looks only then whether a stream is over whose answer it has read
// before it had sent all of the request, and would wait for ever.
func (c *conn) completeLocked(id uint32) {
	switch {
	case !c.dropHalfLocked(id):
		return
	case c.credit > 0:
		c.grantLocked()
	default:
		c.out = h2frame.AppendPing(c.out, [8]byte{}, false)
		c.flushElsewhereLocked()
	}
}

// dropHalfLocked takes in that nothing more comes for a stream, and reports whether it was to be reset.
func (c *conn) dropHalfLocked(id uint32) bool {
	i := slices.IndexFunc(c.half, func(h halfClosed) bool { return h.id == id })
	if i < 0 {
		return false
	}
	if c.half = slices.Delete(c.half, i, i+1); len(c.half) == 0 {
		c.half = nil
		c.halfTick.Stop()
	}
	return true
}

// hangUp resets the streams whose time is over.
func (c *conn) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	now, due := time.Now(), 0
	for due < len(c.half) && !c.half[due].until.After(now) {
		due++
	}
	c.hangUpLocked(due)
	if len(c.half) > 0 {
		c.halfTick.Reset()
	}
}

// hangUpLocked resets the first n.
func (c *conn) hangUpLocked(n int) {
	for _, h := range c.half[:n] {
		c.out = h2frame.AppendReset(c.out, h.id, http2.ErrCodeNo)
	}
	if c.half = slices.Delete(c.half, 0, n); len(c.half) == 0 {
		c.half = nil
	}
	c.flushElsewhereLocked()
}
