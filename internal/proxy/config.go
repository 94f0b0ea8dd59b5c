package proxy

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/coarse"
	"github.com/masegraye/connect-plugin-go/internal/headers"
	"github.com/masegraye/connect-plugin-go/internal/turns"
)

// Defaults of a [Config].
const (
	DefaultDialTimeout    = 5 * time.Second
	DefaultIdleTimeout    = 5 * time.Minute
	DefaultCallIdle       = 30 * time.Minute
	DefaultPingInterval   = 30 * time.Second
	DefaultPingTimeout    = 10 * time.Second
	DefaultMaxHeaderBytes = 256 << 10
	DefaultRoomTimeout    = 5 * time.Second
	DefaultMaxConns       = 6
	DefaultCallsPerConn   = 512
	DefaultMaxWaiting     = 1024
)

// Config describes one provider. It is copied; nothing in it is changed.
type Config struct {
	// Endpoint is where the provider answers. It is required unless Handler is set.
	Endpoint Endpoint
	// Handler makes the provider one in the host's own process, which is called
	// without any socket; everything else but MaxBody, Headers and CallIdle is ignored
	// then. Nobody else has the request that it gets.
	Handler http.Handler
	// MaxBody bounds the body of a request to Handler, in bytes; reading beyond it gives
	// [*http.MaxBytesError]. Zero is no bound.
	MaxBody int64
	// TLS is how the host presents itself and verifies the provider. It is
	// required unless the endpoint is plaintext. The protocol (h2) is set, and
	// the server name where it is empty.
	TLS *tls.Config
	// Headers are the rules for header fields. Nil means the built-in ones.
	Headers *headers.Rules

	// GRPC says that the provider is likely to understand gRPC: the host's own questions
	// begin in that, and not in Connect. Which it understands, the first of them finds out.
	GRPC bool

	// Challenge makes what the provider has to answer on each new connection, before
	// any call goes over it. It gets what TLS says of the connection, nil in plaintext. Nil
	// asks nothing.
	Challenge func(shown *tls.ConnectionState) (Challenge, error)

	// Resolver looks up the endpoint's host, once for each dial; nil means
	// [net.DefaultResolver].
	Resolver Resolver
	// Permit is asked about each address before it is dialled, after the
	// built-in check; nil permits every one.
	Permit func(netip.AddrPort) error
	// Dial connects to an address, never to a name; nil means a [net.Dialer].
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Turns are those of the process, for which TLS handshakes wait; nil has none wait.
	Turns *turns.Process

	// DialTimeout bounds how long calls wait for a dial with its look-up and handshakes;
	// handshakes that have begun may take three times as long. Zero means DefaultDialTimeout.
	DialTimeout time.Duration
	// IdleTimeout closes a connection without calls. Zero means
	// DefaultIdleTimeout.
	IdleTimeout time.Duration
	// CallIdle ends a call on which nothing moves in either direction. Zero
	// means DefaultCallIdle; negative means never.
	CallIdle time.Duration
	// Overtime is how long the calls on a connection may go on after the end of the
	// certificate that the provider showed on it, and showed no later one. It is looked at
	// every 10 s at most, where CallIdle is positive.
	Overtime time.Duration
	// RoomTimeout is how long a call may wait until the provider takes another
	// one, beside the time for a dial. Zero means DefaultRoomTimeout.
	RoomTimeout time.Duration
	// PingInterval is how long a connection with calls may be silent before it is
	// probed. Zero means DefaultPingInterval. Probes keep to the five minutes that
	// gRPC servers demand between them; TCP's own, where the connection has them,
	// keep to PingInterval.
	PingInterval time.Duration
	// PingTimeout is how long the answer to a probe may take. Zero means
	// DefaultPingTimeout.
	PingTimeout time.Duration
	// MaxHeaderBytes bounds the header list of a response, as HTTP/2 counts it.
	// Zero means DefaultMaxHeaderBytes.
	MaxHeaderBytes int
	// Pace is how fast the provider may send more header fields than answers usually have, which all its connections
	// share, and those of others that have the same. Nil has it wait for nothing.
	Pace *Pace
	// MaxConns bounds the connections to the provider that take calls. One more
	// is kept for urgent calls where it is needed, and as many may still end with
	// the calls that they have. Zero means DefaultMaxConns.
	MaxConns int
	// CallsPerConn is the number of calls in flight beyond which another
	// connection is opened. Zero means DefaultCallsPerConn.
	CallsPerConn int
	// MaxWaiting bounds the calls of one caller that wait for room at once; of all callers
	// together four times as many may. Zero means DefaultMaxWaiting.
	MaxWaiting int
	// Logger gets what the provider says when it ends a connection. Nil means
	// [slog.DiscardHandler].
	Logger *slog.Logger
	// Clock is what many providers look after silence by; nil is for one alone.
	Clock *coarse.Clock
	// Name is what the log calls the endpoint. Empty means its host and port.
	Name string
}

// ErrConfig says that a configuration is incomplete.
var ErrConfig = errors.New("configuration is incomplete")

func (cfg *Config) validate() error {
	switch {
	case cfg.Handler != nil:
		return nil
	case cfg.Endpoint.IsZero():
		return fmt.Errorf("%w: Endpoint", ErrConfig)
	case cfg.TLS == nil && !cfg.Endpoint.Plaintext():
		return fmt.Errorf("%w: TLS", ErrConfig)
	default:
		return nil
	}
}

// withDefaults returns a copy in which every field is set that has a default.
func (cfg *Config) withDefaults() Config {
	out := *cfg
	if out.Headers == nil {
		out.Headers = headers.NewRules()
	}
	if out.Permit == nil {
		out.Permit = func(netip.AddrPort) error { return nil }
	}
	if out.Dial == nil {
		out.Dial = new(net.Dialer).DialContext
	}
	if out.Clock == nil {
		out.Clock = new(coarse.Clock)
	}
	if out.Logger == nil {
		out.Logger = slog.New(slog.DiscardHandler)
	}
	out.RoomTimeout = cmp.Or(max(out.RoomTimeout, 0), DefaultRoomTimeout)
	out.DialTimeout = cmp.Or(max(out.DialTimeout, 0), DefaultDialTimeout)
	out.IdleTimeout = cmp.Or(max(out.IdleTimeout, 0), DefaultIdleTimeout)
	out.CallIdle = cmp.Or(out.CallIdle, DefaultCallIdle)
	out.PingInterval = cmp.Or(max(out.PingInterval, 0), DefaultPingInterval)
	out.PingTimeout = cmp.Or(max(out.PingTimeout, 0), DefaultPingTimeout)
	out.MaxHeaderBytes = cmp.Or(max(out.MaxHeaderBytes, 0), DefaultMaxHeaderBytes)
	out.MaxConns = cmp.Or(max(out.MaxConns, 0), DefaultMaxConns)
	out.CallsPerConn = cmp.Or(max(out.CallsPerConn, 0), DefaultCallsPerConn)
	out.MaxWaiting = cmp.Or(max(out.MaxWaiting, 0), DefaultMaxWaiting)
	if out.TLS != nil {
		out.TLS = clientTLS(out.TLS, out.Endpoint.Host())
	}
	return out
}

// clientTLS returns the configuration for a connection to host. Records are
// full-sized from the start: the router forwards what it has at once.
func clientTLS(cfg *tls.Config, host string) *tls.Config {
	out := cfg.Clone()
	out.NextProtos = []string{protoHTTP2}
	out.DynamicRecordSizingDisabled = true
	out.ServerName = cmp.Or(out.ServerName, host)
	out.MinVersion = cmp.Or(out.MinVersion, tls.VersionTLS13)
	return out
}

const protoHTTP2 = "h2"
