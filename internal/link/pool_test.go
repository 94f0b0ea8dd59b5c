package link_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/backoff"
	"github.com/masegraye/connect-plugin-go/internal/link"
)

const bound = time.Minute

// server is a plaintext HTTP/2 server.
type server struct {
	*httptest.Server

	accepted atomic.Int64
}

func serve(t *testing.T, handler http.HandlerFunc, streams int) *server {
	t.Helper()

	s := &server{Server: httptest.NewUnstartedServer(handler)}

	var protocols http.Protocols

	protocols.SetUnencryptedHTTP2(true)

	s.Config.Protocols = &protocols
	s.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: streams}
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.accepted.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)

	return s
}

type dialFunc func(ctx context.Context, below func(net.Conn) net.Conn) (net.Conn, error)

func dialer(addr string) dialFunc {
	return func(ctx context.Context, below func(net.Conn) net.Conn) (net.Conn, error) {
		var d net.Dialer

		c, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}

		return below(c), nil
	}
}

func newPool(t *testing.T, dial dialFunc, most int, lost func(error)) *link.Pool {
	t.Helper()

	if lost == nil {
		lost = func(error) {}
	}

	p := link.New(link.Config{
		Dial: dial, DialTimeout: bound, MaxConns: most, MaxHeaderBytes: 1 << 16,
		PingAfter: bound, PingTimeout: bound, Lost: lost, Failed: func(error) {},
	})
	t.Cleanup(p.Close)

	return p
}

func get(ctx context.Context, p *link.Pool, url string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}

	return p.RoundTrip(r)
}

func text(t *testing.T, p *link.Pool, url string) string {
	t.Helper()

	resp, err := get(t.Context(), p, url)
	if err != nil {
		t.Fatalf("get: %v", err)
	}
	defer resp.Body.Close()

	all, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("read: %v", err)
	}

	return string(all)
}

// However many need a connection, one is opened at a time, and one is enough.
func TestPool_OneConnectionForAll(t *testing.T) {
	t.Parallel()

	s := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }, 250)

	var dialling, most atomic.Int64

	dial := dialer(s.Listener.Addr().String())
	p := newPool(t, func(ctx context.Context, below func(net.Conn) net.Conn) (net.Conn, error) {
		most.Store(max(most.Load(), dialling.Add(1)))
		defer dialling.Add(-1)

		return dial(ctx, below)
	}, 16, nil)

	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if got := text(t, p, s.URL); got != "ok" {
				t.Errorf("got %q", got)
			}
		})
	}
	all.Wait()

	if s.accepted.Load() != 1 || most.Load() != 1 {
		t.Errorf("%d connections, %d at a time; want one", s.accepted.Load(), most.Load())
	}
}

// Where a connection carries too little another is opened, until there are as many as
// there may be; then requests wait for room.
func TestPool_OpensMoreWhereOneIsFull(t *testing.T) {
	t.Parallel()

	const streams, most, requests = 2, 3, 20

	var running, peak atomic.Int64

	release := make(chan struct{})
	s := serve(t, func(http.ResponseWriter, *http.Request) {
		peak.Store(max(peak.Load(), running.Add(1)))
		defer running.Add(-1)

		if running.Load() == streams*most {
			close(release) // all connections are full
		}
		<-release
	}, streams)
	p := newPool(t, dialer(s.Listener.Addr().String()), most, nil)

	var all sync.WaitGroup
	for range requests {
		all.Go(func() { text(t, p, s.URL) })
	}
	all.Wait()

	if n := s.accepted.Load(); n != most {
		t.Errorf("%d connections, want %d", n, most)
	}
}

// A request that waits for room gets it when another response is complete, whether or
// not somebody reads that.
func TestPool_RoomComesWithTheEndOfAResponse(t *testing.T) {
	t.Parallel()

	release := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()

		if r.URL.Path == "/first" {
			<-release
		}
	}, 1)
	p := newPool(t, dialer(s.Listener.Addr().String()), 1, nil)

	first, err := get(t.Context(), p, s.URL+"/first")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Body.Close()

	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)

	go func() {
		_, err := get(ctx, p, s.URL+"/gone")
		gone <- err
	}()
	cancel()

	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("who gives up: %v", err)
	}

	second := make(chan error, 1)

	go func() {
		_, err := get(t.Context(), p, s.URL+"/second")
		second <- err
	}()
	close(release)

	if err := <-second; err != nil {
		t.Errorf("who waits: %v", err)
	}
}

// A lost connection is told at once, with nothing under way.
func TestPool_TellsOfALoss(t *testing.T) {
	t.Parallel()

	s := serve(t, func(http.ResponseWriter, *http.Request) {}, 10)
	lost := make(chan error, 8)
	p := newPool(t, dialer(s.Listener.Addr().String()), 4, func(err error) { lost <- err })
	text(t, p, s.URL)
	s.CloseClientConnections()

	select {
	case err := <-lost:
		if err == nil {
			t.Error("no reason")
		}
	case <-time.After(bound):
		t.Fatal("the loss was not told")
	}

	text(t, p, s.URL) // over a new one
	p.Close()

	if len(lost) > 0 {
		t.Errorf("closing was told as a loss: %v", <-lost)
	}
}

// answering returns the address of a server that says one thing and ends.
func answering(t *testing.T, what string) string {
	t.Helper()

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = l.Close() })

	go func() {
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			_, _ = io.WriteString(conn, what)
			_, _ = io.ReadFull(conn, make([]byte, len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")+27)) // the preface
			_ = conn.Close()
		}
	}()

	return l.Addr().String()
}

func TestPool_SaysWhyThereIsNoConnection(t *testing.T) {
	t.Parallel()

	refused := errors.New("refused")
	secure := answering(t, "\x15\x03\x01\x00\x02\x02\x46") // alert: protocol_version
	mute := answering(t, "")

	for name, c := range map[string]struct {
		dial dialFunc
		want func(error) bool
	}{
		"the dial's own error": {
			func(context.Context, func(net.Conn) net.Conn) (net.Conn, error) { return nil, refused },
			func(err error) bool { return errors.Is(err, refused) },
		},
		"TLS in answer to plaintext": {
			dialer(secure), func(err error) bool { return errors.Is(err, link.ErrTLS) },
		},
		"an end before the beginning": {dialer(mute), func(err error) bool { return errors.Is(err, link.ErrNotBegun) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			p := newPool(t, c.dial, 1, nil)
			if _, err := p.Get(t.Context()); !c.want(err) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// Requests under way when the server changes go on; later ones go over a new connection.
func TestPool_Retire(t *testing.T) {
	t.Parallel()

	entered, release := make(chan struct{}), make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(entered)
			<-release
		}

		_, _ = io.WriteString(w, "ok")
	}, 10)
	p := newPool(t, dialer(s.Listener.Addr().String()), 4, nil)
	got := make(chan string, 1)

	go func() { got <- text(t, p, s.URL+"/slow") }()
	<-entered
	p.Retire()
	text(t, p, s.URL)
	close(release)

	if g := <-got; g != "ok" {
		t.Errorf("the request under way got %q", g)
	}

	if n := s.accepted.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

func TestPool_Closed(t *testing.T) {
	t.Parallel()

	p := newPool(t, dialer("127.0.0.1:0"), 1, nil)
	p.Close()
	p.Close()

	if _, err := p.Get(t.Context()); !errors.Is(err, link.ErrClosed) {
		t.Errorf("error %v, want ErrClosed", err)
	}
}

// A server that takes connections and parts with each at once is not connected to without
// a pause; when it stays, requests come through as ever.
func TestPool_PausesWhereConnectionsAreOfNoUse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var dials, stays atomic.Int64

		dial := func(ctx context.Context, below func(net.Conn) net.Conn) (net.Conn, error) {
			dials.Add(1)

			if !backoff.Wait(ctx, time.Millisecond) {
				return nil, ctx.Err()
			}

			near, far := net.Pipe()
			go part(far, stays.Load() > 0)

			return below(near), nil
		}

		p := newPool(t, dial, 16, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)

		for ctx.Err() == nil {
			if _, err := get(ctx, p, "http://host.example/"); err == nil {
				t.Error("a connection that ended carried a request")
			}
		}

		cancel()

		if n := dials.Load(); n < 5 || n > 20 {
			t.Errorf("%d connections in 10 s", n)
		}

		stays.Store(1)

		resp, err := get(t.Context(), p, "http://host.example/")
		if err != nil || resp.StatusCode != http.StatusNoContent {
			t.Errorf("when the server stays: %v, %v", resp, err)
		}

		_ = resp.Body.Close()
		p.Close()
	})
}

// part begins HTTP/2 on a connection, and ends it at once or answers what is asked.
func part(c net.Conn, stays bool) { play(c, stays, true) }

// play begins HTTP/2 on a connection with some settings, and ends it at once or stays, and then
// answers what is asked or does not.
func play(c net.Conn, stays, answers bool, settings ...http2.Setting) {
	defer func() { _ = c.Close() }()

	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}

	framer := http2.NewFramer(c, c)
	written := make(chan struct{})

	go func() {
		defer close(written)

		_ = framer.WriteSettings(settings...)
	}()

	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return
		}

		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if f.IsAck() && !stays {
				<-written

				_ = framer.WriteGoAway(0, http2.ErrCodeNo, nil)

				return
			}
		case *http2.HeadersFrame:
			if !answers {
				continue
			}

			status := hpack.HeaderField{Name: ":status", Value: "204"}

			var block bytes.Buffer
			_ = hpack.NewEncoder(&block).WriteField(status)

			<-written

			_ = framer.WriteHeaders(http2.HeadersFrameParam{
				StreamID: f.StreamID, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true,
			})
		}
	}
}
