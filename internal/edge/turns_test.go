package edge_test

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/edge"
	"github.com/masegraye/connect-plugin-go/internal/turns"
)

// Where so many begin a TLS handshake that one waits for its turn for longer than it may take, that is none of its time.
func TestAudit_USE42_WaitingForATurnIsNoneOfTheHandshakesTime(t *testing.T) {
	t.Parallel()
	server, client := certificate(t)
	synctest.Test(t, func(t *testing.T) {
		const limit, others = time.Second, 100
		process := turns.NewProcess(1)
		below := &pipes{conns: make(chan net.Conn), shut: make(chan struct{})}
		l := edge.Listen(below, edge.Config{
			TLS: server, HandshakeTimeout: limit, MaxConnections: 10, MaxPerAddress: 10, Silence: time.Hour, Turns: process,
			Key:     func(net.Addr) string { return "one" },
			Refused: func(_ net.Addr, err error) { t.Errorf("refused after it had waited: %v", err) },
		})
		var busy sync.WaitGroup
		defer busy.Wait()
		defer l.End()
		for range others {
			busy.Go(func() {
				if all := process.Of(0); all.Await(t.Context()) {
					time.Sleep(turns.Longest / 2) // in the bubble
					all.Give()
				}
			})
		}
		synctest.Wait()
		began := time.Now()
		busy.Go(func() { _ = tls.Client(knock(t, below), client).HandshakeContext(t.Context()) })
		if _, err := l.Accept(); err != nil || time.Since(began) < 2*limit {
			t.Errorf("accepted after %v, %v", time.Since(began), err)
		}
	})
}

// Who says nothing, or says it slowly, has its time and no more.
func TestListener_AHandshakeHasItsTimeAndNoMore(t *testing.T) {
	t.Parallel()
	server, _ := certificate(t)
	for name, pause := range map[string]time.Duration{"silent": time.Hour, "slow": 150 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const limit = time.Second
				refused := make(chan error, 1)
				below := &pipes{conns: make(chan net.Conn), shut: make(chan struct{})}
				l := edge.Listen(below, edge.Config{
					TLS: server, HandshakeTimeout: limit, MaxConnections: 10, MaxPerAddress: 10, Silence: time.Hour,
					Turns: turns.NewProcess(1), Key: func(net.Addr) string { return "one" },
					Refused: func(_ net.Addr, err error) { refused <- err },
				})
				defer l.End()
				c, began := knock(t, below), time.Now()
				var saying sync.WaitGroup
				defer saying.Wait()
				saying.Go(func() {
					for _, b := range []byte{22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3} { // how a ClientHello begins
						time.Sleep(pause) // in the bubble
						if _, err := c.Write([]byte{b}); err != nil {
							return
						}
					}
				})
				if err := <-refused; !errors.Is(err, edge.ErrSlow) || time.Since(began) != limit {
					t.Errorf("refused after %v: %v", time.Since(began), err)
				}
				_ = c.Close()
			})
		})
	}
}

// In plaintext there is nothing to compute, and nobody waits for a turn.
func TestListener_PlaintextTakesNoTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		process := turns.NewProcess(1)
		below := &pipes{conns: make(chan net.Conn), shut: make(chan struct{})}
		l := edge.Listen(below, edge.Config{
			HandshakeTimeout: time.Second, MaxConnections: 10, MaxPerAddress: 10, Silence: time.Hour, Turns: process,
			Key: func(net.Addr) string { return "one" },
		})
		defer l.End()
		began := time.Now()
		for range 3 { // each read something, and does not read on
			c := knock(t, below)
			go func() { _, _ = c.Write([]byte("GET")) }()
			s, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if n, err := s.Read(make([]byte, 3)); n == 0 || time.Since(began) > 0 {
				t.Errorf("read %d bytes after %v, %v", n, time.Since(began), err)
			}
		}
	})
}
