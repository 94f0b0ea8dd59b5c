package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/headers"
)

// Defaults of a [Config].
const (
	DefaultDialTimeout    = 5 * time.Second
	DefaultIdleTimeout    = 5 * time.Minute
	DefaultCallIdle       = 30 * time.Minute
	DefaultPingInterval   = 30 * time.Second
	DefaultPingTimeout    = 10 * time.Second
	DefaultMaxHeaderBytes = 64 << 10
	DefaultMaxConns       = 4
	DefaultCallsPerConn   = 128
)

// Config describes one provider. It is copied; nothing in it is changed.
type Config struct {
	// Endpoint is where the provider answers. It is required unless Handler is set.
	Endpoint Endpoint
	// Handler makes the provider one in the host's own process, which is called
	// without any socket; everything else but Headers is ignored then.
	Handler http.Handler
	// TLS is how the host presents itself and verifies the provider. It is
	// required unless the endpoint is plaintext. The protocol (h2) is set, and
	// the server name where it is empty.
	TLS *tls.Config
	// Headers are the rules for header fields. Nil means the built-in ones.
	Headers *headers.Rules

	// Resolver looks up the endpoint's host, once for each dial; nil means
	// [net.DefaultResolver].
	Resolver Resolver
	// Permit is asked about each address before it is dialled, after the
	// built-in check; nil permits every one.
	Permit func(netip.AddrPort) error
	// Dial connects to an address, never to a name; nil means a [net.Dialer].
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// DialTimeout bounds a dial with its look-up and handshakes. Zero means
	// DefaultDialTimeout.
	DialTimeout time.Duration
	// IdleTimeout closes a connection without calls. Zero means
	// DefaultIdleTimeout.
	IdleTimeout time.Duration
	// CallIdle ends a call on which nothing moves in either direction. Zero
	// means DefaultCallIdle; negative means never.
	CallIdle time.Duration
	// PingInterval is how long a connection may be silent before it is probed.
	// Zero means DefaultPingInterval.
	PingInterval time.Duration
	// PingTimeout is how long the answer to a probe may take. Zero means
	// DefaultPingTimeout.
	PingTimeout time.Duration
	// MaxHeaderBytes bounds the header list of a response, as HTTP/2 counts it.
	// Zero means DefaultMaxHeaderBytes.
	MaxHeaderBytes int
	// MaxConns bounds the connections to the provider. Zero means
	// DefaultMaxConns.
	MaxConns int
	// CallsPerConn is the number of calls in flight beyond which another
	// connection is opened. Zero means DefaultCallsPerConn.
	CallsPerConn int
}

// Call says how to forward one request.
type Call struct {
	// Path is the path on the provider, as [JoinPath] returns it.
	Path string
	// CallerID is the runtime id of the authenticated caller, which the
	// provider gets as X-Plugin-Caller-Id; empty leaves the field out.
	CallerID string
	// Ending states the outcome with which a stream ends for the caller that
	// broke after a part of it was written. It is asked only where the
	// protocol can say so at that point. If it is nil or reports false, the
	// stream is aborted: the caller sees a reset.
	Ending func(Class, error) (Status, bool)
}

var errNoTLS = errors.New("a provider without TLS configuration")

// Provider forwards calls to one provider over its pooled connections. Its
// methods are safe for concurrent use.
type Provider struct {
	cfg Config
}

// New returns a provider. It dials when the first call needs a connection.
func New(cfg Config) (*Provider, error) {
	if cfg.Handler == nil && cfg.TLS == nil && !cfg.Endpoint.Plaintext() {
		return nil, errNoTLS
	}
	return &Provider{cfg: cfg}, nil
}

// InFlight returns the number of calls that are being forwarded.
func (p *Provider) InFlight() int { return 0 }

// Drain refuses further calls and waits until those in flight have ended, or
// until ctx ends, whose error it returns then.
func (p *Provider) Drain(ctx context.Context) error { return ctx.Err() }

// Close refuses further calls, breaks off those in flight, closes the
// connections and waits until nothing of the provider is left running.
func (p *Provider) Close() error { return nil }

// Forward sends the request to the provider and writes its response to w. It
// returns when nothing of the call is left running.
func (p *Provider) Forward(w http.ResponseWriter, r *http.Request, c Call) Result {
	return Result{Class: ClassUnavailable, Err: ErrClosed, Retryable: true}
}
