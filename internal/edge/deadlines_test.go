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

// undated is a connection whose deadlines cannot be set.
type undated struct {
	net.Conn

	both, read, write error
}

func (u *undated) SetDeadline(time.Time) error      { return u.both }
func (u *undated) SetReadDeadline(time.Time) error  { return u.read }
func (u *undated) SetWriteDeadline(time.Time) error { return u.write }

// A connection that has no deadlines, by which limits of time go, is refused, and one that has ended is not taken
// for such.
func TestAudit_USE47_ConnectionsWithoutDeadlinesAreRefused(t *testing.T) {
	t.Parallel()
	none := errors.New("deadlines are not supported")
	for name, tt := range map[string]struct {
		conn    undated
		refused bool
	}{
		"has them":         {undated{}, false},
		"has none":         {undated{both: none, read: none, write: none}, true},
		"none for both":    {undated{both: none}, true},
		"none for reading": {undated{read: none}, true},
		"none for writing": {undated{write: none}, true},
		"closed":           {undated{both: net.ErrClosed}, false},
		"a closed pipe":    {undated{both: io.ErrClosedPipe}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				c := tt.conn
				c.Conn = near
				near = &c
				below := &single{shut: make(chan struct{})}
				below.conn.Store(&near)
				var told atomic.Pointer[error]
				l := edge.Listen(below, edge.Config{
					MaxConnections: 1, MaxPerAddress: 1, Silence: time.Hour, Key: func(net.Addr) string { return "peer" },
					Refused: func(_ net.Addr, err error) { told.Store(&err) },
				})
				accepted := make(chan net.Conn, 1)
				go func() {
					c, _ := l.Accept()
					accepted <- c
				}()
				synctest.Wait()
				if err := told.Load(); (err != nil) != tt.refused || err != nil && (!errors.Is(*err, edge.ErrNoDeadlines) || !errors.Is(*err, none)) {
					t.Errorf("the owner is told %v", err)
				}
				if n := l.Len(); (n == 0) != tt.refused {
					t.Errorf("%d connections are left", n)
				}
				if tt.refused {
					if _, err := far.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
						t.Errorf("who is refused reads %v", err)
					}
				}
				l.End()
				if c := <-accepted; (c == nil) != tt.refused {
					t.Errorf("accepted: %v", c)
				} else if c != nil {
					_ = c.Close()
				}
				_ = far.Close()
			})
		})
	}
}

// What is refused while the listener ends is closed with it.
func TestListener_EndClosesWhatIsRefusedMeanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		var c net.Conn = &undated{Conn: near, both: errors.New("none")}
		below := &single{shut: make(chan struct{})}
		below.conn.Store(&c)
		known := make(chan struct{})
		l := edge.Listen(below, edge.Config{
			MaxConnections: 1, MaxPerAddress: 1, Silence: time.Hour, Key: func(net.Addr) string { <-known; return "peer" },
		})
		synctest.Wait()
		ended := make(chan struct{})
		go func() { l.End(); close(ended) }()
		synctest.Wait()
		close(known)
		<-ended
		_ = far.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("it is left open: %v", err)
		}
		_ = far.Close()
	})
}
