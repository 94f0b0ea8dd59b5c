package h2

import (
	"fmt"
	"runtime"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/h2frame"
)

// flushLocked writes what is pending, unless somebody else is at it who takes it
// along. It lets go of mu while it writes. So the caller must be one that may
// wait for the server; others use flushElsewhereLocked.
func (c *Conn) flushLocked() {
	if c.flushing || len(c.out) == 0 || c.overLocked() {
		return
	}
	c.flushing = true
	c.gatherFramesLocked()
	for range flushRounds {
		if !c.writeBatchLocked() {
			c.flushing = false
			return
		}
	}
	c.summonLocked()
}

// flushElsewhereLocked has the connection's own writer write what is pending.
func (c *Conn) flushElsewhereLocked() {
	if c.flushing || len(c.out) == 0 || c.overLocked() {
		return
	}
	c.flushing = true
	c.summonLocked()
}

// summonLocked has the writer write, who is there while there is something to write now and then:
// its stack has grown to what TLS needs.
func (c *Conn) summonLocked() {
	if !c.writer {
		c.writer = true
		c.stopped.Go(c.write) // whoever reads is among them while the connection goes on
	}
	notify(c.due)
}

// write writes what others leave to it, until nothing is left to it for long or the connection ends.
func (c *Conn) write() {
	for {
		select {
		case <-c.due:
			c.writeAll()
		case <-c.home:
			return
		case <-c.stop:
			return
		}
	}
}

func (c *Conn) writeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gatherFramesLocked()
	for c.writeBatchLocked() {
	}
	c.flushing = false
}

// gatherFramesLocked lets whoever is ready to run add frames of its own to what is
// written next.
func (c *Conn) gatherFramesLocked() {
	if len(c.streams) > 1 {
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
	}
}

// writeBatchLocked writes what is pending at this moment and reports whether to
// go on. It lets go of mu while it writes.
func (c *Conn) writeBatchLocked() bool {
	if len(c.out) == 0 || c.overLocked() {
		return false
	}
	batch, before := c.out, c.sent
	c.out, c.spare, c.control = c.spare[:0], nil, 0
	c.taken += int64(len(batch))
	c.sent = c.taken
	room := c.choked.Swap(false)
	c.mu.Unlock()
	if room {
		c.tellRoom()
	}
	began, err := c.writeOut(batch)
	if err != nil {
		c.failWrite(err, began, before)
	}
	c.mu.Lock()
	if cap(batch) <= keepBatch {
		c.spare = batch[:0]
	}
	c.wakeWaiterLocked()
	return true
}

// lastWords is how long a server is listened to that takes nothing any more: one that went has closed the connection, and that is
// read at once.
const lastWords = 500 * time.Millisecond

// failWrite takes in a write that failed. If it never began, only what was written before it may have reached the server. What the
// server said before it went is read first, which may be that it did nothing with some of that, or an answer: whoever reads ends the
// connection.
func (c *Conn) failWrite(err error, began bool, before int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !began {
		c.sent = before
	}
	if c.err == nil && c.deaf == nil {
		c.deaf = err
		c.usable.Store(false)
		time.AfterFunc(lastWords, func() { c.fail(err) })
	}
}

// overLocked reports that nothing is written any more.
func (c *Conn) overLocked() bool { return c.err != nil || c.deaf != nil }

// writeOut writes and reports whether anything of it may have left.
func (c *Conn) writeOut(batch []byte) (bool, error) {
	c.writes.Add(1)
	defer c.writes.Add(1)
	if c.batch == nil {
		n, err := c.nc.Write(batch)
		if err != nil {
			return n > 0, fmt.Errorf("write frames: %w", err)
		}
		return true, nil
	}
	c.batch.Hold()
	_, err := c.nc.Write(batch)
	n, releaseErr := c.batch.Release()
	if err == nil {
		err = releaseErr
	}
	if err != nil {
		return n > 0, fmt.Errorf("write frames: %w", err)
	}
	return true, nil
}

// encodeLocked returns the header block of a request, valid until the next call. It begins with what the encoder
// has to say of its table.
func (c *Conn) encodeLocked(r *Request) []byte {
	c.block.Reset()
	for i, f := range r.Fields {
		if i > 0 && (f.Sensitive || f.Size() > mostIndexed) {
			_, _ = c.block.Write(appendLiteral(c.block.AvailableBuffer(), f.Name, f.Value))
			continue
		}
		_ = c.encoder.WriteField(f) // writes to memory
	}
	if r.Own != nil {
		_, _ = c.block.Write(r.Own.block)
	}
	return c.block.Bytes()
}

// budgetLocked returns how much of n bytes of data the stream may send now.
func (c *Conn) budgetLocked(s *Stream, n int) int {
	if len(c.out) >= highWater {
		return 0
	}
	n = min(n, c.peer.maxFrame)
	return int(max(0, min(int64(n), s.windowLocked(), c.allowedLocked(s))))
}

// sendLocked appends one DATA frame with as much of p as may be sent, and returns
// what is left of p.
func (c *Conn) sendLocked(s *Stream, p []byte, end bool) []byte {
	n := c.budgetLocked(s, len(p))
	if n == 0 && len(p) > 0 {
		return p
	}
	end = end && n == len(p)
	c.out = h2frame.AppendData(c.out, s.id, p[:n], end)
	c.worth.sent(n)
	s.windowMoved -= int64(n)
	c.spendLocked(s, int64(n))
	s.sentEnd = end
	return p[n:]
}

// queueLocked makes s wait until wakeWaiterLocked finds that it may go on. A
// stream whose own window is spent waits for its window instead.
func (c *Conn) queueLocked(s *Stream) {
	if s.windowLocked() > 0 && !s.queued {
		s.queued = true
		c.waiters = append(c.waiters, s)
	}
}

// wakeMovedLocked wakes who may go on since windows changed. It looks at the
// streams once for all that came in one read. Those that wait for more than their
// own window stay asleep: settings that go back and forth would wake all of them in vain.
func (c *Conn) wakeMovedLocked() {
	if c.raised {
		for _, s := range c.streams {
			if s.windowLocked() > 0 && !s.queued {
				s.sendWake.Broadcast()
			}
		}
	}
	if c.moved {
		c.wakeWaiterLocked()
	}
	c.moved, c.raised = false, false
}

// wakeWaiterLocked wakes the stream that has waited longest of those that may
// send. That stream calls it again when it is done.
func (c *Conn) wakeWaiterLocked() {
	if c.sendWindow <= 0 || len(c.out) >= highWater || c.err != nil {
		return
	}
	for _, s := range c.waiters {
		if c.budgetLocked(s, 1) > 0 {
			c.unqueueLocked(s)
			s.sendWake.Broadcast()
			return
		}
	}
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
