package gather_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/gather"
)

// accepted is a listener that hands out given connections.
type accepted chan net.Conn

func (a accepted) Accept() (net.Conn, error) {
	c, ok := <-a
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (a accepted) Close() error   { close(a); return nil }
func (a accepted) Addr() net.Addr { return &net.TCPAddr{} }

// counted counts writes and closes.
type counted struct {
	net.Conn

	writes atomic.Int64
	closed atomic.Bool
}

func (c *counted) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

func (c *counted) Close() error {
	c.closed.Store(true)
	return c.Conn.Close()
}

type rig struct {
	conn  net.Conn // gathers
	inner *counted
	peer  net.Conn
	l     *gather.Listener
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{}
	near, far := net.Pipe()
	r.inner, r.peer = &counted{Conn: near}, far
	from := make(accepted, 1)
	from <- r.inner
	r.l = gather.NewListener(from, gather.Config{WriteTimeout: 30 * time.Second, CloseTimeout: time.Second})
	var err error
	if r.conn, err = r.l.Accept(); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestConn_GathersWhatComesTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		const pieces = 100
		for range pieces {
			if n, err := r.conn.Write([]byte("piece")); n != 5 || err != nil {
				t.Fatalf("Write = %d, %v", n, err)
			}
		}
		got := make([]byte, 5*pieces)
		if _, err := io.ReadFull(r.peer, got); err != nil || !bytes.Equal(got, bytes.Repeat([]byte("piece"), pieces)) {
			t.Fatalf("read %q, %v", got, err)
		}
		if n := r.inner.writes.Load(); n > 2 {
			t.Errorf("%d pieces were written in %d writes", pieces, n)
		}
		_ = r.conn.Close()
		r.l.Wait()
	})
}

func TestConn_BoundsWhatWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		_ = r.conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
		taken := 0
		begun := time.Now()
		for {
			n, err := r.conn.Write(make([]byte, 16<<10))
			taken += n
			if err != nil {
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("Write: %v", err)
				}
				break
			}
		}
		if waited := time.Since(begun); waited != 5*time.Second {
			t.Errorf("Write waited for %v, its deadline is after 5 s", waited)
		}
		if taken > 160<<10 {
			t.Errorf("%d bytes wait for a peer that reads nothing", taken)
		}
		_ = r.conn.SetWriteDeadline(time.Time{})
		_, err := r.conn.Write(make([]byte, 16<<10))
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) != 30*time.Second {
			t.Errorf("after %v: %v; want the write timeout of the connection", time.Since(begun), err)
		}
		_ = r.conn.Close()
		r.l.Wait()
	})
}

func TestConn_SlowPeerIsNotCutOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		const size = 4000
		if _, err := r.conn.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		for range 4 {
			time.Sleep(20 * time.Second)
			if _, err := io.ReadFull(r.peer, make([]byte, size/4)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := r.conn.Write([]byte("more")); err != nil {
			t.Errorf("Write: %v", err)
		}
		_ = r.peer.Close()
		_ = r.conn.Close()
		r.l.Wait()
	})
}

func TestConn_CloseWritesTheRestWithinABound(t *testing.T) {
	t.Parallel()
	for name, reads := range map[string]bool{"peer reads": true, "peer does not": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				_, _ = r.conn.Write([]byte("last words"))
				synctest.Wait() // the writer is at work
				begun := time.Now()
				if err := r.conn.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
				if time.Since(begun) != 0 {
					t.Errorf("Close waited for %v", time.Since(begun))
				}
				if _, err := r.conn.Write([]byte("more")); !errors.Is(err, net.ErrClosed) {
					t.Errorf("Write after Close: %v", err)
				}
				if err := r.conn.Close(); !errors.Is(err, net.ErrClosed) {
					t.Errorf("second Close: %v", err)
				}
				if reads {
					if got, err := io.ReadAll(r.peer); string(got) != "last words" || err != nil {
						t.Errorf("read %q, %v", got, err)
					}
				}
				r.l.Wait()
				if waited := time.Since(begun); !reads && waited != time.Second || reads && waited != 0 {
					t.Errorf("closed after %v", waited)
				}
				if !r.inner.closed.Load() {
					t.Error("the connection is still open")
				}
			})
		})
	}
}

func TestConn_AnErrorSurfacesWithALaterWrite(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		_ = r.peer.Close()
		_, _ = r.conn.Write([]byte("a"))
		synctest.Wait()
		if _, err := r.conn.Write([]byte("b")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("Write: %v", err)
		}
		_ = r.conn.Close()
		r.l.Wait()
	})
}

// TestListener_ServesHTTP2 serves a stream that is flushed message by message.
func TestListener_ServesHTTP2(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for range 100 {
			_, _ = io.WriteString(w, "message")
			_ = http.NewResponseController(w).Flush()
		}
	}))
	l := gather.NewListener(s.Listener, gather.Config{})
	s.Listener = l
	s.EnableHTTP2 = true
	s.StartTLS()
	resp, err := s.Client().Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || len(got) != 700 || resp.ProtoMajor != 2 || resp.TLS.Version != tls.VersionTLS13 {
		t.Errorf("%d bytes over %s: %v", len(got), resp.Proto, err)
	}
	s.Close()
	l.Wait()
}
