package hosttest

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
)

// Proxy passes connections on to a host and cuts them when it is told to.
type Proxy struct {
	URL      string
	Accepted atomic.Int64 // connections so far

	mu     sync.Mutex
	target string
	conns  map[net.Conn]struct{}
	closed bool
	pipes  sync.WaitGroup
}

// NewProxy starts a proxy to a host; it ends with the test.
func NewProxy(t testing.TB, host *Host) *Proxy {
	t.Helper()
	l := Listen(t)
	p := &Proxy{URL: "https://" + l.Addr().String(), target: host.Addr(), conns: map[net.Conn]struct{}{}}
	p.pipes.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.Accepted.Add(1)
			p.pipes.Go(func() { p.pass(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.Cut()
		p.pipes.Wait()
	})
	return p
}

// Aim sends new connections to another host.
func (p *Proxy) Aim(host *Host) { p.AimAt(host.Addr()) }

// AimAt sends new connections to an address.
func (p *Proxy) AimAt(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = addr
}

// Cut breaks every connection, as a network does.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a reset, not an orderly end
		}
		_ = c.Close()
	}
}

func (p *Proxy) pass(client net.Conn) {
	defer client.Close()
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	if !p.track(client, server) {
		return
	}
	defer p.forget(client, server)
	var ways sync.WaitGroup
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		ways.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			_ = way[0].Close()
			_ = way[1].Close()
		})
	}
	ways.Wait()
}

func (p *Proxy) track(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	for _, c := range conns {
		p.conns[c] = struct{}{}
	}
	return true
}

func (p *Proxy) forget(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.conns, c)
	}
}

// SmallWindow is an HTTP/2 client that takes 64 KiB of a stream ahead of its
// reader, the least that net/http can.
func SmallWindow(t testing.TB, cfg *tls.Config) *http.Client {
	t.Helper()
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	transport := &http.Transport{
		TLSClientConfig: cfg, Protocols: &protocols,
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}
