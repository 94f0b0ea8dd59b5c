package h2serve_test

import (
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/h2serve"
)

// resets are those that a client saw, in order, whether its answers came, and how many frames of the
// connection.
type resets struct {
	mu    sync.Mutex
	ids   []uint32
	ended map[uint32]bool
	woken int
}

// follow reads what the server sends.
func (r *resets) follow(nc net.Conn) {
	fr := http2.NewFramer(nil, nc)
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return
		}
		r.mu.Lock()
		switch f := f.(type) {
		case *http2.RSTStreamFrame:
			if f.ErrCode == http2.ErrCodeNo {
				r.ids = append(r.ids, f.StreamID)
			}
		case *http2.HeadersFrame:
			r.ended[f.StreamID] = r.ended[f.StreamID] || f.StreamEnded()
		case *http2.DataFrame:
			r.ended[f.StreamID] = r.ended[f.StreamID] || f.StreamEnded()
		case *http2.WindowUpdateFrame, *http2.PingFrame:
			r.woken++
		}
		r.mu.Unlock()
	}
}

// are fails unless just these streams were reset, all of which were answered before.
func (r *resets) are(t *testing.T, when string, want ...uint32) {
	t.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ids) != len(want) {
		t.Fatalf("%s: reset are %v, want %v", when, r.ids, want)
	}
	for i, id := range want {
		if r.ids[i] != id || !r.ended[id] {
			t.Errorf("%s: reset are %v, want %v; answered %v", when, r.ids, want, r.ended)
		}
	}
}

// ender ends a response that outlasts its handler.
type ender struct{}

func (ender) Begin(l *h2serve.Lasting) { l.End(nil, nil) }
func (ender) Taken()                   {}

// lastingOr has one path answered by what outlasts its handler.
func lastingOr(others http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/lasting" {
			others.ServeHTTP(w, r)
			return
		}
		_ = http.NewResponseController(w).Flush()
		h2serve.Last(w, ender{})
	})
}

// inHalf has a test talk to a server in a bubble.
func inHalf(t *testing.T, test func(t *testing.T, w *wire, r *resets)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		client, far := net.Pipe()
		var running atomic.Int32
		var wg sync.WaitGroup
		r := &resets{ended: map[uint32]bool{}}
		wg.Go(func() { serveOurs(far, lastingOr(handle(&running))) })
		wg.Go(func() { r.follow(client) })
		defer wg.Wait()
		defer func() { _ = client.Close() }()
		test(t, wireOn(t, client), r)
	})
}

// Whoever is answered before all of its request has come keeps the answer: the reset does not come with it,
// and does not come at all where the rest of the request does, or nobody sends it. curl lost such answers. Of
// those whose request is complete by then it would wait for ever, if nothing else came.
func TestAudit_USE20_AnAnswerIsNotLostToAReset(t *testing.T) {
	t.Parallel()
	answers := map[string]map[string]string{
		"by a handler": {":path": "/say", "content-length": "100"}, "without a length": {":path": "/head"},
		"by what lasts":  {":path": "/lasting"},
		"head too large": {"x-large": strings.Repeat("a", listLimit)},
	}
	data := func(n int) func(w *wire) { // less than is left, as curl sends it
		return func(w *wire) { w.ok(w.WriteData(1, false, make([]byte, n))); w.ok(w.WriteData(1, true, nil)) }
	}
	none := map[string]string{":method": "", ":scheme": "", ":authority": "", ":path": "", "x-a": "b"}
	ends := map[string]func(w *wire){
		"nothing": nil, "bytes": data(10), "no bytes": data(0),
		"trailer": func(w *wire) { w.request(1, true, none) },
		"reset":   func(w *wire) { w.ok(w.WriteRSTStream(1, http2.ErrCodeCancel)) },
	}
	for how, fields := range answers {
		for then, end := range ends {
			t.Run(how+", then "+then, func(t *testing.T) {
				t.Parallel()
				inHalf(t, func(t *testing.T, w *wire, r *resets) { finish(t, w, r, fields, then, end) })
			})
		}
	}
}

// finish has a request answered before it is complete, and its rest sent late.
func finish(t *testing.T, w *wire, r *resets, fields map[string]string, then string, end func(w *wire)) {
	t.Helper()
	const most = 250 * time.Millisecond // until the reset
	w.request(1, false, fields)
	r.are(t, "with the answer")
	time.Sleep(99 * time.Millisecond)
	r.are(t, "soon after it")
	woken := r.woken
	if end == nil {
		time.Sleep(most)
		r.are(t, "later", 1)
		return
	}
	end(w)
	synctest.Wait()
	if then != "reset" && r.woken != woken+1 {
		t.Errorf("%d frames came after the rest of the request, want 1", r.woken-woken)
	}
	time.Sleep(most)
	r.are(t, "after the rest of the request")
	w.request(3, true, map[string]string{":path": "/say"})
	synctest.Wait()
	if !r.ended[1] || !r.ended[3] {
		t.Errorf("answered are %v", r.ended)
	}
}

// A peer that finishes none of its requests has no more of them than streams: the oldest is reset at once.
func TestAudit_USE20_RequestsThatNobodyFinishesAreBounded(t *testing.T) {
	t.Parallel()
	inHalf(t, func(t *testing.T, w *wire, r *resets) {
		var want []uint32
		for i := range uint32(3 * mostStreams) {
			w.request(2*i+1, false, map[string]string{":path": "/say"})
			synctest.Wait()
			if want = append(want, 2*i+1); i < mostStreams {
				r.are(t, "while there is room")
			} else {
				r.are(t, "beyond", want[:i+1-mostStreams]...)
			}
		}
		time.Sleep(time.Second)
		r.are(t, "later", want...)
	})
}
