package h2serve_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/edge"
	"github.com/masegraye/connect-plugin-go/internal/h2serve"
)

type h2serveConfig = h2serve.Config

// wait bounds everything that a test waits for.
const wait = time.Minute

// keys are a certificate, and who trusts it.
var keys = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return s.TLS.Certificates[0], pool
})

// config is that of a server with a handler.
func config(handler http.Handler) h2serve.Config {
	return h2serve.Config{
		Handler: handler, Context: context.Background(),
		HandshakeTimeout: wait, IdleTimeout: wait, PingAfter: wait, PingTimeout: wait, WriteTimeout: wait / 2,
		MaxStreams: 100, MaxHeaderBytes: 64 << 10, StreamWindow: 64 << 10, ConnWindow: 256 << 10,
	}
}

// rig is a server that serves.
type rig struct {
	*h2serve.Server

	addr   string
	served chan error
}

// listen agrees on TLS, as the way into a plugin does.
func listen(t *testing.T) *edge.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := keys()
	door := edge.Listen(l, edge.Config{
		TLS:              &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}},
		HandshakeTimeout: wait, Trusted: true, Silence: wait, MaxConnections: 1000, MaxPerAddress: 1000,
		Key: func(a net.Addr) string { return a.String() },
	})
	t.Cleanup(door.End)
	return door
}

func start(t *testing.T, cfg h2serve.Config) *rig {
	t.Helper()
	l := listen(t)
	r := &rig{Server: h2serve.New(cfg), addr: l.Addr().String(), served: make(chan error, 1)}
	go func() { r.served <- r.Serve(l) }()
	t.Cleanup(func() {
		_ = r.Close()
		if err := <-r.served; err != nil && err != http.ErrServerClosed { //nolint:errorlint // exactly that
			t.Errorf("Serve: %v", err)
		}
	})
	return r
}

// client is one of HTTP/2 as anybody has it.
func client(t *testing.T) *http.Client {
	t.Helper()
	_, pool := keys()
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, DisableCompression: true, ForceAttemptHTTP2: true,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// wire is a connection whose frames a test writes itself.
type wire struct {
	*http2.Framer

	t     *testing.T
	nc    *tls.Conn
	block bytes.Buffer
	enc   *hpack.Encoder
}

func dial(t *testing.T, addr string) *wire {
	t.Helper()
	nc := dialTLS(t, addr)
	w := wireOn(t, nc)
	w.nc = nc
	return w
}

// wireOn begins HTTP/2 on a connection.
func wireOn(t *testing.T, nc net.Conn) *wire {
	t.Helper()
	w := &wire{Framer: http2.NewFramer(nc, nc), t: t}
	w.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	w.enc = hpack.NewEncoder(&w.block)
	w.must(io.WriteString(nc, http2.ClientPreface))
	w.ok(w.WriteSettings())
	return w
}

// dialTLS opens a connection on which nothing was said yet.
func dialTLS(t *testing.T, addr string) *tls.Conn {
	t.Helper()
	_, pool := keys()
	nc, err := (&tls.Dialer{Config: &tls.Config{
		RootCAs: pool, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
	}}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(2 * wait)) // longer than a server waits for its peer
	conn, _ := nc.(*tls.Conn)
	return conn
}

func (w *wire) must(_ int, err error) { w.t.Helper(); w.ok(err) }

func (w *wire) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// request sends the head of a request with fields besides the usual ones.
func (w *wire) request(id uint32, end bool, fields map[string]string) {
	w.t.Helper()
	all := map[string]string{":method": "POST", ":scheme": "https", ":authority": "test", ":path": "/"}
	maps.Copy(all, fields)
	w.block.Reset()
	for _, pseudo := range []bool{true, false} {
		for name, value := range all {
			if (name[0] == ':') == pseudo && value != "" {
				w.ok(w.enc.WriteField(hpack.HeaderField{Name: name, Value: value}))
			}
		}
	}
	w.ok(w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: w.block.Bytes(), EndStream: end, EndHeaders: true}))
}

// until reads frames up to one that is wanted, and returns it; nil says that the connection ended.
func (w *wire) until(wanted func(http2.Frame) bool) http2.Frame {
	w.t.Helper()
	for {
		f, err := w.ReadFrame()
		if err != nil {
			if nerr, ok := err.(net.Error); ok && nerr.Timeout() { //nolint:errorlint // not wrapped
				w.t.Fatal("nothing came")
			}
			return nil
		}
		if wanted(f) {
			return f
		}
	}
}

func isA[F http2.Frame](f http2.Frame) bool { _, ok := f.(F); return ok }

// logged is a log that a test reads.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logged) logger() *log.Logger { return log.New(l, "", 0) } // for the server of net/http
