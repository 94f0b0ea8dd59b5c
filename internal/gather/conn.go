package gather

import (
	"errors"
	"net"
	"os"
	"runtime"
	"sync"
	"time"
)

const (
	// high is how much may wait to be written before Write blocks.
	high = 64 << 10
	// kept is the largest buffer that is used again.
	kept = 2 * high
)

// buffers are those that no connection needs now.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// Conn gathers what is written to it. Reads and everything else are the wrapped
// connection's. It is safe for concurrent use.
type Conn struct {
	net.Conn

	// Fixed at creation.
	cfg     Config
	writers *sync.WaitGroup

	mu       sync.Mutex
	room     sync.Cond // tells those that wait in Write of anything that changed
	waiting  *[]byte   // not written yet; nil for nothing
	writing  bool      // a writer runs
	closed   bool
	err      error     // of the first write that failed
	deadline time.Time // for Write to find room
}

func newConn(c net.Conn, cfg Config, writers *sync.WaitGroup) *Conn {
	w := &Conn{Conn: c, cfg: cfg, writers: writers}
	w.room.L = &w.mu
	return w
}

// Write takes all of p, or waits until there is room for it. An error is that of
// an earlier write, [net.ErrClosed] after Close, or [os.ErrDeadlineExceeded].
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.err != nil:
			return 0, c.err
		case c.closed:
			return 0, net.ErrClosed
		case !c.deadline.IsZero() && !time.Now().Before(c.deadline):
			return 0, os.ErrDeadlineExceeded
		}
		if c.waiting == nil || len(*c.waiting) < high {
			break
		}
		c.waitForRoom()
	}
	if c.waiting == nil {
		c.waiting, _ = buffers.Get().(*[]byte)
	}
	*c.waiting = append(*c.waiting, p...)
	if !c.writing {
		c.writing = true
		c.writers.Go(c.write)
	}
	return len(p), nil
}

// SetDeadline implements [net.Conn].
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err //nolint:wrapcheck // the connection's own error
	}
	return c.SetWriteDeadline(t)
}

// SetWriteDeadline bounds how long Write waits for room. What Write took is
// written later, within the limits of the connection's own.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.deadline = t
	c.room.Broadcast()
	return nil
}

// Close ends the connection once what Write took is written, but no later than
// after the CloseTimeout, and does not wait for that. Later calls return
// [net.ErrClosed].
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.closed = true
	c.room.Broadcast()
	if !c.writing {
		return c.Conn.Close() //nolint:wrapcheck // the connection's own error
	}
	// The writer closes it.
	_ = c.SetReadDeadline(time.Unix(1, 0))                             // wakes whoever reads
	return c.Conn.SetWriteDeadline(time.Now().Add(c.cfg.CloseTimeout)) //nolint:wrapcheck // as above
}

// write writes until nothing waits any more.
func (c *Conn) write() {
	// Whoever can write more now does so first.
	runtime.Gosched()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.waiting != nil && c.err == nil {
		b := c.waiting
		c.waiting = nil
		c.room.Broadcast()
		c.err = c.writeLocked(*b)
		if cap(*b) <= kept {
			*b = (*b)[:0]
			buffers.Put(b)
		}
	}
	c.waiting, c.writing = nil, false
	c.room.Broadcast()
	if c.closed {
		_ = c.Conn.Close()
	}
}

// writeLocked writes all of b, as long as the peer takes something within each
// limit. The lock is not held while it writes.
func (c *Conn) writeLocked(b []byte) error {
	for {
		limit := c.cfg.WriteTimeout
		if c.closed {
			limit = c.cfg.CloseTimeout
		}
		// Under the lock, so that Close has the last word.
		if err := c.Conn.SetWriteDeadline(time.Now().Add(limit)); err != nil {
			return err //nolint:wrapcheck // the connection's own error
		}
		c.mu.Unlock()
		n, err := c.Conn.Write(b)
		c.mu.Lock()
		if err == nil {
			return nil
		}
		if n == 0 || c.closed || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err //nolint:wrapcheck // as above
		}
		b = b[n:]
	}
}

// waitForRoom waits for a change, or for the deadline.
func (c *Conn) waitForRoom() {
	if !c.deadline.IsZero() {
		alarm := time.AfterFunc(time.Until(c.deadline), c.wake)
		defer alarm.Stop()
	}
	c.room.Wait()
}

func (c *Conn) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.room.Broadcast()
}
