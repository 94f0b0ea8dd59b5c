package wire

import (
	"context"
	"net"
	"slices"
	"sync"
)

// pipeListener accepts connections in memory, so that a host runs in a bubble of
// synctest, whose time tests choose.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (*pipeListener) Addr() net.Addr { return pipeAddr{} }

// dial leaves nothing behind when the host takes no more, or when nobody waits any longer.
func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	here, there := pipe()
	var err error
	select {
	case l.conns <- there:
		return here, nil
	case <-l.done:
		err = net.ErrClosed
	case <-ctx.Done():
		err = ctx.Err()
	}
	_ = here.Close()
	return nil, err
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

// pipe connects a client to a host in memory. What the client writes waits, as in a socket's buffer:
// a client that holds its locks until the host reads would keep the bubble's time from going on.
func pipe() (client, host net.Conn) {
	here, there := net.Pipe()
	c := &bufferedConn{Conn: here, parts: make(chan []byte, bufferedParts), done: make(chan struct{})}
	go c.pump()
	return c, there
}

const bufferedParts = 1024

// bufferedConn writes what it is given by and by.
type bufferedConn struct {
	net.Conn

	parts chan []byte
	done  chan struct{}
	once  sync.Once
}

func (c *bufferedConn) Write(p []byte) (int, error) {
	select {
	case c.parts <- slices.Clone(p):
		return len(p), nil
	case <-c.done:
		return 0, net.ErrClosed
	}
}

func (c *bufferedConn) Close() error {
	c.once.Do(func() { close(c.done) })
	return c.Conn.Close()
}

// pump ends with the connection.
func (c *bufferedConn) pump() {
	for {
		select {
		case p := <-c.parts:
			if _, err := c.Conn.Write(p); err != nil {
				c.once.Do(func() { close(c.done) })
				return
			}
		case <-c.done:
			return
		}
	}
}

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }

func (pipeAddr) String() string { return "pipe" }
