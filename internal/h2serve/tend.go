package h2serve

import (
	"time"

	"github.com/masegraye/connect-plugin-go/internal/h2frame"
)

const (
	looks     = 4 // in the shortest of the times
	shortLook = 10 * time.Millisecond
)

// tended is what was seen of a connection so far.
type tended struct {
	frames, writes uint64
	lastID         uint32
	silent         time.Duration // since a frame came
	idle           time.Duration // since there was a stream
	stuck          time.Duration // since a write began
	asked          bool
}

// tendLocked begins to look at the connection.
func (c *conn) tendLocked() {
	cfg := &c.s.cfg
	period := max(shortLook, min(cfg.IdleTimeout, cfg.PingAfter, cfg.PingTimeout, cfg.WriteTimeout)/looks)
	c.tick = c.s.clock.AfterFunc(period, func() { c.tend(period) })
}

// tend ends a connection on which nothing happens, whose peer does not answer, or takes nothing.
func (c *conn) tend(period time.Duration) {
	c.mu.Lock()
	err := c.lookLocked(period)
	if err == nil && c.err == nil {
		c.tick.Reset()
	}
	c.mu.Unlock()
	if err != nil {
		c.fail(err)
	}
}

func (c *conn) lookLocked(period time.Duration) error {
	t, cfg := &c.tended, &c.s.cfg
	count := func(since *time.Duration, still bool) time.Duration {
		if *since += period; !still {
			*since = 0
		}
		return *since
	}
	frames, writes := c.frames.Load(), c.writes.Load()
	silent := count(&t.silent, frames == t.frames)
	stuck := count(&t.stuck, writes == t.writes && writes%2 == 1)
	used := len(c.streams) > 0 || c.running > 0
	idle := count(&t.idle, c.lastID == t.lastID && !used)
	if cfg.PingInUse && !used {
		t.silent, silent = 0, 0
	}
	t.frames, t.writes, t.lastID, c.heads = frames, writes, c.lastID, 0
	switch {
	case stuck >= cfg.WriteTimeout:
		return ErrStuck
	case idle >= cfg.IdleTimeout && !c.retiring:
		c.retiring = true
		c.goodbyeLocked()
	case silent >= cfg.PingAfter+cfg.PingTimeout:
		return ErrSilent
	case silent >= cfg.PingAfter && !t.asked:
		c.out = h2frame.AppendPing(c.out, [8]byte{}, false)
		c.flushElsewhereLocked()
	}
	t.asked = silent >= cfg.PingAfter
	return nil
}
