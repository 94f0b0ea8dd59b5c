package probes_test

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/probes"
)

// visit is a connection from an address, which tells whether it was closed.
type visit struct {
	net.Conn

	from   netip.Addr
	closed atomic.Bool
}

func (v *visit) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(v.from, 1))
}

func (v *visit) Close() error {
	v.closed.Store(true)

	return v.Conn.Close()
}

// visits is a listener of connections in memory.
type visits chan net.Conn

func (l visits) Accept() (net.Conn, error) {
	c, ok := <-l
	if !ok {
		return nil, net.ErrClosed
	}

	return c, nil
}
func (visits) Close() error   { return nil }
func (visits) Addr() net.Addr { return &net.TCPAddr{} }

// come is a connection of an address, and what became of it at once. It is closed with the test, in its bubble.
func (l visits) come(t *testing.T, addr string) *visit {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { _ = far.Close() })

	v := &visit{Conn: near, from: netip.MustParseAddr(addr)}
	l <- v
	synctest.Wait()

	return v
}

// One address, or one site of IPv6, has a share of the connections, however much room
// there is: a newcomer takes the place of its oldest, and of nobody else's.
func TestShareOfAnAddress(t *testing.T) {
	t.Parallel()

	for name, from := range map[string]func(i int) string{
		"IPv4":          func(int) string { return "192.0.2.1" },
		"IPv4 in IPv6":  func(i int) string { return []string{"::ffff:192.0.2.1", "192.0.2.1"}[i%2] },
		"loopback":      func(int) string { return "127.0.0.1" },
		"a site's /64":  func(i int) string { return "2001:db8::" + string(rune('1'+i%9)) },
		"IPv6 loopback": func(int) string { return "::1" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := probes.New(http.NotFoundHandler(), slog.New(slog.DiscardHandler))
				l := make(visits)
				served := make(chan error, 1)

				go func() { served <- s.Serve(l) }()

				other := l.come(t, "198.51.100.1")

				all := make([]*visit, 0, 66)
				for i := range 66 {
					all = append(all, l.come(t, from(i)))
				}

				for i, v := range all {
					if gone := i < 2; v.closed.Load() != gone {
						t.Errorf("connection %d of 66: closed %v", i, !gone)
					}
				}

				if other.closed.Load() {
					t.Error("another's was closed")
				}

				close(l)
				s.Shutdown(t.Context())
				<-served
			})
		})
	}
}

// ask sends requests of HTTP/1.1 on a connection of an address and returns the statuses of the answers, until
// the server ends it or has answered all.
func ask(t *testing.T, l visits, from string, n int) (statuses map[int]int, ended bool) {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { _ = far.Close() })
	l <- &visit{Conn: near, from: netip.MustParseAddr(from)}
	go func() {
		for range n {
			if _, err := io.WriteString(far, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				return
			}
		}
	}()
	statuses = map[int]int{}
	in := bufio.NewReader(far)
	for range n {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return statuses, true
		}
		_ = resp.Body.Close()
		statuses[resp.StatusCode]++
	}
	return statuses, false
}

// Whoever asks and asks is refused, told when to come again, and cut off where it goes on; others, and who asks
// once a second, are answered meanwhile.
func TestAudit_USE30_WhoAsksTooOftenIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := serveAll(t)
		got, ended := ask(t, l, "192.0.2.1", 1000)
		if got[http.StatusNoContent] < 100 || got[http.StatusNoContent] > 150 || got[http.StatusTooManyRequests] != 3 || !ended {
			t.Errorf("answers %v, ended %t", got, ended)
		}
		if got, ended := ask(t, l, "192.0.2.1", 1); got[http.StatusTooManyRequests] != 1 || ended {
			t.Errorf("again: %v, ended %t", got, ended)
		}
		if got, ended := ask(t, l, "192.0.2.2", 100); got[http.StatusNoContent] != 100 || ended {
			t.Errorf("another: %v, ended %t", got, ended)
		}
		for range 600 {
			time.Sleep(time.Second)
			if got, ended := ask(t, l, "192.0.2.1", 1); got[http.StatusNoContent] != 1 || ended {
				t.Fatalf("once a second: %v, ended %t", got, ended)
			}
		}
	})
}

// Frames that ask nothing are taken no faster than their address may send, and whoever goes on is cut off.
func TestAudit_USE30_FramesThatAskNothingAreMetered(t *testing.T) {
	t.Parallel()
	for name, frame := range map[string]func(f *http2.Framer) error{
		"PING":     func(f *http2.Framer) error { return f.WritePing(false, [8]byte{}) },
		"SETTINGS": func(f *http2.Framer) error { return f.WriteSettings() },
		"PRIORITY": func(f *http2.Framer) error { return f.WritePriority(3, http2.PriorityParam{Weight: 1}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := serveAll(t)
				near, far := net.Pipe()
				defer far.Close()
				l <- &visit{Conn: near, from: netip.MustParseAddr("192.0.2.1")}
				go func() { _, _ = io.Copy(io.Discard, far) }()
				begun := time.Now()
				out := bufio.NewWriterSize(far, 4<<10)
				f := http2.NewFramer(out, nil)
				_, err := out.WriteString(http2.ClientPreface)
				for sent := 0; sent < 8<<20 && err == nil; sent += 17 {
					err = frame(f)
				}
				if err == nil {
					t.Errorf("8 MiB were taken in %v of its time, and it was not cut off", time.Since(begun))
				}
				if got, ended := ask(t, l, "192.0.2.2", 1); got[http.StatusNoContent] != 1 || ended {
					t.Errorf("another: %v, ended %t", got, ended)
				}
			})
		})
	}
}

// serveAll serves what answers every request, in memory.
func serveAll(t *testing.T) visits {
	t.Helper()
	s := probes.New(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	}), slog.New(slog.DiscardHandler))
	l, served := make(visits), make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		close(l)
		s.Shutdown(t.Context())
		<-served
	})
	return l
}

// Whoever comes too fast is closed unread and takes nobody's place, not even one of its own; another address comes as before, and it
// itself when time has passed. It is closed a little later, so that it comes again no faster, but for those beyond a number; and whoever
// accepts lets the next ones queue up now and then, and does not wake up for each.
func TestAudit_H48_NewcomersOfAnAddressHaveARate(t *testing.T) {
	t.Parallel()

	const (
		burst, perSecond = 400, 50
		lingers, most    = 250 * time.Millisecond, 256
		atATime, awaits  = 64, 4 * time.Millisecond
	)

	synctest.Test(t, func(t *testing.T) {
		s := probes.New(http.NotFoundHandler(), slog.New(slog.DiscardHandler))
		l := make(visits)
		served := make(chan error, 1)

		go func() { served <- s.Serve(l) }()

		var last *visit
		for range burst {
			last = l.come(t, "192.0.2.1")
		}

		if last.closed.Load() {
			t.Error("the last of those at once was closed")
		}

		var more []*visit
		begun := time.Now()
		for range 2 * most {
			more = append(more, l.come(t, "192.0.2.1"))
		}
		if more[0].closed.Load() || more[most-1].closed.Load() || !more[2*most-1].closed.Load() {
			t.Error("they are closed at once, or too many are kept")
		}
		if took, want := time.Since(begun), (2*most-1)/atATime*awaits; took != want {
			t.Errorf("%d were taken in %v, want %v", 2*most, took, want)
		}
		time.Sleep(lingers)
		taken := 0
		for _, v := range more {
			if !v.closed.Load() {
				taken++
			}
		}
		if taken > 1 { // one more came to be due meanwhile
			t.Errorf("%d of those beyond were taken", taken)
		}

		if last.closed.Load() || l.come(t, "198.51.100.1").closed.Load() {
			t.Error("the place of the last one, or another's, was taken")
		}

		for range lingers * perSecond / time.Second {
			last = l.come(t, "192.0.2.1")
		}
		time.Sleep(lingers)
		if last.closed.Load() {
			t.Error("there is none when time has passed")
		}

		close(l)
		s.Shutdown(t.Context())
		<-served
	})
}
