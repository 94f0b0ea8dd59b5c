package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// Errors of connecting.
var (
	errProtocol    = errors.New("provider does not speak HTTP/2")
	errUnavailable = errors.New("provider is not reachable")
)

// dial is an attempt to connect that any number of calls wait for.
type dial struct {
	done chan struct{}
	err  error // set before done is closed
}

// open opens a stream on a connection with room for one, and returns what it did
// not send of the request's body yet. An error means that nothing was sent.
func (p *Provider) open(c *call, request h2.Request) (*h2.Stream, []byte, error) {
	for {
		conn, err := p.conn(c)
		if err != nil {
			return nil, nil, err
		}
		stream, rest, err := conn.Open(request)
		if err == nil {
			return stream, rest, nil
		}
	}
}

// conn returns a connection that takes a stream, and waits for one where
// necessary.
func (p *Provider) conn(c *call) (*h2.Conn, error) {
	for {
		p.mu.Lock()
		if p.ctx.Err() != nil {
			p.mu.Unlock()
			return nil, ErrClosed
		}
		best := p.bestLocked()
		if best != nil && best.Load() < p.cfg.CallsPerConn {
			p.mu.Unlock()
			return best, nil
		}
		if len(p.conns) < p.cfg.MaxConns {
			d := p.dialLocked()
			p.mu.Unlock()
			if best != nil {
				return best, nil // the next call finds the new one
			}
			if err := d.wait(c); err != nil {
				return nil, err
			}
			continue
		}
		if best != nil {
			p.mu.Unlock()
			return best, nil
		}
		freed := p.freed
		p.waiting++
		p.mu.Unlock()
		if err := p.awaitFreed(c, freed); err != nil {
			return nil, err
		}
	}
}

// bestLocked returns the least loaded connection with room for a stream, nil if
// there is none. It forgets the connections that ended.
func (p *Provider) bestLocked() *h2.Conn {
	var best *h2.Conn
	kept := p.conns[:0]
	for _, conn := range p.conns {
		if !conn.Usable() {
			p.retireLocked(conn)
			continue
		}
		kept = append(kept, conn)
		if !conn.Full() && (best == nil || conn.Load() < best.Load()) {
			best = conn
		}
	}
	clear(p.conns[len(kept):])
	p.conns = kept
	return best
}

// retireLocked waits elsewhere until a connection that takes no streams any more
// has ended.
func (p *Provider) retireLocked(conn *h2.Conn) {
	p.background.Go(func() {
		select {
		case <-conn.Done():
		case <-p.ctx.Done():
		}
		conn.Close()
	})
}

// awaitFreed waits until a call ends.
func (p *Provider) awaitFreed(c *call, freed <-chan struct{}) error {
	defer func() {
		p.mu.Lock()
		p.waiting--
		p.mu.Unlock()
	}()
	select {
	case <-freed:
		return nil
	case <-c.interrupted():
		return c.why()
	}
}

// dialLocked starts to connect unless that is under way.
func (p *Provider) dialLocked() *dial {
	if p.dialing != nil {
		return p.dialing
	}
	d := &dial{done: make(chan struct{})}
	p.dialing = d
	p.background.Go(func() {
		conn, err := p.connect()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.dialing = nil
		d.err = err
		switch {
		case err != nil:
		case p.ctx.Err() != nil:
			p.retireLocked(conn)
			d.err = ErrClosed
		default:
			p.conns = append(p.conns, conn)
		}
		close(d.done)
	})
	return d
}

func (d *dial) wait(c *call) error {
	select {
	case <-d.done:
		return d.err
	case <-c.interrupted():
		return c.why()
	}
}

// connect looks the endpoint up, once, and connects to the first of its addresses
// that answers.
func (p *Provider) connect() (*h2.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(p.ctx, p.cfg.DialTimeout, context.DeadlineExceeded)
	defer cancel()
	addrs, err := p.cfg.Endpoint.Addresses(ctx, p.cfg.Resolver)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnavailable, err)
	}
	var errs []error
	for _, addr := range addrs {
		conn, err := p.connectTo(ctx, addr)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("%w: %w", errUnavailable, errors.Join(errs...))
}

func (p *Provider) connectTo(ctx context.Context, addr netip.AddrPort) (*h2.Conn, error) {
	if err := p.cfg.Permit(addr); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAddress, err)
	}
	raw, err := p.cfg.Dial(ctx, "tcp", addr.String())
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	batch := h2.NewBatch(raw)
	nc, err := p.secure(ctx, batch)
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	conn, err := h2.Client(ctx, nc, batch, h2.Config{
		MaxHeaderBytes: p.cfg.MaxHeaderBytes,
		IdleTimeout:    p.cfg.IdleTimeout,
		PingInterval:   p.cfg.PingInterval,
		PingTimeout:    p.cfg.PingTimeout,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errProtocol, err)
	}
	return conn, nil
}

// secure makes the TLS handshake, unless the endpoint is plaintext.
func (p *Provider) secure(ctx context.Context, raw net.Conn) (net.Conn, error) {
	if p.cfg.Endpoint.Plaintext() {
		return raw, nil
	}
	conn := tls.Client(raw, p.cfg.TLS)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	if conn.ConnectionState().NegotiatedProtocol != protoHTTP2 {
		return nil, errProtocol
	}
	return conn, nil
}
