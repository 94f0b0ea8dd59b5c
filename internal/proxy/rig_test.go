package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime/pprof"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

const (
	patience   = time.Minute
	servicePth = "/echo.v1.Echo/"
)

// checkLeaks fails the test if a goroutine that it started, directly or not,
// outlives it. It has to be called first.
func checkLeaks(t *testing.T) {
	t.Helper()
	pprof.SetGoroutineLabels(pprof.WithLabels(t.Context(), pprof.Labels("leak", t.Name())))
	t.Cleanup(func() {
		deadline := time.Now().Add(patience)
		for {
			left := labelled(t.Name())
			if left == "" {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("goroutines left:\n%s", left)
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
}

// labelled returns the stacks of the goroutines of a test but its own.
func labelled(name string) string {
	var b bytes.Buffer
	_ = pprof.Lookup("goroutine").WriteTo(&b, 1)
	var left []string
	for group := range strings.SplitSeq(b.String(), "\n\n") {
		if strings.Contains(group, fmt.Sprintf("%q:%q", "leak", name)) && !strings.Contains(group, "proxy_test.labelled") {
			left = append(left, group)
		}
	}
	return strings.Join(left, "\n\n")
}

// rig is a caller, a host that forwards, and a provider, over TLS and HTTP/2.
type rig struct {
	provider *proxy.Provider
	target   *httptest.Server
	host     *httptest.Server
	client   *http.Client
	results  chan proxy.Result
	heads    chan uint32  // how long they are; of a provider that is played by hand
	conns    atomic.Int64 // of the host to the provider
}

type rigConfig struct {
	handler http.HandlerFunc
	memory  bool // in the host's process
	config  func(*proxy.Config)
	call    func(*http.Request, *proxy.Call) *http.Request
}

func newRig(t *testing.T, rc rigConfig) *rig {
	t.Helper()
	checkLeaks(t)
	g := &rig{results: make(chan proxy.Result, 1024)}
	cfg := proxy.Config{DialTimeout: patience, RoomTimeout: patience} // the machine may be busy
	if rc.memory {
		cfg.Handler = rc.handler
	} else {
		g.target = newServer(t, rc.handler)
		cfg.Endpoint = endpointOf(t, g.target.URL)
		cfg.TLS = &tls.Config{RootCAs: poolOf(g.target)}
		cfg.Dial = g.dial
	}
	if rc.config != nil {
		rc.config(&cfg)
	}
	g.provider = newProvider(t, cfg)
	g.host = newServer(t, func(w http.ResponseWriter, r *http.Request) {
		call := proxy.Call{Path: r.URL.Path, CallerID: "caller-1"}
		if rc.call != nil {
			r = rc.call(r, &call)
		}
		result := g.provider.Forward(w, r, call)
		if !result.Written {
			w.Header().Set("X-Result", result.Class.String())
			w.WriteHeader(http.StatusBadGateway)
		}
		g.results <- result
	})
	g.client = newClient(t, g.host)
	return g
}

func newServer(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = quiet
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

func newProvider(t *testing.T, cfg proxy.Config) *proxy.Provider {
	t.Helper()
	p, err := proxy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Close()
		if err := p.Drain(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		if n := p.InFlight(); n != 0 {
			t.Errorf("in flight after the end: %d", n)
		}
	})
	return p
}

func newClient(t *testing.T, srv *httptest.Server) *http.Client {
	t.Helper()
	tr := newTransport(&tls.Config{RootCAs: poolOf(srv)})
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// newTransport returns a transport for HTTP/2 only.
func newTransport(cfg *tls.Config) *http.Transport {
	tr := &http.Transport{TLSClientConfig: cfg, DisableCompression: true, Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP2(true)
	return tr
}

func endpointOf(t *testing.T, raw string) proxy.Endpoint {
	t.Helper()
	e, err := proxy.ParseEndpoint(raw, true)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func poolOf(srv *httptest.Server) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	return pool
}

// dial counts connections that are open.
func (g *rig) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	g.conns.Add(1)
	return &countedConn{Conn: conn, open: &g.conns}, nil
}

type countedConn struct {
	net.Conn

	open   *atomic.Int64
	closed atomic.Bool
}

func (c *countedConn) Close() error {
	if !c.closed.Swap(true) {
		c.open.Add(-1)
	}
	return c.Conn.Close()
}

func (g *rig) url(tail string) string { return g.host.URL + servicePth + tail }

// post makes a request with a body and returns the response with its body read.
func (g *rig) post(t *testing.T, contentType string, body io.Reader, header ...string) (*http.Response, []byte) {
	t.Helper()
	return g.postTo(t, g.url("Call"), contentType, body, header...)
}

// postTo is post with another URL.
func (g *rig) postTo(t *testing.T, url, contentType string, body io.Reader, header ...string) (*http.Response, []byte) {
	t.Helper()
	res := g.openAt(t, url, contentType, body, header...)
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("read response: %v", err)
	}
	return res, got
}

// open makes a request and returns the response with its body unread.
func (g *rig) open(t *testing.T, contentType string, body io.Reader, header ...string) *http.Response {
	t.Helper()
	return g.openAt(t, g.url("Call"), contentType, body, header...)
}

func (g *rig) openAt(t *testing.T, url, contentType string, body io.Reader, header ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	res, err := g.client.Do(req)
	if err != nil {
		t.Fatalf("call: %v", err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

// result returns what Forward said about the next call that ended.
func (g *rig) result(t *testing.T) proxy.Result {
	t.Helper()
	return await(t, g.results, "result")
}

func await[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s", what)
		panic("unreachable")
	}
}

func (g *rig) wantClass(t *testing.T, want proxy.Class) proxy.Result {
	t.Helper()
	r := g.result(t)
	if r.Class != want {
		t.Fatalf("class %v (%v), want %v", r.Class, r.Err, want)
	}
	return r
}

// newLimitedServer is newServer with a bound of concurrent streams.
func newLimitedServer(t *testing.T, streams int, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = quiet
	srv.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: streams}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}
