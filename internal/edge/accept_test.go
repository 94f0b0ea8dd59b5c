//go:build unix

package edge_test

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/edge"
)

// short is a listener of a system that fails to accept as long as it says so.
type short struct {
	*pipes

	fails atomic.Pointer[error]
}

func (l *short) Accept() (net.Conn, error) {
	select {
	case <-l.shut:
		return nil, net.ErrClosed
	default:
	}
	if err := l.fails.Load(); err != nil {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", *err)}
	}
	return l.pipes.Accept()
}

// Where no connection can be accepted the owner is told; where no descriptors are left whoever proved nothing makes
// room, and who proved something stays.
func TestListener_NoDescriptorsAreToldAndMakeRoom(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err   error
		gives bool
	}{
		"of the process": {syscall.EMFILE, true},
		"of the system":  {syscall.ENFILE, true},
		"another one":    {syscall.EINTR, false},
		"of memory":      {syscall.ENOMEM, false},
		"of a newcomer":  {syscall.EPROTO, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				below := &short{pipes: &pipes{conns: make(chan net.Conn), shut: make(chan struct{})}}
				var met crowded
				l := edge.Listen(below, edge.Config{
					MaxConnections: 10, MaxPerAddress: 10, Silence: time.Hour, Key: func(net.Addr) string { return "one" },
					Refused: func(addr net.Addr, err error) {
						if addr != nil {
							t.Errorf("%v of the address %v", err, addr)
						}
						met.add(err)
					},
				})
				defer l.End()
				synctest.Wait()
				proven := knock(t, below.pipes)
				if c, err := l.Accept(); err != nil || c.(*edge.Conn).Prove(edge.Holder{Name: "proven", Most: 1}) != nil {
					t.Fatal("it is not proven", err)
				}
				idle := knock(t, below.pipes)
				if _, err := l.Accept(); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				below.fails.Store(&tt.err)
				far := knock(t, below.pipes) // which the listener waited for already
				time.Sleep(200 * time.Millisecond)
				synctest.Wait()
				all := met.all()
				if n := len(all); n < 3 || n > 6 {
					t.Errorf("in 200 ms the owner is told %d times", n)
				}
				for _, err := range all {
					if !errors.Is(err, edge.ErrNotAccepted) || !errors.Is(err, tt.err) || edge.NoDescriptors(err) != tt.gives {
						t.Errorf("the owner is told %v", err)
					}
				}
				for _, c := range []net.Conn{idle, far} {
					if closed(c) != tt.gives {
						t.Errorf("one that proved nothing was closed: %v", !tt.gives)
					}
				}
				if closed(proven) {
					t.Error("one that proved something made room")
				}
				below.fails.Store(nil)
				_ = knock(t, below.pipes)
				if _, err := l.Accept(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// closed reports whether the other side closed a connection on which nobody writes.
func closed(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	_, err := c.Read(make([]byte, 1))
	return errors.Is(err, io.EOF)
}
