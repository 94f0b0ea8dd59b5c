package h2serve_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/h2serve"
)

// owner has responses that outlast their handlers.
type owner struct {
	begun chan *h2serve.Lasting
	taken chan struct{}
}

func newOwner() *owner {
	return &owner{begun: make(chan *h2serve.Lasting, 1), taken: make(chan struct{}, 16)}
}

func (o *owner) Begin(l *h2serve.Lasting) { o.begun <- l }
func (o *owner) Taken()                   { o.taken <- struct{}{} }

// lasting is a server whose responses outlast their handlers, and what was seen of the last one.
type lasting struct {
	*rig
	*owner

	mu    sync.Mutex
	order []string
	ctx   context.Context // of the last request
	done  chan struct{}   // closed when all was done after a response
}

func startLasting(t *testing.T, edit func(*h2serve.Config)) *lasting {
	t.Helper()
	s := &lasting{owner: newOwner(), done: make(chan struct{})}
	over := sync.OnceFunc(func() { close(s.done) })
	cfg := config(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.ctx = r.Context()
		s.mu.Unlock()
		_ = http.NewResponseController(w).Flush()
		if !h2serve.CanLast(w) || h2serve.LastingOf(w) != nil || !h2serve.Last(w, s.owner) || h2serve.Last(w, s.owner) {
			t.Error("the response does not outlast its handler, once")
		}
		_, _ = w.Write([]byte("too late"))
		w.Header().Set(http.TrailerPrefix+"Late", "1")
		for _, name := range []string{"one", "panics", "two"} {
			h2serve.LastingOf(w).After(func() { s.note(name) })
		}
		h2serve.LastingOf(w).After(over)
	}))
	if edit != nil {
		edit(&cfg)
	}
	s.rig = start(t, cfg)
	return s
}

func (s *lasting) note(name string) {
	s.mu.Lock()
	s.order = append(s.order, name)
	s.mu.Unlock()
	if name == "panics" {
		panic(name)
	}
}

// isOver waits until all was done after the response, in the order in which that was asked for.
func (s *lasting) isOver(t *testing.T) {
	t.Helper()
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.order, []string{"one", "panics", "two"}) {
		t.Errorf("done afterwards: %v", s.order)
	}
}

func (s *lasting) isGoingOn(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.order) > 0 || s.ctx.Err() != nil {
		t.Errorf("done before the end: %v; %v", s.order, s.ctx.Err())
	}
}

// rest reads what is left of a response: its body, and its trailer as text.
func (w *wire) rest(id uint32) (body, trailer string) {
	w.t.Helper()
	var b bytes.Buffer
	w.until(func(f http2.Frame) bool {
		if f.Header().StreamID != id {
			return false
		}
		switch f := f.(type) {
		case *http2.DataFrame:
			b.Write(f.Data())
			return f.StreamEnded()
		case *http2.MetaHeadersFrame:
			for _, field := range f.Fields {
				if f.PseudoValue("status") == "" {
					trailer += field.Name + "=" + field.Value
				}
			}
			return f.StreamEnded()
		case *http2.RSTStreamFrame:
			trailer = "reset " + f.ErrCode.String()
			return true
		}
		return false
	})
	return b.String(), trailer
}

// A response goes on when its handler has returned, and ends with a trailer or without one. What the
// handler defers comes at its end, whoever panics.
func TestLasting_OutlastsItsHandler(t *testing.T) {
	t.Parallel()
	for want, header := range map[string]http.Header{
		"": nil, "status=1": {http.TrailerPrefix + "Status": {"1"}, "Not": {"a trailer"}},
	} {
		s := startLasting(t, nil)
		w := dial(t, s.addr)
		w.request(stream, true, nil)
		l := <-s.begun
		if !l.Send([]byte("a")) || !l.Send(nil) || !l.Send([]byte("b")) {
			t.Error("what fits the window did not leave")
		}
		s.isGoingOn(t)
		l.End([]byte("c"), header)
		if w.until(isA[*http2.MetaHeadersFrame]) == nil {
			t.Fatal("no head")
		}
		if body, trailer := w.rest(stream); body != "abc" || trailer != want {
			t.Errorf("the rest is %q with the trailer %q, want %q", body, trailer, want)
		}
		s.isOver(t)
		w.request(3, true, nil) // the connection goes on
		(<-s.begun).End(nil, nil)
		if w.until(isA[*http2.MetaHeadersFrame]) == nil {
			t.Error("no other request is served")
		}
	}
}

// A peer that takes little is waited for by nobody: the owner is told when it took what was sent, and
// the end comes after that.
func TestLasting_WaitsForNobody(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(w *wire, n uint32){
		"the stream's window": func(w *wire, n uint32) { w.ok(w.WriteWindowUpdate(stream, n)) },
		"all windows": func(w *wire, n uint32) {
			w.ok(w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: n + 2}))
		},
	} {
		s := startLasting(t, nil)
		w := dial(t, s.addr)
		w.ok(w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 2}))
		w.request(stream, true, nil)
		l := <-s.begun
		if l.Send([]byte("abcd")) {
			t.Errorf("%s: what the window has no room for left", name)
		}
		select {
		case <-s.taken:
			t.Errorf("%s: taken without room", name)
		default:
		}
		open(w, 2)
		<-s.taken
		if l.Send([]byte("efgh")) {
			t.Errorf("%s: left without room", name)
		}
		l.End([]byte("ij"), nil)
		s.isGoingOn(t)
		w.ok(w.WriteWindowUpdate(stream, 100))
		if body, trailer := w.rest(stream); body != "abcdefghij" || trailer != "" {
			t.Errorf("%s: the rest is %q, %q", name, body, trailer)
		}
		s.isOver(t)
		if len(s.taken) > 0 {
			t.Errorf("%s: the owner is told after the end", name)
		}
	}
}

// The window of the connection is shared: who waits for it goes on when there is room, also beside
// handlers that wait.
func TestLasting_SharesTheConnection(t *testing.T) {
	t.Parallel()
	s := startLasting(t, nil)
	w := dial(t, s.addr)
	const whole = 65535
	w.ok(w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}))
	w.request(stream, true, nil)
	l := <-s.begun
	if l.Send(make([]byte, whole+1)) {
		t.Error("left without room")
	}
	w.ok(w.WriteWindowUpdate(0, 100))
	<-s.taken
	l.End(nil, nil)
	if body, _ := w.rest(stream); len(body) != whole+1 {
		t.Errorf("%d bytes", len(body))
	}
	s.isOver(t)
}

// What the system has no room for is written when it has, in its order, and whoever sends waits for
// that no more than for windows.
func TestLasting_WaitsForNoSystem(t *testing.T) {
	t.Parallel()
	const piece, most, window = 8 << 10, 4096, 1 << 30
	s := startLasting(t, nil)
	w := dial(t, s.addr)
	w.ok(w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}))
	w.ok(w.WriteWindowUpdate(0, window))
	w.request(stream, true, nil)
	l := <-s.begun
	sent := 0
	for took := true; took && sent < most; sent++ {
		took = l.Send(bytes.Repeat([]byte{byte(sent)}, piece)) // nobody reads
	}
	if sent == most {
		t.Fatal("the system has room for all of it")
	}
	l.End(nil, nil)
	s.isGoingOn(t)
	body, _ := w.rest(stream)
	if len(body) != sent*piece {
		t.Fatalf("%d bytes came, of %d", len(body), sent*piece)
	}
	for i := range sent {
		if body[i*piece] != byte(i) || body[(i+1)*piece-1] != byte(i) {
			t.Fatalf("piece %d is another one", i)
		}
	}
	s.isOver(t)
}

// prompt is a connection that takes all that is offered, and leaves it.
type prompt struct {
	net.Conn

	left []byte
}

func (*prompt) TLS() *tls.ConnectionState { return &tls.ConnectionState{NegotiatedProtocol: "h2"} }
func (p *prompt) Abort()                  { _ = p.Close() }
func (p *prompt) Settle() error           { _, err := p.Write(p.left); return err }

func (p *prompt) Offer(b []byte) (taken, settled bool, err error) {
	p.left = bytes.Clone(b)
	return true, false, nil
}

// prompts is a listener with one of them.
type prompts chan net.Conn

func (p prompts) Addr() net.Addr { return &net.TCPAddr{} }
func (p prompts) Close() error   { return nil }

func (p prompts) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

// What was left is written by who may wait, also where nothing follows.
func TestLasting_SettlesWhatWasLeft(t *testing.T) {
	t.Parallel()
	o := newOwner()
	s := h2serve.New(config(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).Flush()
		h2serve.Last(w, o)
	})))
	near, far := net.Pipe()
	_ = far.SetDeadline(time.Now().Add(wait))
	l, served := make(prompts, 1), make(chan error, 1)
	l <- &prompt{Conn: near}
	close(l)
	go func() { served <- s.Serve(l) }()
	frames := http2.NewFramer(far, far)
	go func() {
		_, _ = io.WriteString(far, http2.ClientPreface)
		_ = frames.WriteSettings()
		head := []byte("\x83\x87\x84\x01\x01t") // POST https / of t (RFC 7541, appendix A)
		_ = frames.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: head, EndStream: true, EndHeaders: true})
		l := <-o.begun
		l.Send([]byte("left"))
	}()
	for {
		f, err := frames.ReadFrame()
		if err != nil {
			t.Fatalf("what was left is not written: %v", err)
		}
		if data, ok := f.(*http2.DataFrame); ok && string(data.Data()) == "left" {
			break
		}
	}
	_ = s.Close()
	<-served
}

// However nobody wants a response any more, its context says so, its owner ends it, and then it is
// over; what is sent meanwhile is dropped.
func TestLasting_IsEndedByItsOwner(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(s *lasting, w *wire){
		"reset":       func(_ *lasting, w *wire) { w.ok(w.WriteRSTStream(stream, http2.ErrCodeCancel)) },
		"gone":        func(_ *lasting, w *wire) { _ = w.nc.NetConn().Close() },
		"server ends": func(s *lasting, _ *wire) { _ = s.Close() },
		"reset while it waits": func(_ *lasting, w *wire) {
			w.ok(w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
			w.ok(w.WriteRSTStream(stream, http2.ErrCodeCancel))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startLasting(t, nil)
			w := dial(t, s.addr)
			w.request(stream, true, nil)
			l := <-s.begun
			end(s, w)
			<-s.ctx.Done()
			for range 3 {
				if !l.Send(make([]byte, 1<<20)) {
					t.Error("what nobody wants waits")
				}
			}
			s.mu.Lock()
			if len(s.order) > 0 {
				t.Error("done before its owner ended it")
			}
			s.mu.Unlock()
			l.End([]byte("end"), nil)
			s.isOver(t)
		})
	}
}

// A response whose end is not taken is over when its stream is.
func TestLasting_EndsWithItsStream(t *testing.T) {
	t.Parallel()
	s := startLasting(t, nil)
	w := dial(t, s.addr)
	w.ok(w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
	w.request(stream, true, nil)
	l := <-s.begun
	l.End([]byte("end"), nil)
	s.isGoingOn(t)
	w.ok(w.WriteRSTStream(stream, http2.ErrCodeCancel))
	s.isOver(t)
}

// A server that shuts down waits for responses that outlast their handlers.
func TestLasting_IsWaitedFor(t *testing.T) {
	t.Parallel()
	s := startLasting(t, nil)
	w := dial(t, s.addr)
	w.request(stream, true, nil)
	l := <-s.begun
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(ctx); err == nil {
		t.Error("shut down beside a response that goes on")
	}
	l.End([]byte("end"), nil)
	if body, _ := w.rest(stream); body != "end" {
		t.Errorf("the rest is %q", body)
	}
	ctx, cancel = context.WithTimeout(t.Context(), wait)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	s.isOver(t)
}

// A deadline of the handler's holds on.
func TestLasting_HasTheDeadlineOfItsHandler(t *testing.T) {
	t.Parallel()
	s := startLasting(t, func(cfg *h2serve.Config) {
		next := cfg.Handler
		cfg.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r)
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Millisecond))
		})
	})
	w := dial(t, s.addr)
	w.request(stream, true, nil)
	l := <-s.begun
	<-s.ctx.Done()
	l.End(nil, nil)
	if _, trailer := w.rest(stream); trailer != fmt.Sprint("reset ", http2.ErrCodeInternal) {
		t.Errorf("it ends with %q", trailer)
	}
	s.isOver(t)
}

// Where another server serves, or no head was sent, a response ends with its handler.
func TestLasting_IsNotForEveryResponse(t *testing.T) {
	t.Parallel()
	rec := httptest.NewRecorder()
	if h2serve.CanLast(rec) || h2serve.LastingOf(rec) != nil || h2serve.Last(rec, nil) {
		t.Error("another server's response lasts")
	}
	answered := make(chan bool, 2)
	s := start(t, config(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stated" {
			w.Header().Set("Content-Length", "2")
			_ = http.NewResponseController(w).Flush()
		}
		answered <- h2serve.Last(w, newOwner())
	})))
	w := dial(t, s.addr)
	w.request(stream, true, nil)
	w.request(3, true, map[string]string{":path": "/stated"})
	for range 2 {
		if <-answered {
			t.Error("it lasts")
		}
	}
}
