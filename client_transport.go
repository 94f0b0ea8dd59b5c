package connectplugin

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"connectrpc.com/connect"
)

// Bounds of a client's connections.
const (
	clientDialTimeout = 10 * time.Second
	hostIdleTimeout   = 2 * time.Minute
	clientMaxHeader   = 64 << 10
	// clientMaxConns bounds the connections, each of which carries as many streams
	// as the host allows (256 unless configured), and so the TLS handshakes with
	// which a client that lost its connection comes back.
	clientMaxConns    = 16
	clientPingAfter   = 30 * time.Second
	clientPingTimeout = 15 * time.Second
)

// setTransport makes the client's transport, or takes the configured one so that
// it follows no redirect.
func (c *Client) setTransport() error {
	c.closeIdle = func() {}
	if c.cfg.HTTPClient != nil {
		c.transport = c.cfg.HTTPClient
		if hc, ok := c.cfg.HTTPClient.(*http.Client); ok {
			own := *hc
			own.CheckRedirect = noRedirect
			c.transport = &own
		}
		return nil
	}
	cfg, err := c.cfg.clientTLS()
	if err != nil {
		return err
	}
	t := newHostTransport(cfg, c.cfg.AllowInsecure)
	c.transport = &http.Client{Transport: t, CheckRedirect: noRedirect}
	c.closeIdle = t.CloseIdleConnections
	return nil
}

// noRedirect hands a redirect to the caller as the answer that it is, so that
// credentials go nowhere else.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// newHostTransport makes an HTTP/2 transport. It knows no proxy.
func newHostTransport(cfg *tls.Config, allowInsecure bool) *http.Transport {
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(allowInsecure)
	return &http.Transport{
		TLSClientConfig:        cfg,
		Protocols:              &protocols,
		DialContext:            (&net.Dialer{Timeout: clientDialTimeout}).DialContext,
		TLSHandshakeTimeout:    clientDialTimeout,
		MaxConnsPerHost:        clientMaxConns,
		IdleConnTimeout:        hostIdleTimeout,
		MaxResponseHeaderBytes: clientMaxHeader,
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: clientPingAfter,
			PingTimeout:     clientPingTimeout,
		},
	}
}

// errOneConnection says that a handshake's connection broke.
var errOneConnection = errors.New("the connection of the handshake was lost")

// pinnedConnection is one connection to the host, dialled before the request
// that goes over it, so that the request can be bound to it.
type pinnedConnection struct {
	client connect.HTTPClient
	state  *tls.ConnectionState // nil in plaintext and with a foreign HTTP client
	close  func()
}

// dialHost opens a connection for one handshake.
func (c *Client) dialHost(ctx context.Context, host *url.URL) (*pinnedConnection, error) {
	if c.cfg.HTTPClient != nil || host.Scheme != "https" {
		return &pinnedConnection{client: c.transport, close: func() {}}, nil
	}
	conn, err := c.dialTLS(ctx, host)
	if err != nil {
		return nil, err
	}
	state := conn.ConnectionState()
	t := newHostTransport(nil, false)
	ready := make(chan net.Conn, 1)
	ready <- conn
	t.DialTLSContext = func(context.Context, string, string) (net.Conn, error) {
		select {
		case conn := <-ready:
			return conn, nil
		default:
			return nil, errOneConnection
		}
	}
	return &pinnedConnection{
		client: &http.Client{Transport: t, CheckRedirect: noRedirect},
		state:  &state,
		close: func() {
			t.CloseIdleConnections()
			_ = conn.Close()
		},
	}, nil
}

func (c *Client) dialTLS(ctx context.Context, host *url.URL) (*tls.Conn, error) {
	cfg, err := c.cfg.clientTLS()
	if err != nil {
		return nil, err
	}
	addr := host.Host
	if host.Port() == "" {
		addr = net.JoinHostPort(host.Hostname(), defaultPorts[host.Scheme])
	}
	cfg.ServerName = cmp.Or(cfg.ServerName, host.Hostname())
	raw, err := (&net.Dialer{Timeout: clientDialTimeout}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("TLS: %w", err), raw.Close())
	}
	return conn, nil
}

// hostTransport sends requests to the host with the client's identity.
type hostTransport Client

var errForeignURL = errors.New("request is not for the host; credentials stay here")

// Do sends a request to the host.
func (t *hostTransport) Do(r *http.Request) (*http.Response, error) {
	c := (*Client)(t)
	c.mu.Lock()
	closed, ready, host, id := c.closed, c.ready, c.host, c.identity
	c.mu.Unlock()
	switch {
	case closed:
		return nil, ErrClientClosed
	case !ready || host == nil:
		return nil, ErrClientNotConnected
	case r.URL.Scheme != host.Scheme || r.URL.Host != host.Host:
		return nil, errForeignURL
	}
	out := *r // the caller's request stays as it is
	r = &out
	if r.Header = r.Header.Clone(); r.Header == nil {
		r.Header = http.Header{}
	}
	if id.token != "" {
		r.Header[headerRuntimeID] = []string{id.runtimeID}
		if len(r.Header[headerAuthorization]) == 0 || !strings.HasPrefix(r.URL.Path, pathCapabilities) {
			r.Header[headerAuthorization] = []string{bearerPrefix + id.token}
		}
	}
	return c.transport.Do(r)
}

// options are those of every client of the host's services.
func (c *Client) options() []connect.ClientOption {
	interceptors := append([]connect.Interceptor{deadlineInterceptor(c.cfg.Timeout)}, c.cfg.Interceptors...)
	return []connect.ClientOption{
		connect.WithInterceptors(interceptors...),
		connect.WithReadMaxBytes(maxHostMessage),
	}
}

// maxHostMessage bounds one message of the host's services to the client.
const maxHostMessage = 4 << 20

// deadlineInterceptor gives unary calls without a deadline one.
func deadlineInterceptor(timeout time.Duration) connect.UnaryInterceptorFunc {
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			return next(ctx, req)
		}
	}
}
