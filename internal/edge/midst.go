package edge

import (
	"errors"
	"net"
	"sync"
	"time"
)

const (
	// mostInMidst is how many connections of one address for which nobody pays are at a time in the midst of a head that comes in
	// several frames, and mostInMidstOfAll those of all addresses: each keeps what came of it until it is whole.
	mostInMidst, mostInMidstOfAll = 32, 128
	// dallies is for how long a peer in the midst of a head may have others wait for its rest, and how often they look whether they
	// are still wanted.
	dallies = 250 * time.Millisecond
	// looked is at how many of those who wait somebody looks at most who seats one.
	looked = 256
)

// midst has seats for connections that are in the midst of a head which goes on in other frames. Whoever finds none waits before
// it reads on, with the little that it has read. The zero value is ready. It is safe for concurrent use.
type midst struct {
	mu     sync.Mutex
	seated map[*Conn]struct{}
	of     map[string]int // of them, by key
	waits  map[*Conn]*waiter
}

// waiter is a connection that waits for a seat.
type waiter struct {
	cost float64       // that it caused before: who caused least is first
	come chan struct{} // closed when it has one
}

// enter waits for a seat, no longer than HandshakeTimeout. The error is [net.ErrClosed] where the connection has ended, or [ErrCutOff].
func (m *midst) enter(c *Conn) error {
	w := &waiter{cost: c.cost, come: make(chan struct{})}
	m.join(c, w)
	l := c.slot.listener
	end := time.Now().Add(l.cfg.HandshakeTimeout)
	t := time.NewTimer(dallies)
	defer t.Stop()
	for {
		select {
		case <-w.come:
			return m.unlessGone(c)
		case <-c.gone:
			return m.unlessGone(c)
		case <-t.C:
		}
		if l.has(c.slot) && time.Now().Before(end) {
			t.Reset(dallies)
			continue
		}
		m.leave(c)
		if !l.has(c.slot) {
			return net.ErrClosed
		}
		return ErrCutOff
	}
}

// unlessGone has a connection leave that has ended.
func (m *midst) unlessGone(c *Conn) error {
	select {
	case <-c.gone:
		m.leave(c)
		return net.ErrClosed
	default:
		return nil
	}
}

// join has a connection wait, and seats it where there is room.
func (m *midst) join(c *Conn, w *waiter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.waits == nil {
		m.seated, m.of, m.waits = map[*Conn]struct{}{}, map[string]int{}, map[*Conn]*waiter{}
	}
	m.waits[c] = w
	m.seatLocked()
}

// leave has a connection wait no more, and gives its seat to another, if it has one.
func (m *midst) leave(c *Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.waits, c)
	if _, ok := m.seated[c]; !ok {
		return
	}
	delete(m.seated, c)
	if m.of[c.slot.key]--; m.of[c.slot.key] == 0 {
		delete(m.of, c.slot.key)
	}
	m.seatLocked()
}

// wanted reports whether somebody waits for the seat of a connection.
func (m *midst) wanted(c *Conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	full := m.of[c.slot.key] >= mostInMidst
	for other := range m.waits {
		if !full || other.slot.key == c.slot.key {
			return true
		}
	}
	return false
}

// seatLocked seats those who wait and for whom there is room.
func (m *midst) seatLocked() {
	for len(m.seated) < mostInMidstOfAll {
		next := m.nextLocked()
		if next == nil {
			return
		}
		close(m.waits[next].come)
		delete(m.waits, next)
		m.of[next.slot.key]++
		m.seated[next] = struct{}{}
	}
}

// nextLocked returns who is seated next: of the address that has fewest seats, and of those the one that caused least.
func (m *midst) nextLocked() (next *Conn) {
	looks := looked
	for c, w := range m.waits { // in any order
		switch n := m.of[c.slot.key]; {
		case n >= mostInMidst:
		case next == nil, n < m.of[next.slot.key], n == m.of[next.slot.key] && w.cost < m.waits[next].cost:
			next = c
		}
		if looks--; looks <= 0 && next != nil {
			break
		}
	}
	return next
}

// abide has whoever reads wait for what was read and, in the midst of a head, for a seat. With a seat it does not wait before
// the head is whole, and then before it reads on, when little is kept: others wait for the seat. It reports false where
// the connection has ended.
func (c *Conn) abide(wait time.Duration) bool {
	h, nobody := &c.head, c.intake.Load() == c.slot.listener.asks
	if h.seated {
		h.later = max(h.later, wait)
		if !nobody || !c.meter.inSeveral() || h.seat != c.meter.heads {
			c.stand()
		}
		return true
	}
	c.waitFor(wait)
	if !nobody || !c.meter.inSeveral() {
		return true
	}
	err := c.slot.listener.midst.enter(c)
	h.seated, h.seat = err == nil, c.meter.heads
	if errors.Is(err, ErrCutOff) {
		c.unfinished()
	}
	return err == nil
}

// upTo returns how much of n bytes that were read goes on: of a connection that had a seat what comes before the next head, so that
// what it had the seat for is whole, and nothing of it is kept, when it waits for the next one.
func (c *Conn) upTo(n int, seated bool) int {
	if seated && !c.head.seated && c.meter.inHead() && c.meter.begins > 0 {
		return c.meter.begins
	}
	return n
}

// stand gives the seat of a connection to another.
func (c *Conn) stand() {
	if c.head.seated {
		c.head.seated = false
		c.slot.listener.midst.leave(c)
	}
}

// unfinished cuts a connection off that is in the midst of a head and found no seat, or has others wait for its own.
func (c *Conn) unfinished() {
	c.mu.Lock()
	first := c.cut == nil
	if first {
		c.cut = make(chan struct{})
	}
	c.mu.Unlock()
	if first {
		c.cutOff(CutOffUnfinished)
	}
}

// has reports whether a connection was not displaced.
func (l *Listener) has(s *slot) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.all[s]
	return ok
}
