package probes_test

import (
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"

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

				come := func(addr string) *visit {
					near, far := net.Pipe()
					t.Cleanup(func() { _ = far.Close() })

					v := &visit{Conn: near, from: netip.MustParseAddr(addr)}
					l <- v
					synctest.Wait()

					return v
				}

				other := come("198.51.100.1")

				all := make([]*visit, 0, 66)
				for i := range 66 {
					all = append(all, come(from(i)))
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
