package h2serve_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// sent is a request of the table.
type sent struct {
	method, path string
	body         io.Reader
	header       http.Header
	trailer      http.Header
}

// Handlers and requests for which both servers do the same.
var same = map[string]struct {
	handler http.HandlerFunc
	sent    sent
}{
	"nothing":        {func(http.ResponseWriter, *http.Request) {}, sent{}},
	"a short answer": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }, sent{}},
	"an echo": {func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		_, _ = fmt.Fprintln(w, len(b), err, r.ContentLength)
	}, sent{method: "POST", body: strings.NewReader(strings.Repeat("x", 200_000))}},
	"an echo of unknown length": {func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		_, _ = fmt.Fprintln(w, len(b), err, r.ContentLength)
	}, sent{method: "POST", body: io.LimitReader(strings.NewReader(strings.Repeat("x", 300_000)), 250_000)}},
	"a long answer": {func(w http.ResponseWriter, _ *http.Request) {
		for range 50 {
			_, _ = w.Write(make([]byte, 10_000))
		}
	}, sent{}},
	"what the request is": {func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintln(w, r.Method, r.URL.String(), r.RequestURI, r.Proto, r.ProtoMajor, r.ProtoMinor, r.TLS.NegotiatedProtocol,
			r.Header["X-A"], r.Header["Cookie"], r.Header["Te"], r.Trailer, r.Host != "", r.RemoteAddr != "")
	}, sent{method: "PUT", path: "/a%20b?c=d", header: http.Header{"X-A": {"1", "2"}, "Cookie": {"a=b", "c=d"}, "Te": {"trailers"}}}},
	"a trailer that is declared": {func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-End, X-Other")
		_, _ = io.WriteString(w, "hello")
		w.Header().Set("X-End", "1")
	}, sent{}},
	"a trailer that is declared, and flushed before": {func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-End")
		_, _ = io.WriteString(w, "hello")
		_ = http.NewResponseController(w).Flush()
		w.Header().Set("X-End", "1")
	}, sent{}},
	"a trailer that is not": {func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		w.Header().Set(http.TrailerPrefix+"grpc-status", "0")
	}, sent{}},
	"a trailer without body": {func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(http.TrailerPrefix+"grpc-status", "5")
	}, sent{}},
	"a trailer of the request": {func(w http.ResponseWriter, r *http.Request) {
		before := fmt.Sprint(r.Trailer)
		b, err := io.ReadAll(r.Body)
		_, _ = fmt.Fprintln(w, before, len(b), err, r.Trailer)
	}, sent{method: "POST", body: io.MultiReader(strings.NewReader("x")), trailer: http.Header{"X-Sum": {"7"}}}},
	"HEAD": {func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "5")
		_, _ = io.WriteString(w, "hello")
	}, sent{method: "HEAD"}},
	"HEAD without length": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-A", "b") }, sent{method: "HEAD"}},
	"no content": {func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
		_, err := io.WriteString(w, "hello")
		if !errors.Is(err, http.ErrBodyNotAllowed) {
			panic(err)
		}
	}, sent{}},
	"not found":             {http.NotFound, sent{}},
	"a status of one's own": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(799) }, sent{}},
	"hints before": {func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusAccepted)
	}, sent{}},
	"headers after the head": {func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
		w.Header().Set("X-Late", "1")
		w.WriteHeader(http.StatusTeapot)
	}, sent{}},
	"headers of a connection": {func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Transfer-Encoding", "chunked")
		w.Header()["bad name"] = []string{"x"}
		w.Header()["X-Bad-Value"] = []string{"a\nb"}
	}, sent{}},
	"a wrong length": {func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "many")
		_, _ = io.WriteString(w, "hello")
	}, sent{}},
	"headers after a flush": {func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Early", "1")
		_ = http.NewResponseController(w).Flush()
		names := slices.Sorted(maps.Keys(w.Header())) // nothing but the handler's own
		w.Header().Set("X-Early", "2")
		w.Header().Set("X-Late", "1")
		_, _ = fmt.Fprintln(w, names)
	}, sent{}},
	"a wrong length that is flushed": {func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "many")
		_ = http.NewResponseController(w).Flush()
		_, _ = fmt.Fprintln(w, w.Header()["Content-Length"])
	}, sent{}},
	"an abort":         {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, sent{}},
	"an abort halfway": {func(w http.ResponseWriter, _ *http.Request) { _ = http.NewResponseController(w).Flush(); panic("oh") }, sent{}},
	"an answer before the body": {func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "enough")
	}, sent{method: "POST", body: io.LimitReader(endless{}, 1<<20)}},
	"a body that is not read on": {func(w http.ResponseWriter, r *http.Request) {
		_ = r.Body.Close()
		_, err := r.Body.Read(make([]byte, 1))
		_, _ = fmt.Fprintln(w, err != nil)
	}, sent{method: "POST", body: strings.NewReader("hello")}},
	"deadlines": {func(w http.ResponseWriter, r *http.Request) {
		ctrl := http.NewResponseController(w)
		err := errors.Join(ctrl.SetReadDeadline(time.Now().Add(-time.Second)), ctrl.SetWriteDeadline(time.Now().Add(time.Hour)), ctrl.EnableFullDuplex())
		var got error
		for got == nil { // until it is noticed
			_, got = r.Body.Read(make([]byte, 1))
		}
		_, _ = fmt.Fprintln(w, err, errors.Is(got, os.ErrDeadlineExceeded))
	}, sent{method: "POST", body: io.LimitReader(endless{}, 1<<20)}},
	"100-continue": {func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		_, _ = fmt.Fprintln(w, len(b), err, r.Header["Expect"])
	}, sent{method: "POST", body: strings.NewReader("hello"), header: http.Header{"Expect": {"100-continue"}}}},
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// What a handler does and what a client gets are those of net/http.
func TestServesAsNetHTTPDoes(t *testing.T) {
	t.Parallel()
	for name, tt := range same {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reference := httptest.NewUnstartedServer(tt.handler)
			reference.EnableHTTP2 = true
			reference.Config.ErrorLog = new(logged).logger()
			reference.StartTLS()
			defer reference.Close()
			own := start(t, config(tt.handler))
			c := client(t)
			want, got := tt.sent.result(t, c, reference.URL), tt.sent.result(t, c, "https://"+own.addr)
			if want != got {
				t.Errorf("the answer is\n%s\nand of net/http\n%s", got, want)
			}
		})
	}
}

// result is what a request led to.
func (s sent) result(t *testing.T, c *http.Client, url string) string {
	t.Helper()
	body := s.body
	if seeker, ok := body.(io.Seeker); ok {
		_, _ = seeker.Seek(0, io.SeekStart)
	}
	if _, ok := body.(*io.LimitedReader); ok { // anew
		body = &io.LimitedReader{R: endless{}, N: 250_000}
	}
	r, err := http.NewRequestWithContext(t.Context(), s.method, url+s.path, body)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(r.Header, s.header)
	r.Trailer = s.trailer
	if s.trailer != nil {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader("x")), -1
	}
	resp, err := c.Do(r)
	if err != nil {
		return "no answer"
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	var out strings.Builder
	fmt.Fprintln(&out, resp.Status, resp.Proto, resp.ContentLength, len(data), err != nil)
	if len(data) < 1000 {
		fmt.Fprintf(&out, "%q\n", data)
	}
	for _, h := range []http.Header{resp.Header, resp.Trailer} {
		if _, dated := h["Date"]; dated {
			h.Set("Date", "some")
		}
		for _, name := range slices.Sorted(maps.Keys(h)) {
			fmt.Fprintln(&out, name, h[name])
		}
	}
	return out.String()
}
