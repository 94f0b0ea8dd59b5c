package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// Conn is one HTTP/2 connection.
type Conn struct {
	// Fixed at creation.
	pool  *Pool
	h2    *h2.Conn
	state *tls.ConnectionState // nil in plaintext
	leads place                // where it does
	local netip.Addr

	expiry expiry
}

// TLS returns the state of the connection, nil in plaintext. It must not be changed.
func (c *Conn) TLS() *tls.ConnectionState { return c.state }

// LocalAddr returns the address of our side, the zero Addr where that is none of the
// Internet's.
func (c *Conn) LocalAddr() netip.Addr { return c.local }

// RoundTrip makes a request on this connection, as [Pool.RoundTrip] does on any. It does
// not wait for room.
func (c *Conn) RoundTrip(r *http.Request) (*http.Response, error) {
	x, err := newExchange(r)
	if err != nil {
		return nil, err
	}
	defer x.settle()

	if !c.leads.suits(r) {
		return nil, ErrElsewhere
	}

	return x.make(c)
}

// Close closes the connection, which ends its requests.
func (c *Conn) Close() {
	c.expiry.stop()
	c.h2.Close()
}

// errNotSent says that a connection took no request.
var errNotSent = fmt.Errorf("%w: not sent", h2.ErrUnprocessed)

// ErrElsewhere says that a connection took no request, since it leads to another server than the request is for. It matches
// [Unprocessed].
var ErrElsewhere = fmt.Errorf("%w: the connection leads to another server", h2.ErrUnprocessed)

// place is where a connection leads, the zero value where nobody said.
type place struct{ scheme, host string }

// suits reports whether a request is for it.
func (p place) suits(r *http.Request) bool {
	return p == place{} || p == place{r.URL.Scheme, r.URL.Host}
}

type placeKey struct{}

// Leads is for [Config.Dial], to say where the connection leads that it is about to return: requests for another scheme or host do
// not go over it.
func Leads(ctx context.Context, to *url.URL) {
	if at, ok := ctx.Value(placeKey{}).(*place); ok {
		*at = place{to.Scheme, to.Host}
	}
}

// Unprocessed reports that the server certainly did nothing with a request that
// failed (RFC 9113, sections 6.8 and 8.7).
func Unprocessed(err error) bool { return errors.Is(err, h2.ErrUnprocessed) }

// Lost reports that a request failed because its connection ended, or because there was
// none for it.
func Lost(err error) bool {
	_, ok := errors.AsType[*unreached](err)

	return ok || errors.Is(err, h2.ErrLost) || errors.Is(err, h2.ErrClosed)
}

// Unsent reports that a request failed with which its receiver did nothing: there was no connection for it, or it says so.
func Unsent(err error) bool {
	_, ok := errors.AsType[*unreached](err)

	return ok || Unprocessed(err)
}

// TooLarge reports that a request failed because the server takes no header list as large as
// its own. Nothing was sent.
func TooLarge(err error) bool { return errors.Is(err, h2.ErrTooLarge) }

// unreached is why there was no connection for a request.
type unreached struct{ err error }

func (e *unreached) Error() string { return e.err.Error() }
func (e *unreached) Unwrap() error { return e.err }

// Reset returns the code with which the server reset the stream of a request, and
// whether that is why it failed.
func Reset(err error) (http2.ErrCode, bool) {
	reset, ok := errors.AsType[*h2.ResetError](err)
	if !ok {
		return 0, false
	}

	return reset.Code, true
}

func localAddr(nc net.Conn) netip.Addr {
	addr, err := netip.ParseAddrPort(nc.LocalAddr().String())
	if err != nil {
		return netip.Addr{}
	}

	return addr.Addr()
}

// ErrTLS says that a peer to whom we speak plaintext answers with TLS.
var ErrTLS = errors.New("the peer answers with TLS")

// firstBytes is a connection in plaintext that looks at what comes first.
type firstBytes struct {
	net.Conn

	seen bool
}

// Read implements net.Conn. An alert of TLS (RFC 8446, section 5.1) is what no HTTP/2
// server begins with.
func (c *firstBytes) Read(p []byte) (int, error) {
	const alert, major = 0x15, 0x03

	n, err := c.Conn.Read(p)
	if !c.seen && n > 1 {
		c.seen = true

		if p[0] == alert && p[1] == major {
			return 0, ErrTLS
		}
	}

	return n, err //nolint:wrapcheck // stands for what it wraps
}
