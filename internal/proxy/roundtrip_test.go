package proxy_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

// ownBody is the body of a request that knows whether it was closed.
type ownBody struct {
	io.Reader

	closed atomic.Bool
}

func (b *ownBody) Close() error {
	b.closed.Store(true)
	if c, ok := b.Reader.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// ownCall makes a call of the host's own.
func (g *rig) ownCall(t *testing.T, ctx context.Context, body *ownBody, length int64) (*http.Response, proxy.Result) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://plugin.invalid"+servicePth+"Call", body)
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = length
	r.Header.Set("Content-Type", unaryType)
	return g.provider.RoundTrip(r, proxy.Call{Path: r.URL.Path})
}

// The host's own caller gets the whole response, and the call is in flight until then.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	g := newRig(t, rigConfig{handler: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Last")
		w.Header().Set("Set-Cookie", "a=b") // does not pass
		_, _ = io.Copy(w, r.Body)
		w.Header().Set("X-Last", "word")
	}})
	for _, length := range []int64{5, -1} {
		body := &ownBody{Reader: strings.NewReader("hello")}
		resp, result := g.ownCall(t, t.Context(), body, length)
		if resp == nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%+v, %+v", resp, result)
		}
		if n := g.provider.InFlight(); n != 1 {
			t.Errorf("%d in flight before the response is read", n)
		}
		got, err := io.ReadAll(resp.Body)
		if string(got) != "hello" || err != nil || resp.Trailer.Get("X-Last") != "word" || resp.Header.Get("Set-Cookie") != "" {
			t.Errorf("%q, %v, header %v, trailer %v", got, err, resp.Header, resp.Trailer)
		}
		if n := g.provider.InFlight(); n != 0 || !body.closed.Load() {
			t.Errorf("%d in flight afterwards, the request's body is closed: %v", n, body.closed.Load())
		}
		if _, err := resp.Body.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("after the end: %v", err)
		}
		_ = resp.Body.Close()
	}
}

// A stream is passed on as it comes; closing it ends the call at the provider, and what the
// caller still wanted to send.
func TestRoundTrip_Streams(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	g := newRig(t, rigConfig{handler: func(w http.ResponseWriter, r *http.Request) {
		defer close(gone)
		piece := make([]byte, 3)
		for {
			if _, err := io.ReadFull(r.Body, piece); err != nil {
				return
			}
			_, _ = w.Write(piece)
			_ = http.NewResponseController(w).Flush()
		}
	}})
	in, out := io.Pipe()
	first := make(chan error, 1)
	go func() {
		_, err := io.WriteString(out, "one")
		first <- err
	}()
	resp, result := g.ownCall(t, t.Context(), &ownBody{Reader: in}, -1)
	if resp == nil {
		t.Fatalf("%+v", result)
	}
	for _, want := range []string{"one", "two"} {
		if want == "two" {
			go func() {
				_, err := io.WriteString(out, "two")
				first <- err
			}()
		}
		got := make([]byte, 3)
		if _, err := io.ReadFull(resp.Body, got); string(got) != want || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
		if err := await(t, first, "what is sent"); err != nil {
			t.Error(err)
		}
	}
	_ = resp.Body.Close()
	await(t, gone, "the end of the handler")
	if _, err := io.WriteString(out, "more"); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("sending afterwards: %v", err)
	}
	if _, err := resp.Body.Read(make([]byte, 1)); err == nil {
		t.Error("reading afterwards worked")
	}
	if n := g.provider.InFlight(); n != 0 {
		t.Errorf("%d in flight", n)
	}
}

// A response that breaks is no whole one, and its reader learns why.
func TestRoundTrip_Breaks(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		class proxy.Class
		end   func(g *rig, cancel context.CancelFunc)
		abort bool
	}{
		"the provider": {class: proxy.ClassReset, abort: true},
		"the caller":   {class: proxy.ClassCanceled, end: func(_ *rig, cancel context.CancelFunc) { cancel() }},
		"the host":     {class: proxy.ClassReset, end: func(g *rig, _ context.CancelFunc) { g.provider.Close() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t, rigConfig{handler: func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, "half")
				_ = http.NewResponseController(w).Flush()
				if tt.abort {
					panic(http.ErrAbortHandler)
				}
				<-r.Context().Done()
			}})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			resp, result := g.ownCall(t, ctx, &ownBody{Reader: strings.NewReader("{}")}, 2)
			if resp == nil {
				if tt.abort && result.Class == tt.class {
					return // it broke before the head was handed over
				}
				t.Fatalf("%+v", result)
			}
			if tt.end != nil {
				tt.end(g, cancel)
			}
			_, err := io.ReadAll(resp.Body)
			broken, ok := errors.AsType[*proxy.BrokenError](err)
			if !ok || broken.Class != tt.class {
				t.Errorf("%v", err)
			}
			if n := g.provider.InFlight(); n != 0 {
				t.Errorf("%d in flight", n)
			}
		})
	}
}

// Where there is no response the result says why, and a request that can be made again still
// has its body.
func TestRoundTrip_NoResponse(t *testing.T) {
	t.Parallel()
	g := newRig(t, rigConfig{handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(http.StatusFound)
	}})
	body := &ownBody{Reader: strings.NewReader("{}")}
	if resp, result := g.ownCall(t, t.Context(), body, 2); resp != nil || result.Class != proxy.ClassResponse || result.Retryable || !body.closed.Load() {
		t.Errorf("a redirect: %+v, %+v, closed %v", resp, result, body.closed.Load())
	}
	g.provider.Close()
	body = &ownBody{Reader: strings.NewReader("{}")}
	if resp, result := g.ownCall(t, t.Context(), body, 2); resp != nil || result.Class != proxy.ClassUnavailable || !result.Retryable || body.closed.Load() {
		t.Errorf("closed: %+v, %+v, closed %v", resp, result, body.closed.Load())
	}
}

// A request that nobody saw still has its body: it can be made again.
func TestRoundTrip_NobodyThere(t *testing.T) {
	t.Parallel()
	g := newRig(t, rigConfig{handler: func(http.ResponseWriter, *http.Request) {}, config: func(c *proxy.Config) {
		c.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, syscall.ECONNREFUSED }
	}})
	body := &ownBody{Reader: strings.NewReader("{}")}
	if resp, result := g.ownCall(t, t.Context(), body, -1); resp != nil || !result.Retryable || body.closed.Load() {
		t.Errorf("%+v, %+v, closed %v", resp, result, body.closed.Load())
	}
}
