package h2

import (
	"fmt"
	"time"

	"golang.org/x/net/http2"
)

// settingsLocked takes in settings that changed and acknowledges them.
func (c *Conn) settingsLocked(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	if err := c.applySettingsLocked(f); err != nil {
		return err
	}
	c.flushElsewhereLocked()
	return nil
}

func (c *Conn) applySettingsLocked(f *http2.SettingsFrame) error {
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err //nolint:wrapcheck // a connection error, looked at by its type
		}
		switch s.ID {
		case http2.SettingInitialWindowSize:
			return c.initialWindowLocked(int64(s.Val))
		case http2.SettingMaxFrameSize:
			c.peer.maxFrame = min(int(s.Val), largestFrame)
		case http2.SettingMaxConcurrentStreams:
			c.limit.Store(int64(s.Val))
		case http2.SettingHeaderTableSize:
			c.encoder.SetMaxDynamicTableSize(min(s.Val, tableSize))
		default:
		}
		return nil
	})
	if err != nil {
		return err //nolint:wrapcheck // a connection error, looked at by its type
	}
	c.out = appendSettingsAck(c.out)
	c.control += frameHead
	return nil
}

// initialWindowLocked moves the window of every stream by the difference
// (RFC 9113, section 6.9.2).
func (c *Conn) initialWindowLocked(window int64) error {
	delta := window - c.peer.window
	c.peer.window = window
	for _, s := range c.streams {
		if s.sendWindow += delta; s.sendWindow > maxWindow {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		if s.sendWindow > 0 {
			notify(s.sendWake)
		}
	}
	return nil
}

func (c *Conn) pingLocked(f *http2.PingFrame) {
	if f.IsAck() {
		c.pingSent = false
		return
	}
	c.out = appendPing(c.out, f.Data, true)
	c.control += frameHead + len(f.Data)
	c.flushElsewhereLocked()
}

func (c *Conn) windowLocked(f *http2.WindowUpdateFrame) error {
	if f.StreamID == 0 {
		if c.sendWindow += int64(f.Increment); c.sendWindow > maxWindow {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		c.wakeWaiterLocked()
		return nil
	}
	s, err := c.streamLocked(f.StreamID)
	if s == nil {
		return err
	}
	if s.sendWindow += int64(f.Increment); s.sendWindow > maxWindow {
		c.resetLocked(s, ErrMalformed, http2.ErrCodeFlowControl)
		return nil
	}
	notify(s.sendWake)
	return nil
}

// leaveLocked takes in that the server is going away: streams that it will not
// process fail, the others may end.
func (c *Conn) leaveLocked(f *http2.GoAwayFrame) {
	c.draining = true
	c.usable.Store(false)
	for id, s := range c.streams {
		if id > f.LastStreamID {
			c.failStreamLocked(s, fmt.Errorf("%w: server is going away (%v)", ErrUnprocessed, f.ErrCode))
		}
	}
}

// tend looks after silence until the connection ends.
func (c *Conn) tend() {
	defer c.stopped.Done()
	tick := c.tick()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var seen uint64
	var silent, unused time.Duration
	for {
		select {
		case <-c.stop:
			return
		case <-ticker.C:
		}
		if frames := c.frames.Load(); frames != seen {
			seen, silent = frames, 0
		} else {
			silent += tick
		}
		if unused += tick; c.Load() > 0 {
			unused = 0
		}
		switch {
		case silent >= c.cfg.PingInterval+c.cfg.PingTimeout:
			c.fail(ErrPing)
		case unused >= c.cfg.IdleTimeout:
			c.retire()
		case silent >= c.cfg.PingInterval:
			c.probe()
		}
		if unused > 0 {
			c.shrink()
		}
	}
}

// tick is the period in which silence is looked at.
func (c *Conn) tick() time.Duration {
	shortest := min(c.cfg.IdleTimeout, c.cfg.PingInterval, c.cfg.PingTimeout)
	return max(time.Millisecond, min(maxTick, shortest/ticksPerPeriod))
}

// probe sends a ping unless one is under way.
func (c *Conn) probe() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.pingSent {
		c.pingSent = true
		c.out = appendPing(c.out, [8]byte{}, false)
		c.flushElsewhereLocked()
	}
}

// shrink gives memory back that a connection without streams does not need.
func (c *Conn) shrink() {
	c.mu.Lock()
	c.spare = nil
	if len(c.out) == 0 {
		c.out = nil
	}
	c.mu.Unlock()
	if c.batch != nil {
		c.batch.Shrink()
	}
}

// retire ends a connection that has no streams.
func (c *Conn) retire() {
	c.mu.Lock()
	idle := len(c.streams) == 0
	if idle {
		c.usable.Store(false)
		c.draining = true
	}
	c.mu.Unlock()
	if idle {
		c.fail(ErrClosed)
	}
}
