package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// attemptDelay is how long an address may take before the next one is tried
// beside it (RFC 8305, section 5).
const attemptDelay = 250 * time.Millisecond

// Errors of connecting.
var (
	errProtocol    = errors.New("provider does not speak HTTP/2")
	errUnavailable = errors.New("provider is not reachable")
	errUseless     = errors.New("connection could not be used")
)

// lateness is how many times the timeout of a dial the handshakes may take with a peer that is
// there. Where a thousand plugins come back both sides are slow, and what is given up has cost
// both what it cost: it goes on for later calls.
const lateness = 3

// connect looks the endpoint up, once, and connects to the first of its addresses
// that answers.
func (p *Provider) connect() (*h2.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(p.ctx, lateness*p.cfg.DialTimeout, context.DeadlineExceeded)
	defer cancel()
	addrs, err := p.addresses(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnavailable, err)
	}
	conn, err := race(ctx, alternate(addrs), p.connectTo)
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

// alternate orders addresses so that the families take turns, in their order
// otherwise, the family of the first one first (RFC 8305, section 4).
func alternate(addrs []netip.AddrPort) []netip.AddrPort {
	var first, second []netip.AddrPort
	for _, addr := range addrs {
		if addr.Addr().Is4() == addrs[0].Addr().Is4() {
			first = append(first, addr)
		} else {
			second = append(second, addr)
		}
	}
	out := make([]netip.AddrPort, 0, len(addrs))
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			out = append(out, first[i])
		}
		if i < len(second) {
			out = append(out, second[i])
		}
	}
	return out
}

// arrival is what came of one address.
type arrival struct {
	conn *h2.Conn
	err  error
}

// race tries the addresses one after the other, without waiting for one that takes
// its time, and returns the first connection. The others are closed, and nothing of
// them is left when it returns.
func race(ctx context.Context, addrs []netip.AddrPort, try func(context.Context, netip.AddrPort) (*h2.Conn, error)) (*h2.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	arrivals := make(chan arrival)
	next := time.NewTimer(0)
	defer next.Stop()
	var won *h2.Conn
	var errs []error
	begun, running := 0, 0
	for won == nil && (begun < len(addrs) || running > 0) {
		select {
		case <-next.C:
			if begun < len(addrs) {
				addr := addrs[begun]
				begun++
				running++
				go func() {
					conn, err := try(ctx, addr)
					arrivals <- arrival{conn, err}
				}()
				next.Reset(attemptDelay)
			}
		case a := <-arrivals:
			running--
			if won = a.conn; a.err != nil {
				errs = append(errs, a.err)
				next.Reset(0)
			}
		}
	}
	cancel()
	for range running {
		if a := <-arrivals; a.conn != nil {
			a.conn.Close()
		}
	}
	if won == nil {
		return nil, errors.Join(errs...)
	}
	return won, nil
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
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w: %w", errUseless, errProtocol, err)
	}
	if err := p.challenge(ctx, conn); err != nil {
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
	conn := tls.Client(raw, p.noting(p.cfg.TLS))
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	if conn.ConnectionState().NegotiatedProtocol != protoHTTP2 {
		return nil, errProtocol
	}
	return conn, nil
}
