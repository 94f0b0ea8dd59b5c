package connectplugin

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/link"
)

// Bounds of a client's connections.
const (
	// clientDialTimeout is long: a host to which a thousand plugins come back is slow,
	// and a connection that is given up has cost it what it cost.
	clientDialTimeout = 30 * time.Second
	clientMaxHeader   = 64 << 10
	// clientMaxConns bounds the connections, each of which carries as many streams
	// as the host allows (256 unless configured), and so the TLS handshakes with
	// which a client that lost its connection comes back.
	clientMaxConns    = 16
	clientPingAfter   = 30 * time.Second
	clientPingTimeout = 15 * time.Second
)

// setTransport makes the client's connections, or takes the configured HTTP client so
// that it follows no redirect.
func (c *Client) setTransport() error {
	if c.cfg.HTTPClient != nil {
		c.transport = c.cfg.HTTPClient
		if hc, ok := c.cfg.HTTPClient.(*http.Client); ok {
			own := *hc
			own.CheckRedirect = noRedirect
			c.transport = &own
		}
		return nil
	}
	if _, err := c.cfg.clientTLS(); err != nil {
		return err
	}
	c.link = link.New(link.Config{
		Dial: c.dial, DialTimeout: clientDialTimeout, MaxConns: clientMaxConns, MaxHeaderBytes: clientMaxHeader,
		PingAfter: clientPingAfter, PingTimeout: clientPingTimeout, Lost: c.lost, Failed: c.unreachable,
	})
	return nil
}

// noRedirect hands a redirect to the caller as the answer that it is, so that
// credentials go nowhere else.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// dial connects to where the host is now. It knows no proxy.
func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	if err := c.findHost(ctx); err != nil {
		return nil, err
	}
	c.mu.Lock()
	host := c.host
	c.mu.Unlock()
	addr := host.Host
	if host.Port() == "" {
		addr = net.JoinHostPort(host.Hostname(), defaultPorts[host.Scheme])
	}
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	if host.Scheme != "https" {
		return raw, nil
	}
	cfg, err := c.cfg.clientTLS()
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	cfg.ServerName = cmp.Or(cfg.ServerName, host.Hostname())
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, explainTLS(err)
	}
	return conn, nil
}

// lost takes account of the loss of a connection. It waits for nothing.
func (c *Client) lost(err error) {
	if c.link.Connected() {
		return
	}
	c.mu.Lock()
	c.doubtful = c.identity.token != ""
	c.pace.lost(time.Now(), err)
	c.mu.Unlock()
	c.tell()
}

// unreachable takes account of a connection that could not be opened.
func (c *Client) unreachable(err error) {
	c.trustFailed(c.explainLink(err))
	c.mu.Lock()
	c.pace.failed(time.Now(), err)
	c.mu.Unlock()
}
