package h2

import (
	"time"

	"github.com/masegraye/connect-plugin-go/internal/h2frame"
)

// vigil watches for silence. What it knows is counted in ticks, so that it needs
// no clock.
type vigil struct {
	tick    time.Duration
	frames  uint64 // at the last tick
	writes  uint64
	silent  time.Duration // streams are open and nothing comes
	unused  time.Duration // no stream is open
	stuck   time.Duration // the same write is under way
	since   time.Duration // the last ping
	waiting bool          // for a sign of life after it
}

// verdict is what a tick calls for.
type verdict uint8

const (
	verdictNone verdict = iota
	verdictPing
	verdictDead  // no sign of life
	verdictStuck // the server does not read
	verdictIdle
)

// look takes in how things are at a tick. Servers that follow gRPC's rules end a
// connection that pings them more often than every five minutes, or without any
// stream; whether the other machine is there at all is for TCP to see.
func (v *vigil) look(cfg *Config, frames, writes uint64, load int) verdict {
	v.since += v.tick
	v.silent += v.tick
	v.unused += v.tick
	v.stuck += v.tick
	if frames != v.frames || load == 0 {
		v.frames, v.silent, v.waiting = frames, 0, false
	}
	if load > 0 {
		v.unused = 0
	}
	if writes != v.writes || writes%2 == 0 {
		v.writes, v.stuck = writes, 0
	}
	switch {
	case v.stuck >= cfg.PingInterval+cfg.PingTimeout:
		return verdictStuck
	case v.waiting && v.since >= cfg.PingTimeout:
		return verdictDead
	case !v.waiting && v.silent >= cfg.PingInterval && v.since >= pingSpacing:
		v.since, v.waiting = 0, true
		return verdictPing
	case v.unused >= cfg.IdleTimeout:
		return verdictIdle
	default:
		return verdictNone
	}
}

// tend begins to look after silence, until the connection ends. Between two looks nobody waits.
func (c *Conn) tend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.vigil = vigil{tick: c.tick(), since: pingSpacing}
	if c.err == nil {
		c.stopped.Add(1)
		c.looks = c.cfg.Clock.AfterFunc(c.vigil.tick, c.look)
	}
}

// look looks once, and again after a tick.
func (c *Conn) look() {
	v := &c.vigil
	c.follow(v.look(&c.cfg, c.frames.Load(), c.writes.Load(), c.Load()))
	if v.unused > 0 {
		c.shrink()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		c.stopped.Done()
		return
	}
	c.heads = 0
	c.looks.Reset()
}

// holdLocked has responses that are gathered released soon.
func (c *Conn) holdLocked() {
	if c.holdArmed || c.err != nil {
		return
	}
	c.holdArmed = true
	c.stopped.Add(1)
	if c.holding == nil {
		c.holding = time.AfterFunc(holdTime, c.releaseHeld)
		return
	}
	c.holding.Reset(holdTime)
}

// untendLocked stops what waits for its time. What is running ends by itself.
func (c *Conn) untendLocked() {
	if c.looks != nil && c.looks.Stop() {
		c.stopped.Done()
	}
	if c.holding != nil && c.holding.Stop() {
		c.stopped.Done()
	}
}

// follow does what a verdict calls for.
func (c *Conn) follow(v verdict) {
	switch v {
	case verdictNone:
	case verdictPing:
		c.probe()
	case verdictDead:
		c.fail(ErrPing)
	case verdictStuck:
		c.fail(errStuck)
	case verdictIdle:
		c.retireIdle()
	}
}

// tick is the period in which silence is looked at.
func (c *Conn) tick() time.Duration {
	shortest := min(c.cfg.IdleTimeout, c.cfg.PingInterval, c.cfg.PingTimeout)
	return max(time.Millisecond, min(maxTick, shortest/ticksPerPeriod))
}

// probe sends a ping.
func (c *Conn) probe() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = h2frame.AppendPing(c.out, [8]byte{}, false)
	c.flushElsewhereLocked()
}

// shrink gives memory back that a connection without streams does not need.
func (c *Conn) shrink() {
	c.mu.Lock()
	c.spare = nil
	if len(c.out) == 0 {
		c.out = nil
	}
	if c.writer && !c.flushing {
		select {
		case c.home <- struct{}{}:
			c.writer = false
		default:
		}
	}
	c.mu.Unlock()
	if c.batch != nil {
		c.batch.Shrink()
	}
}

// retireIdle ends a connection that has no streams.
func (c *Conn) retireIdle() {
	c.mu.Lock()
	idle := len(c.streams) == 0
	c.mu.Unlock()
	if idle {
		c.Retire()
	}
}
