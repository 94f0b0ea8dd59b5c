package edge

import (
	"crypto/tls"
	"math"
	"net"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/turns"
)

// nothing is a listener to which nobody comes.
type nothing struct{ shut chan struct{} }

func (n nothing) Accept() (net.Conn, error) {
	<-n.shut
	return nil, net.ErrClosed
}

func (n nothing) Close() error {
	close(n.shut)
	return nil
}

func (nothing) Addr() net.Addr { return &net.TCPAddr{} }

// at is a connection from an address.
type at struct {
	net.Conn

	from string
}

func (c at) RemoteAddr() net.Addr { return &net.UnixAddr{Name: c.from} }

// quiet is a listener to which nobody comes by itself.
func quiet() *Listener {
	return Listen(nothing{make(chan struct{})}, Config{
		TLS: &tls.Config{}, MaxConnections: math.MaxInt, MaxPerAddress: math.MaxInt, Silence: time.Hour,
		Key: func(a net.Addr) string { return a.String() }, Turns: turns.NewProcess(math.MaxInt16),
	})
}

// come has somebody come from an address.
func come(t *testing.T, l *Listener, from string) *slot {
	t.Helper()
	s := l.admit(at{nil, from})
	if !l.place(s) {
		t.Fatal("no place")
	}
	return s
}

// An address whose connections compute in TLS and end, and nobody ever proves to have one, rests for longer between their
// handshakes; one whose connections are somebody's does not, nor one of which a few end, nor does another address.
func TestAudit_H48_HandshakesInVainRestLonger(t *testing.T) {
	t.Parallel()
	const many = 100_000 // as of an hour
	for name, tt := range map[string]struct {
		n                int
		proves, computes bool
		from             string // of the next
		longer           bool
	}{
		"in vain":                     {many, false, true, "a", true},
		"somebody's":                  {many, true, true, "a", false},
		"that sent nothing":           {many, false, false, "a", false},
		"a few, as of who is probing": {1, false, true, "a", false},
		"of another address":          {many, false, true, "b", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := quiet()
				defer l.End()
				come := func(from string) *slot { return come(t, l, from) }
				for range tt.n {
					s := come("a")
					s.conn.computed.Store(tt.computes)
					if tt.proves {
						if err := s.prove(Holder{Name: "somebody", Most: math.MaxInt}); err != nil {
							t.Fatal(err)
						}
					}
					l.remove(s)
				}
				next := come(tt.from)
				want := time.Millisecond
				if tt.longer {
					want *= 5 // so that it computes a sixth of the time
				}
				if got := next.rests(time.Millisecond, nil, time.Now()); got != want {
					t.Errorf("it rests for %v, want %v", got, want)
				}
				time.Sleep(time.Minute)
				if got := next.rests(time.Millisecond, nil, time.Now()); got != time.Millisecond {
					t.Errorf("a minute later it rests for %v", got)
				}
				if got := next.rests(time.Hour, nil, time.Now()); got != longestRest {
					t.Errorf("after an hour it rests for %v", got)
				}
			})
		})
	}
}

// Where TLS handshakes of many addresses are in vain, each of which has few, those compute one after the other as if they were one
// address, and rest for longer; whoever comes from elsewhere does not wait for them.
func TestAudit_H48_HandshakesInVainOfManyAddresses(t *testing.T) {
	t.Parallel()
	const took = time.Millisecond
	for name, tt := range map[string]struct {
		addresses, each int
		later           time.Duration
		from            []string // that have one in their TLS handshake afterwards
		known           bool     // somebody has a connection of each of these
		together        bool     // they compute as one address does
	}{
		"of many":                     {4000, 1, 0, numbered(0, 40), false, true},
		"of a few":                    {2, 1, 0, numbered(0, 40), false, false},
		"of one that has many":        {1, 4000, 0, numbered(0, 40), false, false},
		"beside others":               {4000, 1, 0, numbered(5000, 40), false, false},
		"a minute later, of others":   {4000, 1, time.Minute, numbered(0, 40), false, false},
		"and again from others":       {4000, 2, 0, numbered(100, 40), false, true},
		"of many, through a balancer": {4000, 1, 0, numbered(0, 40), true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := quiet()
				defer l.End()
				inVain := func(from []string) {
					for _, from := range from {
						s := come(t, l, from)
						s.conn.computed.Store(true)
						l.remove(s)
					}
				}
				for range tt.each {
					inVain(numbered(0, tt.addresses))
				}
				if tt.later > 0 {
					time.Sleep(tt.later)
					inVain(numbered(10_000, 4000))
				}
				for _, from := range tt.from {
					if s := come(t, l, from); tt.known && s.prove(Holder{Name: from, Most: 1}) != nil {
						t.Error("nobody is known")
					}
				}
				begun := time.Now()
				var all sync.WaitGroup
				for _, from := range tt.from {
					s := come(t, l, from)
					all.Go(func() {
						s.conn.limit = newLimit(time.Hour, func() {})
						defer s.conn.limit.end()
						s.conn.work()
						time.Sleep(took)
						s.conn.rest()
					})
				}
				all.Wait()
				want := took
				if at := max(runtime.GOMAXPROCS(0)/2, 1); tt.together {
					want += took * time.Duration(1+vainRests) * time.Duration((len(tt.from)-1)/at)
				}
				if got := time.Since(begun); got != want {
					t.Errorf("%d handshakes take %v, want %v", len(tt.from), got, want)
				}
			})
		})
	}
}

// numbered are n addresses.
func numbered(first, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = strconv.Itoa(first + i)
	}
	return out
}
