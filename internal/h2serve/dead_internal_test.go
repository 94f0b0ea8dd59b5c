package h2serve

import "testing"

// A stream that ended does not wait among others: nobody holds it, however long there is no room.
func TestConn_WhoEndedDoesNotWait(t *testing.T) {
	t.Parallel()
	c := &conn{s: &Server{cfg: Config{ConnWindow: initialWindow}}, recvWindow: initialWindow, streams: map[uint32]*stream{}}
	c.mu.Lock()
	defer c.mu.Unlock()
	streams := make([]*stream, 3)
	for i := range streams {
		st := &stream{c: c, id: uint32(2*i + 1), window: 1, remote: true, cancel: func() {}}
		st.can.L = &c.mu
		c.streams[st.id], streams[i] = st, st
		c.awaitLocked(st)
	}
	streams[1].breakLocked(errReset)
	if len(c.blocked) != 2 || c.blocked[0] != streams[0] || c.blocked[1] != streams[2] || streams[1].blocked {
		t.Errorf("%d wait", len(c.blocked))
	}
	for left := len(streams) - 1; left > 0; left-- {
		if c.blocked[0].breakLocked(errReset); len(c.blocked) != left-1 {
			t.Errorf("%d wait after the end of others", len(c.blocked))
		}
	}
}
