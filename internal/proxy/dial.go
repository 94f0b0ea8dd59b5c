package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/eyeballs"
	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// Errors of connecting.
var (
	errProtocol    = errors.New("provider does not speak HTTP/2")
	errUnavailable = errors.New("provider is not reachable")
	errFloods      = errors.New("provider sends what nothing explains, and is cut off")
	errUseless     = errors.New("connection could not be used")
)

// lateness is how many times the timeout of a dial the handshakes may take with a peer that is
// there. Where a thousand plugins come back both sides are slow, and what is given up has cost
// both what it cost: it goes on for later calls.
const lateness = 3

// How many connections are made to a provider: a provider that ends each after a few calls, though it answers these, has
// its calls wait for the next one.
const (
	dialsPerSecond = 20
	dialsBurst     = 64
)

// connect looks the endpoint up, once, and connects to the first of its addresses
// that answers.
func (p *Provider) connect() (*h2.Conn, error) {
	if err := p.dials.Wait(p.ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnavailable, err)
	}
	ctx, cancel := context.WithTimeoutCause(p.ctx, lateness*p.cfg.DialTimeout, context.DeadlineExceeded)
	defer cancel()
	addrs, err := p.addresses(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnavailable, err)
	}
	conn, err := eyeballs.Race(ctx, eyeballs.Alternate(addrs), p.connectTo, (*h2.Conn).Close)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnavailable, err)
	}
	return conn, nil
}

func (p *Provider) addresses(ctx context.Context) ([]netip.AddrPort, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.cfg.DialTimeout, context.DeadlineExceeded)
	defer cancel()
	return p.cfg.Endpoint.Addresses(ctx, p.cfg.Resolver)
}

// reach connects to an address: what is above TCP has more time.
func (p *Provider) reach(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.cfg.DialTimeout, context.DeadlineExceeded)
	defer cancel()
	return p.cfg.Dial(ctx, "tcp", addr.String())
}

// connectTo connects to one address. An error of a connection that was accepted
// wraps errUseless.
func (p *Provider) connectTo(ctx context.Context, addr netip.AddrPort) (*h2.Conn, error) {
	if err := p.cfg.Permit(addr); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAddress, err)
	}
	raw, err := p.reach(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	h2.WatchPeer(raw, p.cfg.PingInterval, p.cfg.PingTimeout)
	batch := h2.NewBatch(raw)
	nc, err := p.secure(ctx, batch)
	if err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("%w: %w", errUseless, err)
	}
	conn, err := h2.Client(ctx, nc, batch, h2.Config{
		MaxHeaderBytes: p.cfg.MaxHeaderBytes,
		IdleTimeout:    p.cfg.IdleTimeout,
		PingInterval:   p.cfg.PingInterval,
		PingTimeout:    p.cfg.PingTimeout,
		Away:           p.logAway,
		Room:           p.roomChanged,
		Freed:          p.roomFreed,
		Clock:          p.cfg.Clock,
		Pace:           p.cfg.Pace,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w: %w", errUseless, errProtocol, err)
	}
	if err := p.challenge(ctx, conn, nc); err != nil {
		conn.Close()
		return nil, fmt.Errorf("%w: %w", errUseless, err)
	}
	p.noteTenure(conn, nc)
	return conn, nil
}

// secure makes the TLS handshake, unless the endpoint is plaintext.
func (p *Provider) secure(ctx context.Context, raw net.Conn) (net.Conn, error) {
	if p.cfg.Endpoint.Plaintext() {
		return raw, nil
	}
	turn := p.cfg.Turns.Begin(ctx, raw)
	defer turn.Over()
	conn := tls.Client(turn, certs.ScreenServer(p.noting(p.cfg.TLS)))
	if err := certs.Agree(ctx, conn); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	if conn.ConnectionState().NegotiatedProtocol != protoHTTP2 {
		return nil, errProtocol
	}
	return conn, nil
}
