package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
)

const loopback = "127.0.0.1:0"

// forwarder stands between the subject and the host, so that connections can be cut. Its
// close ends it.
type forwarder struct {
	// Fixed at creation.
	listener net.Listener
	target   string
	done     sync.WaitGroup

	mu     sync.Mutex
	closed bool // to new connections
	conns  map[net.Conn]struct{}
}

func newForwarder(ctx context.Context, target string) (*forwarder, error) {
	l, err := listen(ctx, loopback)
	if err != nil {
		return nil, err
	}
	f := &forwarder{listener: l, target: target, conns: map[net.Conn]struct{}{}}
	f.done.Go(f.accept)
	return f, nil
}

func listen(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}

func (f *forwarder) url() string { return "https://" + f.listener.Addr().String() }

func (f *forwarder) accept() {
	for {
		in, err := f.listener.Accept()
		if err != nil {
			return
		}
		var d net.Dialer
		out, err := d.DialContext(context.Background(), "tcp", f.target)
		if err != nil {
			_ = in.Close()
			continue
		}
		if f.keep(in, out) {
			f.done.Go(func() { pass(in, out) })
			f.done.Go(func() { pass(out, in) })
		}
	}
}

// keep notes the two halves of a connection, or closes them where none may pass.
func (f *forwarder) keep(halves ...net.Conn) bool {
	f.mu.Lock()
	closed := f.closed
	if !closed {
		for _, c := range halves {
			f.conns[c] = struct{}{}
		}
	}
	f.mu.Unlock()
	if closed {
		for _, c := range halves {
			_ = c.Close()
		}
	}
	return !closed
}

func pass(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	_, _ = to.Close(), from.Close()
}

// cut ends all connections and lets no new ones pass until mend.
func (f *forwarder) cut() {
	f.mu.Lock()
	conns := f.conns
	f.closed, f.conns = true, map[net.Conn]struct{}{}
	f.mu.Unlock()
	for c := range conns {
		_ = c.Close()
	}
}

func (f *forwarder) mend() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = false
}

func (f *forwarder) close() {
	_ = f.listener.Close()
	f.cut()
	f.done.Wait()
}
