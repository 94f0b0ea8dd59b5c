package edge

import (
	"crypto/tls"
	"math"
	"net"
	"testing"
	"testing/synctest"
	"time"
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
				l := Listen(nothing{make(chan struct{})}, Config{
					TLS: &tls.Config{}, MaxConnections: math.MaxInt, MaxPerAddress: math.MaxInt, Silence: time.Hour,
					Key: func(a net.Addr) string { return a.String() },
				})
				defer l.End()
				come := func(from string) *slot {
					s := l.admit(at{nil, from})
					if !l.place(s) {
						t.Fatal("no place")
					}
					return s
				}
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
				if got := next.rests(time.Millisecond, time.Now()); (got > time.Millisecond) != tt.longer {
					t.Errorf("it rests for %v", got)
				}
				time.Sleep(time.Minute)
				if got := next.rests(time.Millisecond, time.Now()); got != time.Millisecond {
					t.Errorf("a minute later it rests for %v", got)
				}
				if got := next.rests(time.Hour, time.Now()); got != longestRest {
					t.Errorf("after an hour it rests for %v", got)
				}
			})
		})
	}
}
