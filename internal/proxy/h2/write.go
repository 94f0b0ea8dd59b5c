package h2

import (
	"fmt"
	"runtime"

	"golang.org/x/net/http2/hpack"
)

// flushLocked writes what is pending, unless somebody else is at it who takes it
// along. It lets go of mu while it writes. So the caller must be one that may
// wait for the server; others use flushElsewhereLocked.
func (c *Conn) flushLocked() {
	if c.flushing || len(c.out) == 0 || c.err != nil {
		return
	}
	c.flushing = true
	if len(c.streams) > 1 {
		c.mu.Unlock()
		runtime.Gosched() // whoever is ready to run may add frames of its own
		c.mu.Lock()
	}
	for range flushRounds {
		if !c.writeBatchLocked() {
			c.flushing = false
			return
		}
	}
	c.spawnFlushLocked()
}

// flushElsewhereLocked has a goroutine write what is pending.
func (c *Conn) flushElsewhereLocked() {
	if c.flushing || len(c.out) == 0 || c.err != nil {
		return
	}
	c.flushing = true
	c.spawnFlushLocked()
}

// spawnFlushLocked hands the writing to a goroutine. The connection has not
// ended, so nobody waits for its goroutines yet.
func (c *Conn) spawnFlushLocked() {
	c.stopped.Go(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for c.writeBatchLocked() {
		}
		c.flushing = false
	})
}

// writeBatchLocked writes what is pending at this moment and reports whether to
// go on. It lets go of mu while it writes.
func (c *Conn) writeBatchLocked() bool {
	if len(c.out) == 0 || c.err != nil {
		return false
	}
	batch := c.out
	c.out, c.spare, c.control = c.spare[:0], nil, 0
	c.mu.Unlock()
	err := c.writeOut(batch)
	if err != nil {
		c.fail(err)
	}
	c.mu.Lock()
	if cap(batch) <= keepBatch {
		c.spare = batch[:0]
	}
	c.wakeWaiterLocked()
	return true
}

func (c *Conn) writeOut(batch []byte) error {
	if c.batch != nil {
		c.batch.Hold()
	}
	_, err := c.nc.Write(batch)
	if c.batch != nil {
		if releaseErr := c.batch.Release(); err == nil {
			err = releaseErr
		}
	}
	if err != nil {
		return fmt.Errorf("write frames: %w", err)
	}
	return nil
}

// encodeLocked returns the header block of fields, valid until the next call.
func (c *Conn) encodeLocked(fields []hpack.HeaderField) []byte {
	c.block.Reset()
	for _, f := range fields {
		_ = c.encoder.WriteField(f) // writes to memory
	}
	return c.block.Bytes()
}

// budgetLocked returns how much of n bytes of data the stream may send now.
func (c *Conn) budgetLocked(s *Stream, n int) int {
	if len(c.out) >= highWater {
		return 0
	}
	n = min(n, c.peer.maxFrame)
	return int(max(0, min(int64(n), s.sendWindow, c.sendWindow)))
}

// sendLocked appends one DATA frame with as much of p as may be sent, and returns
// what is left of p.
func (c *Conn) sendLocked(s *Stream, p []byte, end bool) []byte {
	n := c.budgetLocked(s, len(p))
	if n == 0 && len(p) > 0 {
		return p
	}
	end = end && n == len(p)
	c.out = appendData(c.out, s.id, p[:n], end)
	s.sendWindow -= int64(n)
	c.sendWindow -= int64(n)
	s.sentEnd = end
	return p[n:]
}

// queueLocked makes s wait until wakeWaiterLocked finds that it may go on. A
// stream whose own window is spent waits for its window instead.
func (c *Conn) queueLocked(s *Stream) {
	if s.sendWindow > 0 && !s.queued {
		s.queued = true
		c.waiters = append(c.waiters, s)
	}
}

// wakeWaiterLocked wakes the stream that has waited longest if data can be
// sent. That stream calls it again when it is done.
func (c *Conn) wakeWaiterLocked() {
	if len(c.waiters) == 0 || c.sendWindow <= 0 || len(c.out) >= highWater {
		return
	}
	s := c.waiters[0]
	c.unqueueLocked(s)
	notify(s.sendWake)
}

func (c *Conn) unqueueLocked(s *Stream) {
	if !s.queued {
		return
	}
	s.queued = false
	for i, waiter := range c.waiters {
		if waiter == s {
			c.waiters = append(c.waiters[:i], c.waiters[i+1:]...)
			return
		}
	}
}

// notify wakes whoever waits on a channel of capacity one.
func notify(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
