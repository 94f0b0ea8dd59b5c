package h2serve_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/h2frame/frametest"
	"github.com/masegraye/connect-plugin-go/internal/h2serve"
)

// Bounds of both servers.
const (
	mostStreams = 4
	listLimit   = 16 << 10
	bigAnswer   = 100_000
)

// server is one to which a schedule is played. It returns when nothing is left of the connection.
type server func(nc net.Conn, handler http.Handler)

// serveOurs is our server.
func serveOurs(nc net.Conn, handler http.Handler) {
	cfg := config(handler)
	cfg.MaxStreams, cfg.MaxHeaderBytes = mostStreams, listLimit
	s := h2serve.New(cfg)
	l := &single{conn: agreed{nc}, closed: make(chan struct{})}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	time.Sleep(hour) // what happens has happened
	_ = s.Shutdown(nowhere)
	<-served // it was ended
}

// serveTheirs is the server of x/net.
func serveTheirs(nc net.Conn, handler http.Handler) {
	s := &http2.Server{ //nolint:staticcheck // the code that net/http has, in a form that takes a connection
		MaxConcurrentStreams: mostStreams, MaxReadFrameSize: 16 << 10, //nolint:staticcheck // as above
		MaxUploadBufferPerStream: 64 << 10, MaxUploadBufferPerConnection: 256 << 10, //nolint:staticcheck // as above
	}
	const headroom = 320 // that it adds
	base := &http.Server{MaxHeaderBytes: listLimit - headroom, ErrorLog: log.New(io.Discard, "", 0)}
	_ = http2.ConfigureServer(base, s)                                                          //nolint:staticcheck // so that it shares nothing with others
	s.ServeConn(nc, &http2.ServeConnOpts{Context: nowhere, Handler: handler, BaseConfig: base}) //nolint:staticcheck // as above
}

const hour = time.Hour

var nowhere = context.Background() // of servers that their clients end

// agreed is a connection on which TLS seems to have been agreed on.
type agreed struct{ net.Conn }

func (agreed) TLS() *tls.ConnectionState {
	return &tls.ConnectionState{Version: tls.VersionTLS13, NegotiatedProtocol: "h2"}
}

func (a agreed) Abort() { _ = a.Close() }

// single is a listener with one connection.
type single struct {
	conn   net.Conn
	once   sync.Once
	taken  atomic.Bool
	closed chan struct{}
}

func (l *single) Accept() (net.Conn, error) {
	if !l.taken.Swap(true) {
		return l.conn, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *single) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *single) Addr() net.Addr { return l.conn.LocalAddr() }

// handle does what the path says, and counts the handlers that run.
func handle(running *atomic.Int32) http.Handler {
	mux := map[string]http.HandlerFunc{
		"/read":  func(w http.ResponseWriter, r *http.Request) { b, err := io.ReadAll(r.Body); tell(w, r, len(b), err) },
		"/say":   func(w http.ResponseWriter, r *http.Request) { tell(w, r, 0, nil) },
		"/wait":  func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"/abort": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"/head": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-A", "b")
			w.WriteHeader(http.StatusNoContent)
		},
		"/part": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "begun")
			_ = http.NewResponseController(w).Flush()
			b, err := io.ReadAll(r.Body)
			_, _ = fmt.Fprintln(w, len(b), err != nil)
		},
		"/big": func(w http.ResponseWriter, _ *http.Request) {
			for n, left := 1, bigAnswer; left > 0; n = min(2*n, left) {
				_, _ = w.Write(make([]byte, n))
				left -= n
			}
		},
		"/late": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			_ = http.NewResponseController(w).Flush()
			_, _ = io.ReadAll(r.Body)
			panic(http.ErrAbortHandler)
		},
		"/trailer": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-End")
			b, err := io.ReadAll(r.Body)
			_, _ = fmt.Fprintln(w, len(b), err != nil)
			w.Header().Set("X-End", "1")
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
		},
		"/close": func(w http.ResponseWriter, r *http.Request) {
			n, err := r.Body.Read(make([]byte, 1))
			_ = r.Body.Close()
			_, _ = fmt.Fprintln(w, n, err != nil && !errors.Is(err, io.EOF))
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		running.Add(1)
		defer running.Add(-1)
		if h := mux[r.URL.Path]; h != nil {
			h(w, r)
			return
		}
		http.NotFound(w, r)
	})
}

// tell answers what the handler saw.
func tell(w http.ResponseWriter, r *http.Request, n int, err error) {
	_, _ = fmt.Fprintln(w, n, err != nil, r.Method, r.URL, r.RequestURI, r.Host, r.Proto, r.ContentLength, listed(r.Header), listed(r.Trailer))
}

// listed brings fields into one form.
func listed(h http.Header) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(h)) {
		if name != "Date" && name != "date" && name != "" { // x/net has a trailer without a name
			fmt.Fprintf(&b, "%s=%.300q;", name, h[name])
		}
	}
	return b.String()
}

// play returns what a client sees that sends a schedule's writes. It has to run in a bubble, which
// fails where a goroutine of the server is left.
func play(writes [][]byte, serve server) *seen {
	client, far := net.Pipe()
	v := newSeen()
	var running atomic.Int32
	var wg sync.WaitGroup
	wg.Go(func() { serve(far, handle(&running)) })
	wg.Go(func() { v.follow(client) })
	send := func(b []byte) bool {
		_ = client.SetWriteDeadline(time.Now().Add(time.Second))
		_, err := client.Write(b)
		synctest.Wait()
		return err == nil
	}
	send([]byte(http2.ClientPreface))
	for _, part := range writes {
		if !send(part) {
			break
		}
	}
	time.Sleep(3 * time.Second)
	v.hangUp()
	_ = client.Close()
	time.Sleep(time.Minute)
	v.left = running.Load()
	wg.Wait()
	return v
}

// compare plays a schedule to both servers.
func compare(t *testing.T, seed []byte) {
	t.Helper()
	s := newSchedule(seed)
	facts := factsOf(s)
	var mine, cut, other *seen
	synctest.Test(t, func(*testing.T) { mine = play(s.single(), serveOurs) })
	synctest.Test(t, func(*testing.T) { cut = play(s.writes, serveOurs) })
	// Theirs gets frame by frame alone: what a frame does to it another goroutine may still be doing
	// when the next one comes.
	synctest.Test(t, func(*testing.T) { other = play(s.single(), serveTheirs) })
	for name, v := range map[string]*seen{"frame by frame": mine, "as it was cut": cut} {
		if wrong := v.unlawful(facts); wrong != "" {
			t.Errorf("ours, %s: %s\n%s", name, wrong, facts.text)
		}
		if v.left != 0 {
			t.Errorf("ours, %s: %d handlers are left\n%s", name, v.left, facts.text)
		}
	}
	for _, d := range mine.against(other, facts) {
		t.Errorf("frame by frame: %s\n%s", d, facts.text)
	}
	if mine.failed() || cut.failed() {
		return // what came before the failure may have been on its way
	}
	facts.cut = true
	for _, d := range cut.against(mine, facts) {
		t.Errorf("as it was cut: %s\n%s", d, facts.text)
	}
}

// FuzzDifferential plays schedules of a client to our server and to x/net's: the client sees the
// same of both, but for the differences that are listed, and nothing is left of either.
func FuzzDifferential(f *testing.F) {
	for _, seed := range frametest.Seeds(200, 200) {
		f.Add(seed)
	}
	f.Fuzz(compare)
}
