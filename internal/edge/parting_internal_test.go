package edge

import (
	"errors"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

// slow is a connection that takes what is written when it is let.
type slow struct {
	net.Conn

	begun chan struct{} // for each write
	takes chan struct{}

	mu    sync.Mutex
	frame []byte // the kinds of those that were written
}

func (s *slow) Write(p []byte) (int, error) {
	s.begun <- struct{}{}
	<-s.takes
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frame = append(s.frame, p[3])
	return len(p), nil
}

func (s *slow) Read(p []byte) (int, error)  { return copy(p, goAway(0, "")), nil }
func (s *slow) SetDeadline(time.Time) error { return nil }
func (s *slow) RemoteAddr() net.Addr        { return &net.TCPAddr{} }

func (s *slow) written() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.frame)
}

// Who is cut off while something is being written is told why, and neither who reads nor who
// writes hears of the end before: they close the connection.
func TestConn_TellsBeforeItEnds(t *testing.T) {
	t.Parallel()
	raw := &slow{begun: make(chan struct{}, 3), takes: make(chan struct{})}
	rules := usual
	rules.of[refusals].limit(Rate{PerSecond: 1, Burst: 1})
	c := &Conn{Conn: raw, slot: &slot{listener: &Listener{}}, meter: newMeter(time.Now(), &rules), gone: make(chan struct{})}
	ping := append([]byte{0, 0, 8, framePing, 1, 0, 0, 0, 0}, make([]byte, 8)...)
	go func() { _, _ = c.Write(ping) }()
	<-raw.begun
	go func() {
		for range 3 {
			c.Refused()
		}
	}()
	for cut := false; !cut; runtime.Gosched() {
		c.mu.Lock()
		cut = c.cut != nil
		c.mu.Unlock()
	}
	ended := make(chan string, 2)
	for name, do := range map[string]func([]byte) (int, error){"read": c.Read, "write": c.Write} {
		go func() {
			if _, err := do(slices.Clone(ping)); !errors.Is(err, ErrCutOff) {
				t.Errorf("%s: %v", name, err)
			}
			ended <- raw.written()
		}()
	}
	for range 100 {
		runtime.Gosched() // whoever would not wait has not waited by then
	}
	close(raw.takes)
	want := string([]byte{framePing, frameGoAway})
	for range 2 {
		if got := <-ended; got != want {
			t.Errorf("whoever hears of the end finds written %q, want %q", got, want)
		}
	}
}

// Who is cut off is told why behind a whole frame. Within one it would take that for the rest of it, and is
// told nothing.
func TestConn_TellsBetweenFrames(t *testing.T) {
	t.Parallel()
	ping := append([]byte{0, 0, 8, framePing, 1, 0, 0, 0, 0}, make([]byte, 8)...)
	for name, c := range map[string]struct {
		length int
		want   string
	}{
		"within a header":  {headerLen - 1, string([]byte{framePing})},
		"after a header":   {headerLen, string([]byte{framePing})},
		"within a payload": {len(ping) - 1, string([]byte{framePing})},
		"between frames":   {len(ping), string([]byte{framePing, frameGoAway})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw := &slow{begun: make(chan struct{}, 2), takes: make(chan struct{})}
			close(raw.takes)
			rules := usual
			rules.of[refusals].limit(Rate{PerSecond: 1e-6, Burst: 1})
			conn := &Conn{Conn: raw, slot: &slot{listener: &Listener{}}, meter: newMeter(time.Now(), &rules), gone: make(chan struct{})}
			if _, err := conn.Write(ping[:c.length]); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				conn.Refused()
			}
			if got := raw.written(); got != c.want {
				t.Errorf("written %q, want %q", got, c.want)
			}
		})
	}
}

// A stream that is reset because its request was refused is paid for by the account that the refusal was:
// however many come, the connection is not cut off. Streams that are reset for another reason are not paid for.
func TestAudit_ATK14_ResetsOfRefusedRequestsArePaidFor(t *testing.T) {
	t.Parallel()
	const many = 50
	reset := append([]byte{0, 0, 4, frameReset, 0, 0, 0, 0, 1}, make([]byte, 4)...)
	for name, tt := range map[string]struct {
		refused bool
		cut     bool
	}{
		"of refused requests": {true, false},
		"of others":           {false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw := &slow{begun: make(chan struct{}, many+1), takes: make(chan struct{})}
			close(raw.takes)
			rules := usual
			rules.of[refusals].limit(Rate{PerSecond: 1e-6, Burst: 2})
			c := &Conn{Conn: raw, slot: &slot{listener: &Listener{}}, meter: newMeter(time.Now(), &rules), gone: make(chan struct{})}
			c.Bill(NewAccount(Rate{PerSecond: 1e9, Burst: 1e9}, Rate{PerSecond: 1e9, Burst: 1e9}))
			for range many {
				if tt.refused {
					c.Refused()
				}
				if _, err := c.Write(reset); err != nil {
					break
				}
			}
			if c.isCut() != tt.cut {
				t.Errorf("cut off: %t, want %t", c.isCut(), tt.cut)
			}
		})
	}
}
