package h2serve_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// stream is the first one of a connection.
const stream = 1

// refusal is something that a peer must not do, and how that ends.
type refusal struct {
	do   func(w *wire)
	code http2.ErrCode
	all  bool // the connection ends
}

var refusals = map[string]refusal{
	"data on no stream": {func(w *wire) { w.ok(w.WriteData(9, false, []byte("x"))) }, http2.ErrCodeProtocol, true},
	"a reset of none":   {func(w *wire) { w.ok(w.WriteRSTStream(9, http2.ErrCodeCancel)) }, http2.ErrCodeProtocol, true},
	"a window of none":  {func(w *wire) { w.ok(w.WriteWindowUpdate(9, 1)) }, http2.ErrCodeProtocol, true},
	"a stream of ours":  {func(w *wire) { w.request(2, true, nil) }, http2.ErrCodeProtocol, true},
	"a promise": {func(w *wire) {
		w.ok(w.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: []byte{0x82}, EndHeaders: true}))
	}, http2.ErrCodeProtocol, true},
	"a frame too long":    {func(w *wire) { _ = w.WriteRawFrame(0x77, 0, 0, make([]byte, 1<<15)) }, http2.ErrCodeFrameSize, true},
	"a window beyond all": {func(w *wire) { w.ok(w.WriteWindowUpdate(0, 1<<31-1)) }, http2.ErrCodeFlowControl, true},
	"bad settings":        {func(w *wire) { w.ok(w.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1})) }, http2.ErrCodeProtocol, true},
	"pings without reading": {func(w *wire) {
		pings := bytes.Repeat([]byte{0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}, 10_000)
		for range 1000 {
			if _, err := w.nc.Write(pings); err != nil {
				return
			}
		}
	}, http2.ErrCodeEnhanceYourCalm, true},
	"no path":            {func(w *wire) { w.request(stream, true, map[string]string{":path": ""}) }, http2.ErrCodeProtocol, false},
	"no method":          {func(w *wire) { w.request(stream, true, map[string]string{":method": ""}) }, http2.ErrCodeProtocol, false},
	"CONNECT":            {func(w *wire) { w.request(stream, true, map[string]string{":method": "CONNECT"}) }, http2.ErrCodeProtocol, false},
	"another scheme":     {func(w *wire) { w.request(stream, true, map[string]string{":scheme": "ftp"}) }, http2.ErrCodeProtocol, false},
	"a name in capitals": {func(w *wire) { w.request(stream, true, map[string]string{"X-A": "1"}) }, http2.ErrCodeProtocol, false},
	"a connection's":     {func(w *wire) { w.request(stream, true, map[string]string{"connection": "close"}) }, http2.ErrCodeProtocol, false},
	"another te":         {func(w *wire) { w.request(stream, true, map[string]string{"te": "gzip"}) }, http2.ErrCodeProtocol, false},
	"two pseudo fields":  {func(w *wire) { w.request(stream, true, map[string]string{":other": "1"}) }, http2.ErrCodeProtocol, false},
	"more than stated": {func(w *wire) {
		w.request(stream, false, map[string]string{"content-length": "1", ":path": "/wait"})
		w.ok(w.WriteData(stream, true, []byte("xx")))
	}, http2.ErrCodeProtocol, false},
	"less than stated": {func(w *wire) {
		w.request(stream, false, map[string]string{"content-length": "3", ":path": "/wait"})
		w.ok(w.WriteData(stream, true, []byte("xx")))
	}, http2.ErrCodeProtocol, false},
	"a window of its own beyond all": {func(w *wire) {
		w.request(stream, true, map[string]string{":path": "/wait"})
		w.ok(w.WriteWindowUpdate(stream, 1<<31-1))
	}, http2.ErrCodeFlowControl, false},
	"more than the window": {func(w *wire) {
		w.request(stream, false, map[string]string{":path": "/wait"})
		for range 5 {
			w.ok(w.WriteData(stream, false, make([]byte, 16<<10)))
		}
	}, http2.ErrCodeFlowControl, false},
	"data after the end": {func(w *wire) {
		w.request(stream, true, map[string]string{":path": "/wait"})
		w.ok(w.WriteData(stream, false, []byte("x")))
	}, http2.ErrCodeStreamClosed, false},
}

// What a peer must not do ends the connection or its stream, with the code for it, and no handler
// sees it; a request beside it is served.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, tt := range refusals {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var served atomic.Int32
			r := start(t, config(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if served.Add(1); r.URL.Path == "/wait" {
					<-r.Context().Done()
				}
			})))
			w := dial(t, r.addr)
			tt.do(w)
			got, ended := http2.ErrCode(0), false
			f := w.until(func(f http2.Frame) bool {
				switch f := f.(type) {
				case *http2.RSTStreamFrame:
					got = f.ErrCode
				case *http2.GoAwayFrame:
					got, ended = f.ErrCode, true
				default:
					return false
				}
				return true
			})
			if f != nil && (got != tt.code || ended != tt.all) || f == nil && !tt.all {
				t.Fatalf("it ended with %v (the connection: %v), want %v", got, ended, tt.code)
			}
			if !tt.all {
				w.request(3, true, nil)
				if w.until(isA[*http2.MetaHeadersFrame]) == nil {
					t.Error("another request is not served")
				}
			}
		})
	}
}

// A head that is larger than is taken is answered, and so is the next one.
func TestLargeHead(t *testing.T) {
	t.Parallel()
	cfg := config(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	cfg.MaxHeaderBytes = 8 << 10
	w := dial(t, start(t, cfg).addr)
	for i, want := range []string{"431", "200"} {
		fields := map[string]string{}
		for n := range 4 - 3*i {
			fields["x-"+strconv.Itoa(n)] = strings.Repeat("a", 3000)
		}
		w.request(uint32(2*i+1), i == 1, fields)
		f, _ := w.until(isA[*http2.MetaHeadersFrame]).(*http2.MetaHeadersFrame)
		if f == nil || f.PseudoValue("status") != want {
			t.Errorf("request %d is answered %v", i+1, f)
		}
	}
}

// The log has a handler's panic, and none that only ends the response.
func TestPanicsAreLogged(t *testing.T) {
	t.Parallel()
	var out logged
	cfg := config(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/abort" {
			panic(http.ErrAbortHandler)
		}
		panic("what went wrong")
	}))
	cfg.Log = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w := dial(t, start(t, cfg).addr)
	for i, path := range []string{"/abort", "/"} {
		w.request(uint32(2*i+1), true, map[string]string{":path": path})
		if f, _ := w.until(isA[*http2.RSTStreamFrame]).(*http2.RSTStreamFrame); f == nil || f.ErrCode != http2.ErrCodeInternal {
			t.Errorf("%s: %v", path, f)
		}
		if logged := strings.Contains(out.String(), "panic serving"); logged != (path == "/") {
			t.Errorf("%s: the log has %q", path, out.String())
		}
	}
}

// A peer that sends more than anybody wants is told to stop, and not before it has the answer.
func TestUnwantedRestOfARequest(t *testing.T) {
	t.Parallel()
	w := dial(t, start(t, config(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))).addr)
	w.request(1, false, nil)
	if f, _ := w.until(isA[*http2.MetaHeadersFrame]).(*http2.MetaHeadersFrame); f == nil || !f.StreamEnded() {
		t.Errorf("the answer is %v", f)
	}
	if f, _ := w.until(isA[*http2.RSTStreamFrame]).(*http2.RSTStreamFrame); f == nil || f.ErrCode != http2.ErrCodeNo {
		t.Errorf("then comes %v", f)
	}
	w.ok(w.WriteData(1, true, []byte("was under way")))
	w.request(3, true, nil)
	if f := w.until(isA[*http2.MetaHeadersFrame]); f == nil {
		t.Error("another request is not served")
	}
}

// What the peer's window for the whole connection holds back goes on when that grows.
func TestWindowOfTheConnection(t *testing.T) {
	t.Parallel()
	const all, first = 200_000, 65535
	w := dial(t, start(t, config(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, all))
	}))).addr)
	w.ok(w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}))
	w.request(1, true, nil)
	got := 0
	upTo := func(want int) {
		for got < want {
			f, _ := w.until(isA[*http2.DataFrame]).(*http2.DataFrame)
			if f == nil {
				t.Fatalf("%d bytes came", got)
			}
			got += len(f.Data())
		}
	}
	if upTo(first); got != first {
		t.Errorf("%d bytes came at first", got)
	}
	w.ok(w.WriteWindowUpdate(0, all))
	if upTo(all); got != all {
		t.Errorf("%d bytes came", got)
	}
}

func TestMaxStreams(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	cfg := config(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	cfg.MaxStreams = 2
	w := dial(t, start(t, cfg).addr)
	for id := range uint32(3) {
		w.request(2*id+1, true, nil)
	}
	f, _ := w.until(isA[*http2.RSTStreamFrame]).(*http2.RSTStreamFrame)
	if f == nil || f.StreamID != 5 || f.ErrCode != http2.ErrCodeRefusedStream {
		t.Errorf("the third is answered %v", f)
	}
	close(release)
	for range 2 {
		if w.until(isA[*http2.MetaHeadersFrame]) == nil {
			t.Error("the first two are not served")
		}
	}
}

// Streams that are reset at once hold no more handlers than a few for each that may be open.
func TestResetStreamsHoldFewHandlers(t *testing.T) {
	t.Parallel()
	var running, most atomic.Int32
	release := make(chan struct{})
	cfg := config(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		defer running.Add(-1)
		if n := running.Add(1); n > most.Load() {
			most.Store(n) // more or less: they begin one after the other
		}
		<-release
	}))
	cfg.MaxStreams = 2
	w := dial(t, start(t, cfg).addr)
	for id := range uint32(200) {
		w.request(2*id+1, true, nil)
		w.ok(w.WriteRSTStream(2*id+1, http2.ErrCodeCancel))
	}
	w.ok(w.WritePing(false, [8]byte{1}))
	w.until(isA[*http2.PingFrame])
	if n := most.Load(); n > 4 {
		t.Errorf("%d handlers ran", n)
	}
	close(release)
}

// The end of the stream, of the connection and of the server end the context of a request, and
// whatever its handler waits for.
func TestContextEnds(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(r *rig, w *wire){
		"reset":      func(_ *rig, w *wire) { w.ok(w.WriteRSTStream(1, http2.ErrCodeCancel)) },
		"connection": func(_ *rig, w *wire) { _ = w.nc.Close() },
		"server":     func(r *rig, _ *wire) { _ = r.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began, ended := make(chan struct{}), make(chan error, 1)
			r := start(t, config(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				close(began)
				_, err := io.ReadAll(r.Body)
				<-r.Context().Done()
				_, writeErr := w.Write(make([]byte, 1<<20))
				ended <- errors.Join(err, writeErr)
			})))
			w := dial(t, r.addr)
			w.request(1, false, nil)
			<-began
			end(r, w)
			select {
			case err := <-ended:
				if err == nil {
					t.Error("the handler noticed nothing")
				}
			case <-time.After(wait):
				t.Error("the handler still waits")
			}
		})
	}
}

func TestShutdownWaitsForWhatIsServed(t *testing.T) {
	t.Parallel()
	began, release := make(chan struct{}), make(chan struct{})
	r := start(t, config(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(began)
		<-release
		_, _ = io.WriteString(w, strings.Repeat("x", 100_000))
	})))
	got := make(chan error, 1)
	go func() {
		resp, err := client(t).Get("https://" + r.addr)
		if err == nil {
			var b []byte
			if b, err = io.ReadAll(resp.Body); len(b) != 100_000 {
				err = errors.Join(err, errors.New("the answer is not whole"))
			}
			_ = resp.Body.Close()
		}
		got <- err
	}()
	<-began
	idle := dial(t, r.addr) // holds nothing up
	if idle.until(isA[*http2.SettingsFrame]) == nil {
		t.Fatal("no settings")
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Shutdown(over); !errors.Is(err, context.Canceled) {
		t.Errorf("with a call in flight, and no time: %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- r.Shutdown(t.Context()) }()
	if f, _ := idle.until(isA[*http2.GoAwayFrame]).(*http2.GoAwayFrame); f == nil || f.ErrCode != http2.ErrCodeNo || f.LastStreamID != 1<<31-1 {
		t.Errorf("an idle peer is told %v", f)
	}
	close(release)
	for _, c := range []chan error{got, ended} {
		select {
		case err := <-c:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(wait):
			t.Fatal("it does not end")
		}
	}
}

// A connection that nobody uses, on which nobody answers, or that does not begin as HTTP/2 ends.
func TestConnectionsEnd(t *testing.T) {
	t.Parallel()
	const soon = 50 * time.Millisecond
	for name, tt := range map[string]struct {
		edit func(*h2serveConfig)
		do   func(*wire)
	}{
		"idle":   {func(c *h2serveConfig) { c.IdleTimeout = soon }, func(*wire) {}},
		"silent": {func(c *h2serveConfig) { c.PingAfter, c.PingTimeout = soon, soon }, func(w *wire) { w.request(1, true, nil) }},
		"stuck": {func(c *h2serveConfig) { c.WriteTimeout = soon }, func(w *wire) {
			w.ok(w.WriteWindowUpdate(0, 1<<30))
			w.ok(w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30}))
			w.request(1, true, map[string]string{":path": "/long"})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ended := make(chan struct{})
			cfg := config(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer close(ended)
				for r.URL.Path == "/long" {
					if _, err := w.Write(make([]byte, 1<<20)); err != nil {
						return
					}
				}
				<-r.Context().Done()
			}))
			tt.edit(&cfg)
			w := dial(t, start(t, cfg).addr)
			tt.do(w)
			if name == "idle" {
				close(ended)
				if w.until(func(http2.Frame) bool { return false }) != nil {
					t.Error("it goes on")
				}
				return
			}
			select {
			case <-ended:
			case <-time.After(wait):
				t.Error("it goes on")
			}
		})
	}
	nc := dialTLS(t, start(t, config(http.NotFoundHandler())).addr)
	if _, err := io.WriteString(nc, strings.Repeat("x", len(http2.ClientPreface))); err != nil {
		t.Fatal(err)
	}
	var late net.Error
	if b, err := io.ReadAll(nc); len(b) > 0 || errors.As(err, &late) && late.Timeout() {
		t.Errorf("nonsense is answered with %d bytes: %v", len(b), err)
	}
}

// Many calls at a time over one connection all get their own answers, and uploads and downloads
// keep nobody else waiting.
func TestManyAtATime(t *testing.T) {
	t.Parallel()
	r := start(t, config(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		_, _ = w.Write(b)
	})))
	c := client(t)
	results := make(chan error)
	const callers, rounds = 16, 20
	for i := range callers {
		go func() {
			for round := range rounds {
				text := strings.Repeat(string(rune('a'+i)), 1+(i*round*1777)%150_000)
				resp, err := c.Post("https://"+r.addr, "text/plain", strings.NewReader(text))
				if err != nil {
					results <- err
					continue
				}
				b, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if string(b) != text {
					err = errors.Join(err, errors.New("somebody else's answer"))
				}
				results <- err
			}
		}()
	}
	for range callers * rounds {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

// What comes of a request whose handler has returned is not kept while its answer waits for the peer: others have its room.
func TestAudit_ATK14_NobodyReadsForWhoWasAnswered(t *testing.T) {
	t.Parallel()
	r := start(t, config(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "x") })))
	w := dial(t, r.addr)
	w.ok(w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
	const uploads, frames, frame = 4, 4, 16 << 10 // as much as the connection has room for
	for i := range uint32(uploads) {
		id := 2*i + 1
		w.request(id, false, nil)
		w.until(func(f http2.Frame) bool { return isA[*http2.MetaHeadersFrame](f) && f.Header().StreamID == id })
		for range frames {
			w.ok(w.WriteData(id, false, make([]byte, frame)))
		}
	}
	if w.until(func(f http2.Frame) bool { return isA[*http2.WindowUpdateFrame](f) && f.Header().StreamID == 0 }) == nil {
		t.Error("the connection has no room again")
	}
}
