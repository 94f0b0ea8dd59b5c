package h2serve

import "testing"

// A stream that waits for what all of a connection share waits once, however often it has to, and each
// of those that wait finds its place without a look at the others.
func TestConn_AStreamWaitsOnce(t *testing.T) {
	t.Parallel()
	c := &conn{}
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
