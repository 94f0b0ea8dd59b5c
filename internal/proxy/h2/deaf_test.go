package h2_test

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// gone is a connection whose peer has gone: nothing can be written once it broke, and what the peer said before is read when it is let.
type gone struct {
	net.Conn

	broken atomic.Bool
	once   sync.Once
	failed chan struct{}
}

func (g *gone) Write(p []byte) (int, error) {
	if g.broken.Load() {
		g.once.Do(func() { close(g.failed) })
		return 0, &net.OpError{Op: "write", Err: syscall.EPIPE}
	}
	return g.Conn.Write(p)
}

func (g *gone) Read(p []byte) (int, error) {
	if g.broken.Load() {
		<-g.failed
	}
	return g.Conn.Read(p)
}

// A server that goes says with which requests it did nothing, and closes the connection. Who finds at a write that it has gone reads that
// first: those can be made again, an answer that came is one, and of the others nobody knows.
func TestConn_ReadsLastWords(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		says        bool // what it did nothing with
		closes      bool
		unprocessed bool
	}{
		"what it did nothing with": {true, true, true},
		"nothing":                  {false, true, false},
		"nothing, and stays open":  {false, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				g := &gone{Conn: near, failed: make(chan struct{})}
				c, p := handshake(t, config(), g, far)
				defer c.Close()
				answered, _ := open(t, c, get)
				second, _ := open(t, c, get)
				synctest.Wait()
				g.broken.Store(true)
				go func() {
					p.headers(1, true, ":status", "200")
					if tt.says {
						_ = p.fr.WriteGoAway(1, http2.ErrCodeNo, nil)
					}
					if tt.closes {
						_ = far.Close()
					}
				}()
				third, _ := open(t, c, get)
				begun := time.Now()
				if _, _, err := c.Open(get); c.Usable() || !errors.Is(err, h2.ErrClosed) {
					t.Errorf("another one, usable %t: %v", c.Usable(), err)
				}
				if status, _, err := answered.Head(); err != nil || status != 200 {
					t.Errorf("the one that was answered: %d, %v", status, err)
				}
				if err := failure(second); errors.Is(err, h2.ErrUnprocessed) != tt.unprocessed {
					t.Errorf("one that the server had: %v", err)
				}
				if err := failure(third); !errors.Is(err, h2.ErrUnprocessed) {
					t.Errorf("one that was not written: %v", err)
				}
				if took := time.Since(begun); took > time.Second {
					t.Errorf("it takes %v", took)
				}
			})
		})
	}
}
