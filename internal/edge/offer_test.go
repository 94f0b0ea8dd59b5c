package edge_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/edge"
)

// wrapped is a listener whose connections want to see what is written to them.
type wrapped struct{ net.Listener }

type seeing struct{ *net.TCPConn }

func (w wrapped) Accept() (net.Conn, error) {
	c, err := w.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return seeing{c.(*net.TCPConn)}, nil
}

// meet is a connection, over TLS where client is not nil, and its peer.
func meet(t *testing.T, client *tls.Config, wrap func(net.Listener) net.Listener, cfg edge.Config) (conn *edge.Conn, peer net.Conn) {
	t.Helper()
	below, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.MaxConnections, cfg.MaxPerAddress, cfg.Silence, cfg.HandshakeTimeout = 1, 1, time.Hour, time.Minute
	cfg.Key = func(net.Addr) string { return "peer" }
	l := edge.Listen(wrap(below), cfg)
	t.Cleanup(l.End)
	var dials interface {
		DialContext(ctx context.Context, network, addr string) (net.Conn, error)
	} = new(net.Dialer)
	if client != nil {
		dials = &tls.Dialer{Config: client}
	}
	if peer, err = dials.DialContext(t.Context(), "tcp", below.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = peer.Close() })
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn, _ = c.(*edge.Conn)
	t.Cleanup(func() { _ = conn.Close() })
	return conn, peer
}

func plain(l net.Listener) net.Listener { return l }

// What is offered leaves at once, or when there is room for it, in its order.
func TestConn_OffersWhatThereIsRoomFor(t *testing.T) {
	t.Parallel()
	const piece, most = 16 << 10, 4096
	c, peer := meet(t, nil, plain, edge.Config{})
	sent, settled := 0, true
	for settled && sent < most {
		var taken bool
		var err error
		if taken, settled, err = c.Offer(bytes.Repeat([]byte{byte(sent)}, piece)); !taken || err != nil {
			t.Fatalf("offer %d is not taken: %v", sent, err)
		}
		sent++
	}
	if settled {
		t.Fatal("the system has room for all of it")
	}
	if taken, _, err := c.Offer([]byte("later")); taken || err != nil {
		t.Errorf("taken before what was left: %v", err)
	}
	got := make(chan []byte, 1)
	go func() {
		all, _ := io.ReadAll(peer)
		got <- all
	}()
	if err := c.Settle(); err != nil {
		t.Fatal(err)
	}
	if taken, settled, err := c.Offer([]byte("end")); !taken || !settled || err != nil {
		t.Errorf("what is settled takes nothing more: %v, %v, %v", taken, settled, err)
	}
	more := bytes.Repeat([]byte("m"), 2*sent*piece) // than there is room for: who writes waits again
	if n, err := c.Write(more); n != len(more) || err != nil {
		t.Errorf("%d bytes of %d are written: %v", n, len(more), err)
	}
	_ = c.Close()
	all := <-got
	if want := sent*piece + 3 + len(more); len(all) != want || string(all[sent*piece:sent*piece+3]) != "end" {
		t.Fatalf("%d bytes came, of %d", len(all), want)
	}
	for i := range sent {
		if all[i*piece] != byte(i) || all[(i+1)*piece-1] != byte(i) {
			t.Fatalf("piece %d is another one", i)
		}
	}
}

// Nothing is offered where that would wait, or pass by who wants to see it.
func TestConn_OffersNothingWhereItWouldWait(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]func(t *testing.T) *edge.Conn{
		"in debt": func(t *testing.T) *edge.Conn {
			t.Helper()
			c, _ := meet(t, nil, plain, edge.Config{})
			c.Bill(account(1, 1))
			if taken, _, err := c.Offer([]byte("more than there is")); !taken || err != nil {
				t.Errorf("not taken: %v", err)
			}
			return c
		},
		"seen by another": func(t *testing.T) *edge.Conn {
			t.Helper()
			c, _ := meet(t, nil, func(l net.Listener) net.Listener { return wrapped{l} }, edge.Config{})
			return c
		},
		"not the system's": func(t *testing.T) *edge.Conn {
			t.Helper()
			c, _ := pair(t, account(1e6, 1e6))
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if taken, settled, err := c(t).Offer([]byte("x")); taken || !settled || err != nil {
				t.Errorf("taken %v, settled %v, %v", taken, settled, err)
			}
		})
	}
}

// refusing is a connection on which one request may be refused, its peer, and two refusals.
func refusing(t *testing.T, cutOff func(*edge.Conn, string)) (c *edge.Conn, peer net.Conn, refusals []byte) {
	t.Helper()
	certs := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate
	certs.Close()
	client := certs.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	client.NextProtos, client.ServerName = []string{"h2"}, "example.com"
	c, peer = meet(t, client, plain, edge.Config{
		TLS:      &tls.Config{Certificates: certs.TLS.Certificates, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13},
		Refusals: edge.Rate{PerSecond: 1e-6, Burst: 1},
		CutOff:   cutOff,
	})
	var resets bytes.Buffer
	frames := http2.NewFramer(&resets, nil)
	for id := range 2 {
		_ = frames.WriteRSTStream(uint32(2*id+1), http2.ErrCodeRefusedStream)
	}
	return c, peer, resets.Bytes()
}

// Whoever is to be cut off for what is offered is told so by who may wait.
func TestConn_PartsWhenSettled(t *testing.T) {
	t.Parallel()
	var cut string
	c, peer, refusals := refusing(t, func(_ *edge.Conn, reason string) { cut = reason })
	if taken, settled, err := c.Offer(refusals); !taken || settled || err != nil || cut != "" {
		t.Fatalf("taken %v, settled %v, cut off %q, %v", taken, settled, cut, err)
	}
	if taken, _, _ := c.Offer([]byte("x")); taken {
		t.Error("more is taken for who is cut off")
	}
	if err := c.Settle(); err != nil || cut == "" {
		t.Errorf("cut off %q, %v", cut, err)
	}
	read := http2.NewFramer(nil, peer)
	for {
		f, err := read.ReadFrame()
		if err != nil {
			t.Fatal("it is not told")
		}
		if _, ok := f.(*http2.GoAwayFrame); ok {
			return
		}
	}
}

// Who is cut off and takes nothing of what was left is not waited for.
func TestConn_PartsFromWhoTakesNothing(t *testing.T) {
	t.Parallel()
	c, peer, refusals := refusing(t, func(*edge.Conn, string) {})
	_ = peer.(*tls.Conn).NetConn().(*net.TCPConn).SetReadBuffer(4 << 10)
	var more bytes.Buffer
	frames := http2.NewFramer(&more, nil)
	for range 512 {
		_ = frames.WriteData(1, false, make([]byte, 16<<10))
	}
	if taken, settled, err := c.Offer(append(refusals, more.Bytes()...)); !taken || settled || err != nil {
		t.Fatalf("taken %v, settled %v, %v", taken, settled, err)
	}
	defer c.Abort() // without a word to who does not read
	done := make(chan error, 1)
	go func() { done <- c.Settle() }()
	select {
	case err := <-done:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("settled: %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("it waits for one who is cut off")
	}
}
