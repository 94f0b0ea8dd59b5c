package h2serve

import (
	"testing"
	"time"
)

// A server that pings in use only pings a connection with a stream, and neither pings nor gives up one
// without; others look after both.
func TestPingInUse(t *testing.T) {
	t.Parallel()
	const after, answer, period = 4 * time.Second, 2 * time.Second, time.Second
	for name, tt := range map[string]struct {
		inUse, stream bool
		pings         bool
	}{
		"any, without a stream":    {false, false, true},
		"any, with a stream":       {false, true, true},
		"in use, without a stream": {true, false, false},
		"in use, with a stream":    {true, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &conn{streams: map[uint32]*stream{}, flushing: true, s: &Server{cfg: Config{
				IdleTimeout: time.Hour, PingAfter: after, PingTimeout: answer, WriteTimeout: time.Hour, PingInUse: tt.inUse,
			}}}
			if tt.stream {
				c.streams[1] = &stream{}
			}
			var err error
			for range (after + answer) / period {
				err = c.lookLocked(period)
			}
			if pinged := len(c.out) > 0; pinged != tt.pings || (err != nil) != tt.pings {
				t.Errorf("pinged %v and then %v, want %v", pinged, err, tt.pings)
			}
		})
	}
}

// A stream that comes after a long rest has the peer asked after a whole silence, not at once.
func TestPingInUseAfterARest(t *testing.T) {
	t.Parallel()
	const after, period = 4 * time.Second, time.Second
	c := &conn{streams: map[uint32]*stream{}, flushing: true, s: &Server{cfg: Config{
		IdleTimeout: time.Hour, PingAfter: after, PingTimeout: after, WriteTimeout: time.Hour, PingInUse: true,
	}}}
	for range 100 {
		if err := c.lookLocked(period); err != nil {
			t.Fatal(err)
		}
	}
	c.streams[1] = &stream{}
	for n := 1; len(c.out) == 0; n++ {
		if err := c.lookLocked(period); err != nil || n > int(after/period) {
			t.Fatalf("after %d looks: %v", n, err)
		}
		if len(c.out) > 0 && n < int(after/period) {
			t.Errorf("asked after %d looks", n)
		}
	}
}
