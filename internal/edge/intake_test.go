package edge_test

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/edge"
)

// pipes is a listener of connections in memory.
type pipes struct {
	conns chan net.Conn
	shut  chan struct{}
	once  sync.Once
}

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.shut:
		return nil, net.ErrClosed
	}
}
func (l *pipes) Close() error   { l.once.Do(func() { close(l.shut) }); return nil }
func (l *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// placed is a connection from an address.
type placed struct {
	net.Conn

	from string
}

func (p placed) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(p.from)} }

// sibling is the address of another instance of a plugin.
const sibling = "127.0.0.9"

// bubble is a server behind an edge, in memory.
type bubble struct {
	below  *pipes
	client *tls.Config

	account *edge.Account // of every connection, nil for none
	excused edge.Rate     // refusals for which a connection is not cut off, zero for many
	most    int           // connections of an address, zero for a hundred
	ahead   int           // how much the server reads at once, zero for what it needs
	came    atomic.Int64  // requests, of which it is not said yet that they have begun
	begins  chan struct{} // closed when they begin; nil for at once
	begun   atomic.Int64
	sibling atomic.Int64  // of them, those from that address
	refuses atomic.Bool   // every request, at once
	answers atomic.Bool   // the same, as one of anybody
	fields  int           // beyond those that are usual, that each request has
	cuts    chan struct{} // closed when whoever asks is cut off; nil for never
	release chan struct{} // ends the requests
}

// certificate is one of a test server, and who believes it.
func certificate(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	s.Close()
	client = s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	client.NextProtos, client.ServerName = []string{"h2"}, "example.com"
	return &tls.Config{Certificates: s.TLS.Certificates, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13}, client
}

func (b *bubble) serve(t *testing.T, server *tls.Config) {
	t.Helper()
	b.below = &pipes{conns: make(chan net.Conn), shut: make(chan struct{})}
	b.release = make(chan struct{})
	l := edge.Listen(b.below, edge.Config{
		TLS: server, HandshakeTimeout: time.Hour, MaxConnections: cmp.Or(b.most, 100), MaxPerAddress: cmp.Or(b.most, 100), Silence: time.Hour,
		Key:      func(a net.Addr) string { return a.(*net.TCPAddr).IP.String() },
		Refusals: b.excused,
	})
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{
		Protocols: protocols, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 1000},
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			own := edgeOf(c)
			if b.account != nil {
				own.Bill(b.account)
				_ = own.Prove(edge.Holder{Name: c.RemoteAddr().String(), Most: math.MaxInt, Ended: func() bool { return false }})
			}
			return context.WithValue(ctx, connKey{}, own)
		},
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if c, ok := r.Context().Value(connKey{}).(*edge.Conn); ok {
				b.came.Add(1)
				if b.begins != nil {
					<-b.begins
				}
				c.Decoded(0, b.fields)
				c.Began()
				defer c.Ended()
			}
			b.begun.Add(1)
			if strings.HasPrefix(r.RemoteAddr, sibling) {
				b.sibling.Add(1)
			}
			if c, ok := r.Context().Value(connKey{}).(*edge.Conn); ok && b.refuses.Load() {
				c.Refused()
				return
			}
			if c, ok := r.Context().Value(connKey{}).(*edge.Conn); ok && b.answers.Load() {
				c.Served(false)
				return
			}
			if c, ok := r.Context().Value(connKey{}).(*edge.Conn); ok && b.cuts != nil {
				<-b.cuts
				c.TooLong()
			}
			select {
			case <-b.release:
			case <-r.Context().Done():
			}
		}),
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(reading{l, b.ahead}) }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
		l.End()
	})
}

// reading is a listener whose connections are read in pieces of a size.
type reading struct {
	net.Listener

	size int
}

func (l reading) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil || l.size == 0 {
		return c, err
	}
	return &readAhead{c, bufio.NewReaderSize(c, l.size)}, nil
}

type readAhead struct {
	net.Conn

	ahead *bufio.Reader
}

func (c *readAhead) Read(p []byte) (int, error) { return c.ahead.Read(p) }

// edgeOf is the connection below.
func edgeOf(c net.Conn) *edge.Conn {
	if ahead, ok := c.(*readAhead); ok {
		c = ahead.Conn
	}
	own, _ := c.(*edge.Conn)
	return own
}

// dial opens a connection from an address. It is closed with the test.
func (b *bubble) dial(t *testing.T, from string) *tls.Conn {
	t.Helper()
	near, far := net.Pipe()
	b.below.conns <- placed{near, from}
	t.Cleanup(func() { _ = far.Close() })
	return tls.Client(far, b.client)
}

// pour sends so many requests in one piece, and reads whatever comes.
func (b *bubble) pour(t *testing.T, n uint32) {
	t.Helper()
	b.pourFrom(t, "127.0.0.1", n)
}

func (b *bubble) pourFrom(t *testing.T, address string, n uint32) {
	t.Helper()
	c := b.dial(t, address)
	var block, out strings.Builder
	enc := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "https"}, {":authority", "x"}, {":path", "/"}} {
		_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: true})
	}
	out.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&out, nil)
	err := f.WriteSettings()
	for i := range n {
		err = errors.Join(err, f.WriteHeaders(http2.HeadersFrameParam{
			StreamID: 2*i + 1, BlockFragment: []byte(block.String()), EndHeaders: true, EndStream: true,
		}))
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = io.WriteString(c, out.String())
		_, _ = io.Copy(io.Discard, c)
	}()
}

// Requests that come in one piece are taken on so many at once, whichever connections of a peer
// they come on: more when some ended, and as many again by and by, whatever became of the others.
func TestAudit_ATK14_RequestsAreTakenOnByAndBy(t *testing.T) {
	t.Parallel()
	most := 16 * int64(runtime.GOMAXPROCS(0))
	server, client := certificate(t)
	for name, c := range map[string]struct {
		conns, ahead int
	}{
		"one connection": {1, 0}, "an identity with three": {3, 0},
		"a server that reads ahead": {1, 4 << 10}, "three, much ahead": {3, 64 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				conns := c.conns
				b := &bubble{client: client, ahead: c.ahead}
				if conns > 1 {
					b.account = account(1e9, 1e9)
				}
				b.serve(t, server)
				all := int64(conns) * 8 * most
				for range conns {
					b.pour(t, uint32(8*most))
				}
				synctest.Wait()
				if n := b.begun.Load(); n < most/2 || n > most+int64(conns) {
					t.Errorf("%d requests begin at once, want %d", n, most)
				}
				before := b.begun.Load()
				const soon, later = 2 * time.Millisecond, 16 * time.Millisecond
				time.Sleep(soon)
				synctest.Wait()
				if n := b.begun.Load() - before; n > most/4+2*int64(conns) {
					t.Errorf("%d more begin a moment later, want an eighth of %d", n, most)
				}
				time.Sleep(later - soon)
				synctest.Wait()
				if n := b.begun.Load() - before; n < most/2 || n > most+2*int64(conns) {
					t.Errorf("%d more begin in %v, want %d", n, later, most)
				}
				begun := time.Now()
				close(b.release)
				synctest.Wait()
				for b.begun.Load() < all && time.Since(begun) < time.Second {
					time.Sleep(time.Millisecond)
				}
				if took := time.Since(begun); took > time.Duration(conns)*time.Millisecond {
					t.Errorf("requests that end at once take %v to begin, all %d of them", took, b.begun.Load())
				}
			})
		})
	}
}

// Those of several instances of a plugin are taken on in turn, on however many connections each of them waits: one that asks
// little, on one, is served as often as those that ask for thousands on many, and all of them together no less.
func TestAudit_ATK14_InstancesAreTakenOnInTurn(t *testing.T) {
	t.Parallel()
	const greedy, conns, each, few = 4, 64, 60, 50
	server, client := certificate(t)
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{client: client, account: account(1e9, 1e9), ahead: 16 << 10}
		b.serve(t, server)
		for i := range conns {
			b.pourFrom(t, fmt.Sprint("127.0.0.", 1+i%greedy), each)
		}
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		before, begun := b.begun.Load(), time.Now()
		b.pourFrom(t, sibling, few)
		for b.sibling.Load() < few && time.Since(begun) < time.Minute {
			time.Sleep(time.Millisecond)
			synctest.Wait()
		}
		pace := float64(runtime.GOMAXPROCS(0)) // in a millisecond
		took := time.Since(begun)
		if fair := time.Duration(few * (greedy + 1) / pace * float64(time.Millisecond)); took > fair*3 { // by connection in place of instance it would be thirteen times as long
			t.Errorf("%d requests beside %d that ask for thousands begin after %v, want about %v", few, greedy, took, fair)
		}
		if n := float64(b.begun.Load() - before); n < pace*float64(took.Milliseconds())*3/4 {
			t.Errorf("%v requests of all begin in %v", n, took)
		}
		close(b.release)
	})
}

// While requests wait to be begun, as they do where the processors are busy, the next ones stay where
// they are: one more comes now and then, for what is no request never begins.
func TestAudit_ATK14_WhatHasNotBegunKeepsTheNextWaiting(t *testing.T) {
	t.Parallel()
	const moments = 10
	ready := max(1, int64(runtime.GOMAXPROCS(0)/2))
	server, client := certificate(t)
	for name, conns := range map[string]int64{"one connection": 1, "an identity with three": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := &bubble{client: client, ahead: 16 << 10, begins: make(chan struct{}), account: account(1e9, 1e9)}
				b.serve(t, server)
				for range conns {
					b.pour(t, 200)
				}
				synctest.Wait()
				if n := b.came.Load(); n < ready || n > ready+2*conns {
					t.Errorf("%d requests wait to be begun, want %d", n, ready)
				}
				before := b.came.Load()
				time.Sleep(moments * time.Millisecond)
				synctest.Wait()
				if n := b.came.Load() - before; n < moments/2 || n > (moments+1)*conns {
					t.Errorf("%d more came meanwhile, want one in a moment", n)
				}
				begun := time.Now()
				close(b.begins)
				close(b.release)
				for b.begun.Load() < 200*conns && time.Since(begun) < time.Second {
					time.Sleep(time.Millisecond)
					synctest.Wait()
				}
				if took := time.Since(begun); took > 2*time.Duration(conns)*time.Millisecond {
					t.Errorf("requests that begin at once take %v, all %d of them", took, b.begun.Load())
				}
			})
		})
	}
}

// Who is refused and asks on is served at the pace of somebody who waits a little, as long as it is
// refused: its requests are not taken on sooner because others of them ended.
func TestAudit_ATK14_WhoIsRefusedComesLater(t *testing.T) {
	t.Parallel()
	server, client := certificate(t)
	synctest.Test(t, func(t *testing.T) {
		most := 16 * int64(runtime.GOMAXPROCS(0))
		b := &bubble{client: client, account: account(1e9, 1e9)}
		b.refuses.Store(true)
		b.serve(t, server)
		all := most + 400
		b.pour(t, uint32(all))
		time.Sleep(time.Second)
		synctest.Wait()
		if n := b.begun.Load(); n < most+200 || n > most+300 {
			t.Errorf("%d requests begin within a second while each is refused, want one in 4 ms after the first %d", n, most)
		}
		b.refuses.Store(false)
		close(b.release)
		time.Sleep(30 * time.Millisecond)
		synctest.Wait()
		if n := b.begun.Load(); n != all {
			t.Errorf("%d of %d have begun soon after they were refused no more", n, all)
		}
	})
}

// Who is known and refused more often than its account pays for is not cut off, for it would come
// again. It is served at the pace of its refusals, on all of its connections together, and each of
// these a request a second at least.
func TestAudit_ATK14_WhoIsKnownIsRefusedAtItsPace(t *testing.T) {
	t.Parallel()
	const burst, perSecond, seconds = 40, 10, 20
	server, client := certificate(t)
	for name, conns := range map[string]int64{"one connection": 1, "three": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := &bubble{
					client: client, excused: edge.Rate{PerSecond: 1, Burst: 1},
					account: edge.NewAccount(edge.Rate{PerSecond: 1e9, Burst: 1e9}, edge.Rate{PerSecond: perSecond, Burst: burst}),
				}
				b.refuses.Store(true)
				b.serve(t, server)
				for range conns {
					b.pour(t, 900)
				}
				time.Sleep(seconds * time.Second)
				synctest.Wait()
				at := 16 * int64(runtime.GOMAXPROCS(0)) // before the first of them was refused
				least, most := int64(burst+perSecond*(seconds-5)), burst+perSecond*seconds+at+conns*seconds
				if n := b.begun.Load(); n < least || n > most {
					t.Errorf("%d requests begin while each is refused, want from %d to %d", n, least, most)
				}
				b.refuses.Store(false)
				close(b.release)
				time.Sleep(time.Minute)
				synctest.Wait()
				if n := b.begun.Load(); n != 900*conns {
					t.Errorf("%d of %d have begun once they were refused no more", n, 900*conns)
				}
			})
		})
	}
}

// The TLS handshakes of one address compute one after the other, and nobody else waits for them.
func TestAudit_ATK14_HandshakesOfAnAddressTakeTurns(t *testing.T) {
	t.Parallel()
	most := max(1, int64(runtime.GOMAXPROCS(0)/2))
	server, client := certificate(t)
	synctest.Test(t, func(t *testing.T) {
		var computing atomic.Int64
		release := make(chan struct{})
		server.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if hello.Conn.RemoteAddr().String() == "127.0.0.2:0" {
				computing.Add(1)
				<-release
			}
			return nil, nil //nolint:nilnil // as it is
		}
		b := &bubble{client: client}
		b.serve(t, server)
		all := 10 * most
		done := make(chan error, all)
		for range all {
			c := b.dial(t, "127.0.0.2")
			go func() { done <- c.HandshakeContext(t.Context()) }()
		}
		synctest.Wait()
		if n := computing.Load(); n != most {
			t.Errorf("%d of an address compute at once, want %d", n, most)
		}
		begun := time.Now()
		if err := b.dial(t, "127.0.0.1").HandshakeContext(t.Context()); err != nil || time.Since(begun) > 0 {
			t.Errorf("another address: %v, after %v", err, time.Since(begun))
		}
		time.Sleep(time.Second)
		if n := computing.Load(); n != all {
			t.Errorf("%d compute after a second, want all %d", n, all)
		}
		close(release)
		for range all {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}
