package proxy_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/headers"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

func TestAudit_PROTO53_FieldsOnTheWire(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, memory bool) {
		t.Helper()
		seen := make(chan *http.Request, 1)
		g := newRig(t, rigConfig{
			memory: memory,
			config: func(c *proxy.Config) { c.Headers = headers.NewRules("X-Company-Key") },
			handler: func(w http.ResponseWriter, r *http.Request) {
				seen <- r
				h := w.Header()
				for name, value := range map[string]string{
					"Content-Type": "application/json", "X-Answer": "yes", "Set-Cookie": "a=b", "Location": "/", "Server": "secret/1.0", "Alt-Svc": "h3",
					"Strict-Transport-Security": "max-age=1", "X-Plugin-Caller-Id": "forged", "Www-Authenticate": "Basic", "Access-Control-Allow-Origin": "*",
					"Trailer-Set-Cookie": "a=b", "Trailer-X-Ok": "1", "Date": "Thu, 01 Jan 1970 00:00:00 GMT",
				} {
					h.Set(name, value)
				}
				_, _ = io.WriteString(w, "{}")
			},
		})
		res, _ := g.post(t, "application/json", strings.NewReader("{}"),
			"Connect-Protocol-Version", "1", "Connect-Timeout-Ms", "5000", "Traceparent", "00-1-2-01", "X-Custom", "1", "X-Custom", "2", "Te", "trailers",
			"User-Agent", "test", "Accept-Encoding", "gzip",
			"Authorization", "Bearer token", "Cookie", "a=b", "X-Plugin-Caller-Id", "forged", "X-Plugin-Runtime-Id", "caller-1", "X-Forwarded-For", "1.2.3.4",
			"Forwarded", "for=1.2.3.4", "Via", "x", "X-Real-Ip", "1.2.3.4", "Origin", "https://evil.example", "Referer", "x", "X-Api-Key", "k",
			"Proxy-Authorization", "x", "Sec-Fetch-Site", "none", "X-Company-Key", "k", "X_plugin_caller_id", "forged", "Expect", "")
		r := await(t, seen, "request")
		want := http.Header{
			"Accept-Encoding": {"gzip"}, "Connect-Protocol-Version": {"1"}, "Connect-Timeout-Ms": {"5000"}, "Content-Type": {"application/json"},
			"Te": {"trailers"}, "Traceparent": {"00-1-2-01"}, "User-Agent": {"test"}, "X-Custom": {"1", "2"}, "X-Plugin-Caller-Id": {"caller-1"},
		}
		got := r.Header.Clone()
		got.Del("Content-Length")
		same(t, "request", got, want)
		if strings.Contains(r.Host, g.host.Listener.Addr().String()) || r.ContentLength != 2 {
			t.Errorf("host %q, length %d", r.Host, r.ContentLength)
		}
		same(t, "response", res.Header, http.Header{
			"Content-Type": {"application/json"}, "X-Answer": {"yes"}, "Trailer-X-Ok": {"1"}, "Date": {"Thu, 01 Jan 1970 00:00:00 GMT"}, "Content-Length": {"2"},
		})
	})
}

func same(t *testing.T, what string, got, want http.Header) {
	t.Helper()
	if !maps.EqualFunc(got, want, slices.Equal[[]string]) {
		t.Errorf("%s fields %v, want %v", what, got, want)
	}
}

// script answers one request.
type script func(fr *http2.Framer, stream uint32)

// rawProvider plays the provider by hand, with one script for each request in
// turn.
func rawProvider(t *testing.T, scripts ...script) *rig {
	t.Helper()
	g := &rig{heads: make(chan uint32, len(scripts))}
	checkLeaks(t)
	cert := newServer(t, func(http.ResponseWriter, *http.Request) {}) // for its certificate
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: cert.TLS.Certificates, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { ln.Close(); <-done })
	var calls atomic.Int64
	go func() {
		defer close(done)
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			playProvider(nc, g.heads, func(fr *http2.Framer, stream uint32) { scripts[calls.Add(1)-1](fr, stream) })
		}
	}()
	g.provider = newProvider(t, proxy.Config{Endpoint: endpointOf(t, "https://"+ln.Addr().String()), TLS: &tls.Config{RootCAs: poolOf(cert)}, MaxConns: 1, DialTimeout: patience})
	g.results = make(chan proxy.Result, 10)
	g.host = newServer(t, func(w http.ResponseWriter, r *http.Request) {
		g.results <- g.provider.Forward(w, r, proxy.Call{Path: r.URL.Path})
	})
	g.client = newClient(t, g.host)
	return g
}

// playProvider answers each request of a connection with the script, and says how long its head is.
func playProvider(nc net.Conn, heads chan<- uint32, play script) {
	defer nc.Close()
	if _, err := io.ReadFull(nc, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	fr := http2.NewFramer(nc, nc)
	_ = fr.WriteSettings()
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return
		}
		if f.Header().Type == http2.FrameHeaders {
			heads <- f.Header().Length
		}
		if ended, ok := f.(interface{ StreamEnded() bool }); ok && ended.StreamEnded() {
			play(fr, f.Header().StreamID)
		}
	}
}

// TestAudit_ATK14_ACallersFieldsTakeNoPlaceInTheTable has callers send what no other call has, and compares the heads
// of other calls on the connection before and after that.
func TestAudit_ATK14_ACallersFieldsTakeNoPlaceInTheTable(t *testing.T) {
	t.Parallel()
	const first = 40 // calls, after which there is a table
	var many, usual []string
	for i := range 200 {
		many = append(many, fmt.Sprintf("X-%d", i), "v")
		usual = append(usual, "Accept", strconv.Itoa(i))
	}
	for name, odd := range map[string]struct {
		query  string
		fields []string
	}{
		"many fields":              {fields: many},
		"a field many times":       {fields: slices.Repeat([]string{"X-A", "v"}, 200)},
		"a usual field many times": {fields: usual},
		"a query":                  {query: "?message=a"},
		"what tells calls apart":   {fields: []string{"Connect-Timeout-Ms", "4711", "Grpc-Timeout", "4711m", "Traceparent", "00-1-2-01"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := rawProvider(t, slices.Repeat([]script{answer}, first+3)...)
			call := func(query string, fields ...string) uint32 {
				t.Helper()
				g.postTo(t, g.url("Call")+query, unaryType, strings.NewReader("x"), fields...)
				g.wantClass(t, proxy.ClassOK)
				return await(t, g.heads, "head")
			}
			var before uint32
			for range first {
				before = call("", "Accept", "0")
			}
			if one, same := call(odd.query, odd.fields...), call(odd.query, odd.fields...); same != one {
				t.Errorf("a head of %d bytes, and the same again is one of %d", one, same)
			}
			if after := call("", "Accept", "0"); after != before {
				t.Errorf("a head of %d bytes after it, of %d before", after, before)
			}
		})
	}
}

func answer(fr *http2.Framer, stream uint32) {
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0x88}, EndHeaders: true}) // :status 200
	_ = fr.WriteData(stream, true, []byte("answer"))
}

// TestUnprocessedRequestIsMadeAgain covers what is safe whatever the method:
// the provider said that it did not look at the request.
func TestUnprocessedRequestIsMadeAgain(t *testing.T) {
	t.Parallel()
	tests := map[string]script{
		"refused":    func(fr *http2.Framer, stream uint32) { _ = fr.WriteRSTStream(stream, http2.ErrCodeRefusedStream) },
		"going away": func(fr *http2.Framer, _ uint32) { _ = fr.WriteGoAway(0, http2.ErrCodeNo, nil) },
	}
	for name, refuse := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := rawProvider(t, slices.Concat([]script{refuse, answer}, slices.Repeat([]script{refuse}, 2))...)
			if _, got := g.post(t, unaryType, strings.NewReader("x")); string(got) != "answer" {
				t.Errorf("body %q", got)
			}
			g.wantClass(t, proxy.ClassOK)
			g.post(t, unaryType, strings.NewReader("x"))
			if r := g.wantClass(t, proxy.ClassUnavailable); !r.Retryable || r.Written {
				t.Errorf("result %+v", r)
			}
		})
	}
}

func TestBrokenRequestIsNotMadeAgain(t *testing.T) {
	t.Parallel()
	g := rawProvider(t, func(fr *http2.Framer, stream uint32) { _ = fr.WriteRSTStream(stream, http2.ErrCodeInternal) }, answer)
	g.post(t, unaryType, strings.NewReader("x"))
	if r := g.wantClass(t, proxy.ClassReset); r.Retryable {
		t.Errorf("result %+v", r)
	}
}

// TestAudit_H32_ForgedLine has a provider send what no HTTP library would.
func TestAudit_H32_ForgedLine(t *testing.T) {
	t.Parallel()
	var block strings.Builder
	enc := hpack.NewEncoder(&block)
	_ = enc.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	_ = enc.WriteField(hpack.HeaderField{Name: "x-a", Value: "a\r\nx-plugin-caller-id: forged"})
	g := rawProvider(t, func(fr *http2.Framer, stream uint32) {
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte(block.String()), EndHeaders: true, EndStream: true})
	})
	res, _ := g.post(t, unaryType, strings.NewReader("x"))
	if res.Header.Get("X-A") != "" {
		t.Errorf("fields %v", res.Header)
	}
	g.wantClass(t, proxy.ClassResponse)
}

// TestAudit_H14_ABodyThatTheStatusHasNot has a provider break the protocol in that way, for a call whose answer is one
// message and for a stream: it is the provider's doing, and no caller cancelled.
func TestAudit_H14_ABodyThatTheStatusHasNot(t *testing.T) {
	t.Parallel()
	noContent := hpack.HeaderField{Name: ":status", Value: "204"}
	for _, contentType := range []string{unaryType, "application/grpc"} {
		t.Run(contentType, func(t *testing.T) {
			t.Parallel()
			g := rawProvider(t, func(fr *http2.Framer, stream uint32) {
				var block bytes.Buffer
				_ = hpack.NewEncoder(&block).WriteField(noContent)
				_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true})
				_ = fr.WriteData(stream, true, []byte("x"))
			})
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url("Call"), strings.NewReader("x"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", contentType)
			if res, err := g.client.Do(req); err == nil { // what of it reached the caller depends on when it came
				_ = res.Body.Close()
			}
			r := g.wantClass(t, proxy.ClassResponse)
			if code := proxy.CodeOf(r.Err); code != 14 || !strings.Contains(r.Err.Error(), "a body with status 204") {
				t.Errorf("code %d, %v", code, r.Err)
			}
		})
	}
}

// keeping is a writer that keeps the head that it is told, as that of the host's own server.
type keeping struct{ *httptest.ResponseRecorder }

func (keeping) KeepsHead() {}

// flushing says when it was flushed, behind which every writer has its head.
type flushing struct {
	*httptest.ResponseRecorder

	flushed chan struct{}
	once    sync.Once
}

func (w *flushing) Flush() {
	w.ResponseRecorder.Flush()
	w.once.Do(func() { close(w.flushed) })
}

// What of an answer's head was passed on is not kept while its body comes.
func TestAudit_H48_AHeadThatWasPassedOnIsNotKept(t *testing.T) {
	t.Parallel()
	flushed := make(chan struct{})
	for name, c := range map[string]struct {
		writer  func(*httptest.ResponseRecorder) http.ResponseWriter
		between func(http.ResponseWriter)
	}{
		"a writer that keeps it": {func(w *httptest.ResponseRecorder) http.ResponseWriter { return keeping{w} }, func(http.ResponseWriter) {}},
		"one that was flushed": {
			func(w *httptest.ResponseRecorder) http.ResponseWriter {
				return &flushing{ResponseRecorder: w, flushed: flushed}
			},
			func(w http.ResponseWriter) {
				_ = http.NewResponseController(w).Flush()
				<-flushed
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t, rigConfig{handler: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Kept", "y")
				w.Header().Set(http.TrailerPrefix+"X-End", "z")
				_, _ = io.WriteString(w, "bo")
				c.between(w)
				_, _ = io.WriteString(w, "dy")
			}})
			w := httptest.NewRecorder()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, servicePth, http.NoBody)
			if result := g.provider.Forward(c.writer(w), r, proxy.Call{Path: servicePth + "Call"}); result.Class != proxy.ClassOK {
				t.Fatalf("%+v", result)
			}
			if got := w.Result(); got.Header.Get("X-Kept") != "y" || w.Body.String() != "body" {
				t.Errorf("the caller gets %v %q", got.Header, w.Body)
			}
			if len(w.Header()) != 1 || w.Header().Get(http.TrailerPrefix+"X-End") != "z" {
				t.Errorf("kept besides the trailer: %v", w.Header())
			}
		})
	}
}
