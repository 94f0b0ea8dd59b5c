package edge_test

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/edge"
)

// single is a listener with one connection.
type single struct {
	conn atomic.Pointer[net.Conn]
	shut chan struct{}
}

func (s *single) Accept() (net.Conn, error) {
	if c := s.conn.Swap(nil); c != nil {
		return *c, nil
	}
	<-s.shut
	return nil, net.ErrClosed
}
func (s *single) Close() error   { close(s.shut); return nil }
func (s *single) Addr() net.Addr { return &net.TCPAddr{} }

// account pays for bytes, and for as many refusals as there are.
func account(perSecond float64, burst int) *edge.Account {
	return edge.NewAccount(edge.Rate{PerSecond: perSecond, Burst: burst}, edge.Rate{PerSecond: 1e9, Burst: 1e9})
}

// pair is a connection that an account pays for, and its peer.
func pair(t *testing.T, a *edge.Account) (paid *edge.Conn, peer net.Conn) {
	t.Helper()
	near, far := net.Pipe()
	below := &single{shut: make(chan struct{})}
	below.conn.Store(&near)
	l := edge.Listen(below, edge.Config{
		MaxConnections: 1, MaxPerAddress: 1, Silence: time.Hour, Key: func(net.Addr) string { return "peer" },
	})
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	paid, _ = c.(*edge.Conn)
	paid.Bill(a)
	t.Cleanup(func() {
		_ = far.Close()
		_ = paid.Close()
		l.End()
	})
	return paid, far
}

// What exceeds an account is carried later, whichever way it goes, and on each connection.
func TestAccount_WhatIsNotPaidWaits(t *testing.T) {
	t.Parallel()
	const perSecond, burst, piece = 1000, 2000, 500
	for name, carry := range map[string]func(paid, peer net.Conn) error{
		"received": func(paid, peer net.Conn) error { return pass(peer, paid, piece) },
		"sent":     func(paid, peer net.Conn) error { return pass(paid, peer, piece) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := account(perSecond, burst)
				one, peer := pair(t, a)
				two, other := pair(t, a)
				begun := time.Now()
				for range burst / piece / 2 {
					if err := errors.Join(carry(one, peer), carry(two, other)); err != nil {
						t.Fatal(err)
					}
				}
				if took := time.Since(begun); took > 0 || a.Debt(time.Now()) > 0 {
					t.Errorf("within the burst it takes %v; debt %v", took, a.Debt(time.Now()))
				}
				const more = 20
				for range more {
					if err := errors.Join(carry(one, peer), carry(two, other)); err != nil {
						t.Fatal(err)
					}
				}
				if took, want := time.Since(begun), (more-1)*time.Second; took < want || took > want+2*time.Second {
					t.Errorf("%d bytes beyond it take %v, want %v", 2*more*piece, took, want)
				}
			})
		})
	}
}

func pass(from, to net.Conn, n int) error {
	sent := make(chan error, 1)
	go func() {
		_, err := from.Write(make([]byte, n))
		sent <- err
	}()
	_, err := io.ReadFull(to, make([]byte, n))
	return errors.Join(err, <-sent)
}

// Whoever waits is not kept by a debt that is large, and not beyond the end of the connection.
func TestAccount_PausesAreShort(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := account(1e-6, 1)
		c, peer := pair(t, a)
		if err := pass(peer, c, 100); err != nil {
			t.Fatal(err)
		}
		if debt := a.Debt(time.Now()); debt != time.Minute || a.After(debt, 1<<40) != time.Minute {
			t.Errorf("the debtor is told %v, then %v", debt, a.After(debt, 1<<40))
		}
		if after := account(100, 100).After(2*time.Second, 50); after != 2500*time.Millisecond {
			t.Errorf("who comes again with 50 bytes is told %v", after)
		}
		begun := time.Now()
		if err := pass(peer, c, 100); err != nil || time.Since(begun) != time.Second {
			t.Errorf("another piece takes %v: %v", time.Since(begun), err)
		}
		read := make(chan error, 1)
		go func() {
			_, err := c.Read(make([]byte, 1))
			read <- err
		}()
		synctest.Wait()
		_ = c.Close()
		if err := <-read; err == nil || time.Since(begun) != time.Second {
			t.Errorf("after its end: %v, %v later", err, time.Since(begun)-time.Second)
		}
	})
}

// Without an account nothing waits.
func TestAccount_NobodyPays(t *testing.T) {
	t.Parallel()
	var none *edge.Account
	if debt := none.Debt(time.Now()); debt != 0 {
		t.Error(debt)
	}
	s := start(t, nil)
	c := s.http(t)
	for range 3 {
		if err := s.get(t.Context(), c, "/", string(make([]byte, 1<<20))); err != nil {
			t.Error(err)
		}
	}
}

// An account knows how many connections it pays for: each once, however often it is billed, until it is
// closed or another one pays.
func TestAudit_ATK14_AnAccountCountsItsConnections(t *testing.T) {
	t.Parallel()
	a, other := account(1, 1), account(1, 1)
	first, _ := pair(t, a)
	second, _ := pair(t, a)
	expect := func(when string, c *edge.Conn, want int) {
		t.Helper()
		if n := c.Sharers(); n != want {
			t.Errorf("%s: %d, want %d", when, n, want)
		}
	}
	first.Bill(a)
	expect("billed twice", first, 2)
	second.Bill(other)
	expect("one of another", first, 1)
	expect("the other's", second, 1)
	second.Bill(a)
	_, _ = second.Close(), second.Close()
	second.Bill(other)
	expect("closed", first, 1)
	second.Bill(a)
	expect("billed when it was closed", first, 1)
}
