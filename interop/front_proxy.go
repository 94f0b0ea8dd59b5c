package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// proxyListener reads the header of the PROXY protocol, versions 1 and 2, as far as this
// table needs it. A listener in production takes more care of what it is sent.
type proxyListener struct{ net.Listener }

// Accept implements net.Listener. The header is read with the first use of a connection.
func (l proxyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err //nolint:wrapcheck // the listener's own error
	}
	return &proxyConn{Conn: c, in: bufio.NewReader(c)}, nil
}

type proxyConn struct {
	net.Conn

	in   *bufio.Reader
	once sync.Once
	from net.Addr
	err  error
}

const (
	headerTime    = 5 * time.Second
	binaryHead    = 16
	binaryIPv4    = 0x11
	binaryIPv4Len = 12
)

var (
	errHeader       = errors.New("no PROXY header")
	binarySignature = []byte("\r\n\r\n\x00\r\nQUIT\n")
)

func (c *proxyConn) header() {
	c.once.Do(func() {
		_ = c.SetReadDeadline(time.Now().Add(headerTime))
		var from netip.AddrPort
		if from, c.err = readHeader(c.in); c.err == nil {
			c.from = net.TCPAddrFromAddrPort(from)
		}
		_ = c.SetReadDeadline(time.Time{})
	})
}

// readHeader returns the address in a header.
func readHeader(in *bufio.Reader) (netip.AddrPort, error) {
	first, err := in.Peek(len(binarySignature))
	if err != nil {
		return netip.AddrPort{}, errHeader
	}
	if string(first) != string(binarySignature) {
		line, err := in.ReadString('\n')
		fields := strings.Fields(line)
		if err != nil || len(fields) != 6 || fields[0] != "PROXY" {
			return netip.AddrPort{}, errHeader
		}
		return netip.ParseAddrPort(net.JoinHostPort(fields[2], fields[4])) //nolint:wrapcheck // says it
	}
	head := make([]byte, binaryHead)
	if _, err := io.ReadFull(in, head); err != nil {
		return netip.AddrPort{}, errHeader
	}
	rest := make([]byte, binary.BigEndian.Uint16(head[14:]))
	if _, err := io.ReadFull(in, rest); err != nil || head[13] != binaryIPv4 || len(rest) < binaryIPv4Len {
		return netip.AddrPort{}, errHeader
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(rest[:4])), binary.BigEndian.Uint16(rest[8:])), nil
}

// Read implements net.Conn.
func (c *proxyConn) Read(p []byte) (int, error) {
	if c.header(); c.err != nil {
		return 0, c.err
	}
	return c.in.Read(p) //nolint:wrapcheck // the connection's own error
}

// RemoteAddr implements net.Conn: the address of the peer, not of the balancer.
func (c *proxyConn) RemoteAddr() net.Addr {
	if c.header(); c.from != nil {
		return c.from
	}
	return c.Conn.RemoteAddr()
}
