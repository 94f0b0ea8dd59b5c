// Package opening looks at what connections begin with, for a server that has to say why
// it cannot serve them.
package opening

import (
	"bytes"
	"net"
)

// Kind is what a connection begins with.
type Kind string

// The kinds that are told apart.
const (
	TLS         Kind = "TLS"
	ProxyText   Kind = "a PROXY header (version 1)"
	ProxyBinary Kind = "a PROXY header (version 2)"
	HTTP2       Kind = "HTTP/2 in plaintext"
	HTTP1       Kind = "HTTP/1 in plaintext"
	Other       Kind = "something that is neither TLS nor HTTP"
)

// tlsHandshake is the type of the first record of TLS (RFC 8446, section 5.1).
const tlsHandshake = 0x16

// enough is how many bytes tell the kinds apart.
const enough = 12

// signatures are how what is no TLS begins: the PROXY protocol, sections 2.1 and 2.2, and
// RFC 9113, section 3.4.
var signatures = []struct {
	begins string
	kind   Kind
}{
	{"\r\n\r\n\x00\r\nQUIT\n", ProxyBinary},
	{"PROXY ", ProxyText},
	{"PRI * HTTP/2", HTTP2},
}

// methods of HTTP with which a request begins.
var methods = []string{"GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "OPTIONS ", "PATCH ", "CONNECT "}

// KindOf tells what a connection begins with. It reports false where that cannot be told
// yet.
func KindOf(first []byte) (Kind, bool) {
	switch {
	case len(first) == 0:
		return "", false
	case first[0] == tlsHandshake:
		return TLS, true
	}

	for _, s := range signatures {
		if bytes.HasPrefix(first, []byte(s.begins)) {
			return s.kind, true
		}
	}

	for _, method := range methods {
		if bytes.HasPrefix(first, []byte(method)) {
			return HTTP1, true
		}
	}

	if len(first) < enough && mayBecome(first) {
		return "", false
	}

	return Other, true
}

// mayBecome reports whether more bytes could make a beginning one that is known.
func mayBecome(first []byte) bool {
	for _, s := range signatures {
		if bytes.HasPrefix([]byte(s.begins), first) {
			return true
		}
	}

	for _, method := range methods {
		if bytes.HasPrefix([]byte(method), first) {
			return true
		}
	}

	return false
}

// Listener tells what the connections of another begin with.
type Listener struct {
	net.Listener

	told func(remote net.Addr, kind Kind)
}

// NewListener returns a listener that calls told once for each connection that says
// anything, from whoever reads it, which waits.
func NewListener(l net.Listener, told func(remote net.Addr, kind Kind)) *Listener {
	return &Listener{Listener: l, told: told}
}

// Accept implements [net.Listener].
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err //nolint:wrapcheck // the listener's own error
	}

	return &conn{Conn: c, told: l.told}, nil
}

// conn looks at the first bytes that are read. There is one reader at a time.
type conn struct {
	net.Conn

	told  func(net.Addr, Kind)
	known bool
	first []byte // until it is known
}

// Opened returns the connection that was accepted, for whoever writes to it: nothing looks at that.
func (c *conn) Opened() net.Conn { return c.Conn }

// Read implements [net.Conn].
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if !c.known && (n > 0 || err != nil) {
		c.look(p[:n], err != nil)
	}

	return n, err //nolint:wrapcheck // the connection's own error
}

// look takes bytes in until it is known what they are, or there are no more.
func (c *conn) look(read []byte, last bool) {
	c.first = append(c.first, read[:min(len(read), enough)]...)
	kind, known := KindOf(c.first)
	c.known = known || last

	switch {
	case known:
		c.told(c.RemoteAddr(), kind)
	case last && len(c.first) > 0:
		c.told(c.RemoteAddr(), Other)
	}

	if c.known {
		c.first = nil
	}
}
