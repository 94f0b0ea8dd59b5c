package h2serve

import (
	"errors"
	"net/http"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2/hpack"
)

// A stream that waits for what all of a connection share waits once, however often it has to, and each
// of those that wait finds its place without a look at the others.
func TestConn_AStreamWaitsOnce(t *testing.T) {
	t.Parallel()
	c := &conn{window: 1 << 20}
	streams := make([]*stream, 3)
	for i := range streams {
		streams[i] = &stream{c: c, window: 1}
		streams[i].can.L = &c.mu
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for range 2 {
		for range 3 {
			for _, st := range streams {
				c.awaitLocked(st)
			}
		}
		if len(c.blocked) != len(streams) {
			t.Errorf("%d wait", len(c.blocked))
		}
		c.wakeBlockedLocked()
		if len(c.blocked) != 0 || streams[0].blocked {
			t.Errorf("%d wait that were woken", len(c.blocked))
		}
	}
}

// Of those that wait so many are woken as there is room for, who waits longest first, and whoever had
// a turn wakes the next.
func TestConn_AsManyAreWokenAsThereIsRoomFor(t *testing.T) {
	t.Parallel()
	const waiting, atOnce = 40, highWater / leastFrame
	c := &conn{window: 1 << 20}
	c.mu.Lock()
	defer c.mu.Unlock()
	streams := make([]*stream, waiting)
	for i := range streams {
		streams[i] = &stream{c: c, window: 1}
		streams[i].can.L = &c.mu
		c.awaitLocked(streams[i])
		streams[i].waits = true
	}
	check := func(when string, from, to int) {
		t.Helper()
		for i, st := range streams {
			if has := i >= from && i < to; st.turn != has {
				t.Errorf("%s: the turn of %d: %v", when, i, st.turn)
			}
		}
	}
	c.wakeBlockedLocked()
	check("woken", 0, atOnce)
	c.wakeBlockedLocked()
	check("woken again", 0, atOnce)
	for i := range streams {
		streams[i].waits = false
		c.yieldLocked(streams[i])
		check("yielded", i+1, min(i+1+atOnce, waiting))
	}
	if c.woken != 0 || len(c.blocked) != 0 {
		t.Errorf("%d have a turn and %d wait", c.woken, len(c.blocked))
	}
	c.window = 0
	c.awaitLocked(streams[0])
	streams[0].waits = true
	if c.wakeBlockedLocked(); streams[0].turn {
		t.Error("woken without room")
	}
}

// What is left of an answer stands behind long ones that are being written, and not behind those
// that wait; but there is a bound to that.
func TestConn_TheEndOfAnAnswerDoesNotWait(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		pending, length int
		last, takes     bool
	}{
		"room":                     {highWater - 1, leastBatch + 1, false, true},
		"no room":                  {highWater, 1, false, false},
		"the end of an answer":     {highWater, leastBatch, true, true},
		"the end of a long answer": {highWater, leastBatch + 1, true, false},
		"far too many of them":     {2 * highWater, 1, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &conn{window: 1 << 20, out: make([]byte, tt.pending), peer: peerSettings{maxFrame: leastFrame}}
			c.mu.Lock()
			defer c.mu.Unlock()
			st := &stream{c: c, window: 1 << 20, last: tt.last}
			if rest := c.pushLocked(st, make([]byte, tt.length), true); len(rest) == 0 != tt.takes {
				t.Errorf("%d of %d bytes wait", len(rest), tt.length)
			}
		})
	}
}

// A head, or a trailer, waits while too much is there that the peer does not take, for no window, and no longer than its stream
// is there.
func TestAudit_ATK14_HeadsOfAnswersWaitForRoom(t *testing.T) {
	t.Parallel()
	fields := http.Header{"X": {"y"}}
	for name, tt := range map[string]struct {
		pending int
		waits   bool
		ends    bool // the stream does, while it waits
	}{
		"room":                    {2*highWater - 1, false, false},
		"no room":                 {2 * highWater, true, false},
		"no room until it breaks": {2 * highWater, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := &conn{out: make([]byte, tt.pending), peer: peerSettings{maxFrame: leastFrame}, flushing: true} // another one writes
				c.encoder = hpack.NewEncoder(&c.block)
				st := &stream{c: c, id: 1}
				st.can.L = &c.mu
				done := make(chan error, 1)
				go func() {
					c.mu.Lock()
					defer c.mu.Unlock()
					done <- c.sendHeadLocked(st, "200", fields, false)
				}()
				synctest.Wait()
				if waits := len(done) == 0; waits != tt.waits {
					t.Fatalf("it waits: %t", waits)
				}
				c.mu.Lock()
				if tt.waits && len(c.watching) != 1 {
					t.Errorf("%d wait", len(c.watching))
				}
				if tt.ends {
					st.err = errGone
				} else if tt.waits {
					c.out = nil
				}
				c.wakeBlockedLocked()
				c.mu.Unlock()
				if err := <-done; tt.ends != errors.Is(err, errGone) || !tt.ends && len(c.out)%(2*highWater-1) == 0 {
					t.Errorf("%v, with %d bytes", err, len(c.out))
				}
			})
		})
	}
}

type shared int

func (s shared) Sharers() int { return int(s) }

// What waits to be written on all connections of a peer together has a bound, but for a frame on each.
func TestAudit_ATK14_ManyConnectionsOfAPeerKeepNoMoreThanAFew(t *testing.T) {
	t.Parallel()
	for conns, most := range map[int]int{
		0: highWater, 1: highWater, fullShares: highWater, 2 * fullShares: highWater / 2,
		4 * fullShares: highWater / 4, 1_000: leastFrame,
	} {
		c := &conn{window: 1 << 20, shared: shared(conns), peer: peerSettings{maxFrame: leastFrame}}
		c.mu.Lock()
		if n := c.roomLeftLocked(); n != int64(most) {
			t.Errorf("%d connections: room for %d on each, want %d", conns, n, most)
		}
		st := &stream{c: c, window: 1 << 20}
		for p := make([]byte, 1<<20); ; {
			before := len(p)
			if p = c.pushLocked(st, p, false); len(p) == before {
				break
			}
		}
		if n := len(c.out); n < most || n > most+2*leastFrame {
			t.Errorf("%d connections: %d bytes wait on each, want %d", conns, n, most)
		}
		c.mu.Unlock()
	}
}

// Who waits with the short end of an answer is woken before those with long ones, whoever came first.
func TestConn_ShortAnswersComeFirst(t *testing.T) {
	t.Parallel()
	c := &conn{window: 1, peer: peerSettings{maxFrame: leastFrame}}
	c.mu.Lock()
	defer c.mu.Unlock()
	var long, short [2]*stream
	for i := range long {
		long[i], short[i] = &stream{c: c, window: leastFrame}, &stream{c: c, window: leastFrame, last: true}
		for _, st := range []*stream{long[i], short[i]} {
			st.can.L = &c.mu
			c.window = 0
			if rest := c.pushLocked(st, make([]byte, 1), true); len(rest) != 1 {
				t.Fatal("sent without a window")
			}
			c.awaitLocked(st)
			st.waits = true
		}
	}
	for _, next := range []*stream{short[0], short[1], long[0], long[1]} {
		c.window = 1
		if c.wakeBlockedLocked(); !next.turn || c.woken != 1 {
			t.Fatalf("%d have a turn, the next one: %v", c.woken, next.turn)
		}
		c.window, next.waits = 0, false
		c.yieldLocked(next)
	}
}
