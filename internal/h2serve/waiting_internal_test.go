package h2serve

import (
	"testing"
	"testing/synctest"
)

// A stream that ended does not wait among others: nobody holds it, however long there is no room.
func TestConn_WhoEndedDoesNotWait(t *testing.T) {
	t.Parallel()
	c := &conn{s: &Server{cfg: Config{ConnWindow: initialWindow}}, recvWindow: initialWindow, streams: map[uint32]*stream{}}
	c.mu.Lock()
	defer c.mu.Unlock()
	streams := make([]*stream, 4)
	for i := range streams {
		st := &stream{c: c, id: uint32(2*i + 1), window: 1, remote: true}
		st.can.L = &c.mu
		st.ctx.InitKept(t.Context())
		c.streams[st.id], streams[i] = st, st
		st.brief = i == len(streams)-1 // it waits before the others
		c.awaitLocked(st)
	}
	streams[len(streams)-1].breakLocked(errReset)
	if len(c.brief) != 0 || len(c.blocked) != len(streams)-1 {
		t.Errorf("%d and %d wait", len(c.brief), len(c.blocked))
	}
	streams[1].breakLocked(errReset)
	if len(c.blocked) != 2 || c.blocked[0] != streams[0] || c.blocked[1] != streams[2] || streams[1].blocked {
		t.Errorf("%d wait", len(c.blocked))
	}
	for left := 2; left > 0; left-- {
		if c.blocked[0].breakLocked(errReset); len(c.blocked) != left-1 {
			t.Errorf("%d wait after the end of others", len(c.blocked))
		}
	}
}

// Who waits with a long answer comes to its turn, however many short ones there are all the time.
func TestConn_ShortAnswersDoNotKeepOthersForEver(t *testing.T) {
	t.Parallel()
	const rounds = 2 * mostPassed
	c := &conn{window: 1 << 20}
	c.mu.Lock()
	defer c.mu.Unlock()
	wait := func(brief bool) *stream {
		st := &stream{c: c, window: 1, brief: brief, waits: true}
		st.can.L = &c.mu
		c.awaitLocked(st)
		return st
	}
	c.woken = highWater / leastFrame // as many as there may be
	long := wait(false)
	for n := 0; !long.turn; n++ {
		if n == rounds {
			t.Fatal("the long answer waits for ever")
		}
		for len(c.brief) < 3 {
			wait(true)
		}
		c.woken--
		c.wakeBlockedLocked()
		if n < mostPassed && long.turn {
			t.Fatalf("the long answer comes after %d short ones", n)
		}
	}
}

// Who had a turn, found no room and waits again gives the turn back: else as many as there is room for
// once would keep all others waiting for ever.
func TestConn_WhoWaitsAgainHasNoTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &conn{flushing: true, peer: peerSettings{maxFrame: leastFrame}}
		st := &stream{c: c, window: leastFrame}
		st.can.L = &c.mu
		sent := make(chan error, 1)
		go func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			sent <- c.sendLocked(st, []byte{0}, false)
		}()
		wake := func(left int64) {
			synctest.Wait()
			c.mu.Lock()
			defer c.mu.Unlock()
			if !st.waits || st.turn || c.woken != 0 {
				t.Errorf("it waits: %v, has a turn: %v; %d have", st.waits, st.turn, c.woken)
			}
			c.window = leastFrame
			c.wakeBlockedLocked()
			if !st.turn || c.woken != 1 {
				t.Errorf("woken: %v, %d", st.turn, c.woken)
			}
			c.window = left
		}
		wake(0) // others take it meanwhile
		wake(0)
		wake(1)
		synctest.Wait()
		c.mu.Lock()
		defer c.mu.Unlock()
		if err := <-sent; err != nil || c.woken != 0 {
			t.Errorf("sent: %v; %d have a turn", err, c.woken)
		}
	})
}

// Who has sent all that it had and is still among those that wait, as its own window grew before it
// was its turn, gets no turn any more: nobody would give it back.
func TestConn_WhoHasSentAllHasNoTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &conn{flushing: true, peer: peerSettings{maxFrame: leastFrame}}
		st := &stream{c: c, window: leastFrame}
		st.can.L = &c.mu
		sent := make(chan error, 1)
		go func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			sent <- c.sendLocked(st, []byte{0}, false)
		}()
		synctest.Wait()
		c.mu.Lock()
		c.window = leastFrame
		st.wakeLocked()
		c.mu.Unlock()
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.blocked) != 1 {
			t.Fatalf("%d are among those that wait", len(c.blocked))
		}
		if c.wakeBlockedLocked(); st.waits || st.turn || c.woken != 0 {
			t.Errorf("it waits: %v, has a turn: %v; %d have", st.waits, st.turn, c.woken)
		}
	})
}

// A long answer that had its turn does not come before short ones once more, and what came before
// nobody counts for nobody.
func TestConn_ALongAnswerComesOnceInAWhile(t *testing.T) {
	t.Parallel()
	c := &conn{window: 1 << 20}
	c.mu.Lock()
	defer c.mu.Unlock()
	wait := func(brief bool) *stream {
		st := &stream{c: c, window: 1, brief: brief}
		st.can.L = &c.mu
		c.awaitLocked(st)
		return st
	}
	shortBeforeLong := func() (n int) {
		for c.nextLocked().brief {
			wait(true)
			n++
		}
		return n
	}
	gone := wait(false)
	wait(true)
	for range mostPassed { // who was passed gives up, and then no other waits
		c.nextLocked()
		wait(true)
	}
	c.unblockLocked(gone)
	c.nextLocked()
	wait(true)
	for range 3 {
		wait(false)
		if n := shortBeforeLong(); n != mostPassed {
			t.Errorf("%d short answers come before a long one, want %d", n, mostPassed)
		}
	}
	for range 2 {
		wait(false)
	}
	for range 2 { // who waits longest has waited since before the other's turn
		if n := shortBeforeLong(); n != mostPassed {
			t.Errorf("%d short answers come between two long ones, want %d", n, mostPassed)
		}
	}
}

// When a connection has ended, nobody waits for room on it.
func TestConn_AnErrorWakesWhoWaits(t *testing.T) {
	t.Parallel()
	c := &conn{}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range 4 {
		st := &stream{c: c, window: 1, brief: i%2 == 0, waits: true}
		st.can.L = &c.mu
		c.awaitLocked(st)
	}
	if c.wakeBlockedLocked(); len(c.blocked)+len(c.brief) != 4 {
		t.Errorf("%d wait without room, want 4", len(c.blocked)+len(c.brief))
	}
	c.err = errClosed
	if c.wakeBlockedLocked(); len(c.blocked)+len(c.brief) != 0 {
		t.Errorf("%d wait on a connection that has ended", len(c.blocked)+len(c.brief))
	}
}
