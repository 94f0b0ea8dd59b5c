package link

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
)

// Conn is one HTTP/2 connection.
type Conn struct {
	// Fixed at creation.
	http *http.ClientConn
	line *line
}

// TLS returns the state of the connection, nil in plaintext.
func (c *Conn) TLS() *tls.ConnectionState {
	t, ok := c.line.Conn.(*tls.Conn)
	if !ok {
		return nil
	}

	state := t.ConnectionState()

	return &state
}

// LocalAddr returns the address of our side, the zero Addr where that is none of the
// Internet's.
func (c *Conn) LocalAddr() netip.Addr {
	addr, err := netip.ParseAddrPort(c.line.LocalAddr().String())
	if err != nil {
		return netip.Addr{}
	}

	return addr.Addr()
}

// RoundTrip sends a request on this connection.
func (c *Conn) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.http.RoundTrip(r)
	if err != nil {
		return nil, c.explain(err)
	}

	return resp, nil
}

// Close closes the connection, which ends its requests.
func (c *Conn) Close() { _ = c.http.Close() }

// Lost returns why the connection ended, nil while it did not. The end that the peer
// announced and that of [Pool.Close] count too.
func (c *Conn) Lost() error {
	if err := c.line.failure(); err != nil {
		return err
	}

	return c.http.Err()
}

// explain puts what the connection broke of beside what HTTP/2 makes of it.
func (c *Conn) explain(err error) error {
	cause := c.line.failure()
	if cause == nil || errors.Is(err, cause) || Unprocessed(err) {
		return err
	}

	return errors.Join(err, cause)
}

// Unprocessed reports that the server certainly did nothing with a request that
// failed. net/http has no name for these errors (RFC 9113, sections 6.8 and 8.7).
func Unprocessed(err error) bool {
	if err == nil {
		return false
	}

	text := err.Error()
	for _, known := range []string{
		"http2: client conn not usable", "http2: client conn is closed", "graceful shutdown GOAWAY", "REFUSED_STREAM",
	} {
		if strings.Contains(text, known) {
			return true
		}
	}

	return false
}

// line is the wire below HTTP/2. It remembers how reading ended, and tells when the
// first bytes came: only then has the peer accepted our certificate (with TLS 1.3 a
// client finishes its part before the server looks at it).
type line struct {
	net.Conn

	spoke chan struct{} // closed by the first bytes, or the end

	once sync.Once

	mu     sync.Mutex
	err    error
	closed bool // by our side
}

func newLine(conn net.Conn) *line {
	return &line{Conn: conn, spoke: make(chan struct{})}
}

// Read implements net.Conn.
func (l *line) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)

	if err == nil && n > 0 && isTLSRecord(l, p[:n]) {
		err = ErrTLS
	}

	if err != nil {
		l.mu.Lock()
		if !l.closed && l.err == nil {
			l.err = err
		}
		l.mu.Unlock()
	}

	l.once.Do(func() { close(l.spoke) })

	return n, err
}

// ErrTLS says that a peer to whom we speak plaintext answers with TLS.
var ErrTLS = errors.New("the peer answers with TLS")

// isTLSRecord reports that what came first is an alert of TLS (RFC 8446, section 5.1),
// which no HTTP/2 server begins with.
func isTLSRecord(l *line, first []byte) bool {
	const alert, major = 0x15, 0x03

	select {
	case <-l.spoke:
		return false
	default:
	}

	_, secure := l.Conn.(*tls.Conn)

	return !secure && len(first) > 1 && first[0] == alert && first[1] == major
}

// Close implements net.Conn.
func (l *line) Close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.once.Do(func() { close(l.spoke) })

	return l.Conn.Close() //nolint:wrapcheck // stands for what it wraps
}

// failure returns how reading ended, nil where our side closed first.
func (l *line) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()

	return l.err
}
