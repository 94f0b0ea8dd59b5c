package edge

import (
	"slices"
	"time"
)

// held is what was read of a peer and goes on later: whoever serves the connection may read as
// much at once as it likes, and gets no more requests than are taken on.
type held struct {
	bytes []byte
	opens []int // where in it requests begin
	waits bool  // before anything else is read
	cut   bool  // what is held begins with a request
}

// takeOn takes requests on that begin in n bytes, and returns how many of these go on now: up to
// the request that has to wait.
func (c *Conn) takeOn(opens []int, n int, now time.Time) int {
	for len(opens) > 0 && opens[len(opens)-1] > n {
		opens = opens[:len(opens)-1]
	}
	if len(opens) == 0 {
		return n
	}
	most, indebted := len(opens), c.account.Load().patience(now) > 0
	if indebted {
		most = 1
	}
	took, wait := c.intake.Load().take(c.slot.who(), most, now)
	wait = wait || indebted
	c.held.waits, c.held.cut = wait, took < len(opens)
	if !c.held.cut {
		return n
	}
	return opens[took] - headerLen // the head of its frame stays, so that it is counted when it goes on
}

// hold keeps what comes after the first n bytes of p.
func (c *Conn) hold(p []byte, n int) int {
	c.held.bytes = slices.Clone(p[n:])
	c.held.opens = slices.Clone(c.meter.opens)
	c.held.drop(n)
	return n
}

// drop forgets where requests begin in n bytes that went on.
func (h *held) drop(n int) {
	h.opens = slices.DeleteFunc(h.opens, func(at int) bool { return at <= n })
	for i := range h.opens {
		h.opens[i] -= n
	}
}

// release reads what was held.
func (c *Conn) release(p []byte) (int, error) {
	c.mu.Lock()
	told := c.cut
	c.mu.Unlock()
	if told != nil {
		<-told // as in allows
		return 0, ErrCutOff
	}
	n := min(len(p), len(c.held.bytes))
	n = copy(p, c.held.bytes[:c.takeOn(c.held.opens, n, time.Now())])
	c.held.bytes = c.held.bytes[n:]
	c.held.drop(n)
	if len(c.held.bytes) == 0 {
		c.held.bytes, c.held.opens = nil, nil
	}
	return n, nil
}
