package proxy_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

// BenchmarkUnary compares a call without a host, one through a bare
// httputil.ReverseProxy and one through Forward, over TLS and HTTP/2 on both hops,
// everything in one process.
func BenchmarkUnary(b *testing.B) {
	for _, size := range []int{256, 64 << 10} {
		for _, callers := range []int{1, 32} {
			for _, way := range []string{"direct", "reverseproxy", "forward"} {
				b.Run(fmt.Sprintf("%dB/%d/%s", size, callers, way), func(b *testing.B) { benchmarkUnary(b, way, size, callers) })
			}
		}
	}
}

func benchServer(b *testing.B, h http.HandlerFunc) *httptest.Server {
	b.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	b.Cleanup(srv.Close)
	return srv
}

func benchmarkUnary(b *testing.B, way string, size, callers int) {
	b.Helper()
	target := benchServer(b, readAllEcho)
	entry := target
	clientTLS := &tls.Config{RootCAs: poolOf(target)}
	switch way {
	case "reverseproxy":
		u, _ := url.Parse(target.URL)
		transport := newTransport(clientTLS.Clone())
		rp := &httputil.ReverseProxy{Transport: transport, Rewrite: func(pr *httputil.ProxyRequest) { pr.SetURL(u) }, FlushInterval: -1}
		entry = benchServer(b, rp.ServeHTTP)
	case "forward":
		endpoint, _ := proxy.ParseEndpoint(target.URL, false)
		p, err := proxy.New(proxy.Config{Endpoint: endpoint, TLS: clientTLS})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(p.Close)
		entry = benchServer(b, func(w http.ResponseWriter, r *http.Request) {
			route, err := proxy.ParseRoute(r.URL)
			if err != nil {
				b.Error(err)
			}
			path, _ := proxy.JoinPath("/echo.v1.Echo/", route.Rest)
			if result := p.Forward(w, r, proxy.Call{Path: path, CallerID: "caller-1"}); result.Class != proxy.ClassOK {
				b.Error(result.Err)
			}
		})
	}
	transport := newTransport(clientTLS.Clone())
	b.Cleanup(transport.CloseIdleConnections)
	callMany(b, transport, entry.URL+"/services/echo/p-1/echo.v1.Echo/Call", bytes.Repeat([]byte("x"), size), callers)
}

// callMany makes b.N calls, so many at a time.
func callMany(b *testing.B, transport http.RoundTripper, target string, body []byte, callers int) {
	b.Helper()
	b.ReportAllocs()
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range callers {
		wg.Go(func() {
			for next.Add(1) <= int64(b.N) {
				if err := callOnce(transport, target, body); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func callOnce(transport http.RoundTripper, target string, body []byte) error {
	req, err := http.NewRequest(http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", unaryType)
	req.Header.Set("Connect-Protocol-Version", "1")
	res, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	if err == nil && n != int64(len(body)) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// BenchmarkMemory is a unary call to a provider in this process, from a caller
// that is there too.
func BenchmarkMemory(b *testing.B) {
	p, err := proxy.New(proxy.Config{Handler: http.HandlerFunc(readAllEcho)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.Close)
	body := bytes.Repeat([]byte("x"), 256)
	b.ReportAllocs()
	for b.Loop() {
		req, _ := http.NewRequest(http.MethodPost, "https://host/services/echo/p-1/echo.v1.Echo/Call", bytes.NewReader(body))
		req.Header.Set("Content-Type", unaryType)
		req.Header.Set("Connect-Protocol-Version", "1")
		if result := p.Forward(&memoryResponse{header: http.Header{}}, req, proxy.Call{Path: "/echo.v1.Echo/Call"}); result.Class != proxy.ClassOK {
			b.Fatal(result.Err)
		}
	}
}

// memoryResponse is the least that a response writer can be.
type memoryResponse struct {
	header http.Header
	bytes.Buffer
}

func (r *memoryResponse) Header() http.Header { return r.header }
func (r *memoryResponse) WriteHeader(int)     {}
