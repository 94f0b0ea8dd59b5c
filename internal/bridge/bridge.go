// Package bridge lets a program that speaks HTTP/2 reach plaintext servers that speak
// only HTTP/1.1, as those of the first version do. It is for development: over TLS
// HTTP/2 is the only protocol.
package bridge

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"time"

	"golang.org/x/net/http2"
)

// patience is how long a server may take to show what it speaks. One that says nothing
// is taken to speak HTTP/2, so that whoever speaks to it finds out.
const patience = 2 * time.Second

// idle is how long a connection of HTTP/1.1 is kept.
const idle = 30 * time.Second

// Dial connects to a plaintext server and returns a connection that speaks HTTP/2 with
// prior knowledge (RFC 9113, section 3.3). To a server of HTTP/1.1 it is a connection
// in memory, whose requests are passed on. The server is asked on a connection of its
// own each time: it may have been replaced.
func Dial(ctx context.Context, network, address string) (net.Conn, error) {
	old, err := speaksHTTP1(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if old {
		return newPassage(address), nil
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	return conn, nil
}

// speaksHTTP1 begins HTTP/2 and reports whether the answer is one of HTTP/1. No handler
// sees a request: the preface is made so that servers of HTTP/1.1 refuse it (RFC 9113,
// section 3.4).
func speaksHTTP1(ctx context.Context, network, address string) (bool, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return false, fmt.Errorf("dial: %w", err)
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		return false, nil // whoever speaks to it finds out
	}
	if err := http2.NewFramer(conn, nil).WriteSettings(); err != nil {
		return false, nil
	}
	answer := make([]byte, len(http1Answer))
	for n := 0; n < len(answer); {
		got, err := conn.Read(answer[n:])
		if n += got; err != nil {
			return false, nil
		}
	}
	return bytes.Equal(answer, http1Answer), nil
}

// http1Answer is how an answer of HTTP/1 begins (RFC 9112, section 4).
var http1Answer = []byte("HTTP/1.")

// passage is one end of a connection in memory, whose other end passes requests on.
type passage struct {
	net.Conn

	end context.CancelFunc
}

func newPassage(address string) *passage {
	near, far := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	transport := &http.Transport{IdleConnTimeout: idle, DisableCompression: true}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", address
			r.Out.Host = r.In.Host
		},
		Transport:     transport,
		FlushInterval: -1,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Handler: proxy, Protocols: protocols, ReadHeaderTimeout: idle,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				cancel()
			}
		},
	}
	go func() { // ends with either end of the pipe
		defer transport.CloseIdleConnections()
		_ = server.Serve(&single{ctx: ctx, conn: far})
		_ = server.Close()
	}()
	return &passage{Conn: near, end: cancel}
}

// single is a listener with one connection.
type single struct {
	ctx  context.Context //nolint:containedctx // of the connection
	conn net.Conn        // nil once it was accepted
}

// Accept returns the connection, and then waits for its end.
func (s *single) Accept() (net.Conn, error) {
	if c := s.conn; c != nil {
		s.conn = nil
		return c, nil
	}
	<-s.ctx.Done()
	return nil, net.ErrClosed
}

// Close does nothing: the connection ends by itself.
func (*single) Close() error { return nil }

// Addr returns no address.
func (*single) Addr() net.Addr { return &net.UnixAddr{} }

// Close ends the connection and the requests on it.
func (p *passage) Close() error {
	p.end()
	return p.Conn.Close() //nolint:wrapcheck // stands for what it wraps
}
