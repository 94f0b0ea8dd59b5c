package edge_test

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/edge"
)

// Where only who is trusted is let in, a TLS handshake that moves keeps its place for as long
// again, and bytes that answer nothing keep it no longer.
func TestListener_AHandshakeThatMovesKeepsItsPlace(t *testing.T) {
	t.Parallel()
	server, client := certificate(t)
	const silence = 500 * time.Millisecond
	for name, play := range map[string]struct {
		says func(t *testing.T, c net.Conn) // after half of the silence
		kept bool
	}{
		"moves": {func(t *testing.T, c net.Conn) {
			t.Helper()
			go func() { _ = tls.Client(&muted{Conn: c}, client).HandshakeContext(t.Context()) }()
		}, true},
		"dribbles": {func(t *testing.T, c net.Conn) {
			t.Helper()
			if _, err := c.Write([]byte{22, 3, 1}); err != nil {
				t.Error(err)
			}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				below := &pipes{conns: make(chan net.Conn), shut: make(chan struct{})}
				var met crowded
				l := edge.Listen(below, edge.Config{
					TLS: server, Trusted: true, HandshakeTimeout: time.Hour, MaxConnections: 10, MaxPerAddress: 1, Silence: silence,
					Key:     func(net.Addr) string { return "one" },
					Refused: func(_ net.Addr, err error) { met.add(err) },
				})
				defer l.End()
				first := knock(t, below)
				time.Sleep(silence / 2)
				play.says(t, first)
				synctest.Wait()
				for _, after := range []time.Duration{silence * 3 / 4, silence} {
					time.Sleep(after)
					before := len(met.all())
					newcomer := knock(t, below)
					synctest.Wait()
					refused := slices.Contains(met.all()[before:], edge.ErrNoPlace)
					if want := play.kept && after < silence; refused != want {
						t.Errorf("after %v: a newcomer is refused: %t, want %t", after, refused, want)
					}
					_ = newcomer.Close()
					synctest.Wait()
				}
				_ = first.Close()
			})
		})
	}
}

// A full listener makes room for who came, and for nobody before: who takes long over TLS is not cut off
// where nobody waits for its place.
func TestListener_MakesRoomForWhoCame(t *testing.T) {
	t.Parallel()
	server, _ := certificate(t)
	const silence = 500 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		below := &pipes{conns: make(chan net.Conn), shut: make(chan struct{})}
		l := edge.Listen(below, edge.Config{
			TLS: server, Trusted: true, HandshakeTimeout: time.Hour, MaxConnections: 1, MaxPerAddress: 1, Silence: silence,
			Key: func(net.Addr) string { return "one" },
		})
		defer l.End()
		first := knock(t, below)
		isOpen := func() bool {
			_ = first.SetReadDeadline(time.Now().Add(time.Millisecond))
			_, err := first.Read(make([]byte, 1))
			return errors.Is(err, os.ErrDeadlineExceeded)
		}
		time.Sleep(4 * silence)
		if !isOpen() || l.Len() != 1 {
			t.Error("the connection was cut off for nobody")
		}
		_ = knock(t, below)
		synctest.Wait()
		if isOpen() || l.Len() != 1 {
			t.Error("a newcomer did not get the place of one that says nothing")
		}
		_ = knock(t, below) // waits, and ends with the listener
		synctest.Wait()
	})
}

// knock connects.
func knock(t *testing.T, to *pipes) net.Conn {
	t.Helper()
	near, far := net.Pipe()
	to.conns <- placed{near, "127.0.0.2"}
	t.Cleanup(func() { _ = far.Close() })
	return far
}

// muted sends the first piece of what is written.
type muted struct {
	net.Conn

	said bool
}

func (m *muted) Write(p []byte) (int, error) {
	if m.said {
		return len(p), nil
	}
	m.said = true
	return m.Conn.Write(p)
}
