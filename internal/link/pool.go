// Package link keeps the HTTP/2 connections of one client to one server, and makes
// requests over them. It opens one connection at a time: whoever needs one waits for the
// one that is on its way. It tells at once when a connection is lost.
package link

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// ErrClosed is returned after [Pool.Close].
var ErrClosed = errors.New("link: closed")

// ErrNotBegun says that a server ended the connection, or said nothing on it, where it
// should have begun HTTP/2. The error that it wraps says how.
var ErrNotBegun = errors.New("the peer accepted the connection and did not begin HTTP/2")

// Config configures a [Pool]. Every field but Overtime is required.
type Config struct {
	// Dial connects, TLS included. It passes what it dialled to below and puts TLS, if
	// any, on top of what that returns.
	Dial func(ctx context.Context, below func(net.Conn) net.Conn) (net.Conn, error)
	// DialTimeout bounds a dial, until the server has begun HTTP/2.
	DialTimeout time.Duration
	// MaxConns bounds the connections. Requests beyond what they carry wait.
	MaxConns int
	// MaxHeaderBytes bounds the header of a response.
	MaxHeaderBytes int
	// PingAfter is the silence after which the server is looked after: by TCP as often,
	// and by a ping of HTTP/2 as often as servers that follow gRPC's rules take it.
	PingAfter time.Duration
	// PingTimeout bounds the wait for the answer.
	PingTimeout time.Duration
	// Overtime is how long the requests of a connection may go on after the end of the certificate that the server showed on it.
	// Zero is for ever, and so is a connection then.
	Overtime time.Duration
	// Lost is told that a connection was lost: it ended, and nobody here ended it. It
	// must not wait for anything.
	Lost func(error)
	// Failed is told, before those who wait, that a connection could not be opened. It
	// must not wait for anything.
	Failed func(error)
}

// Pool is the connections of a client. It is an [http.RoundTripper] for requests to its
// server, and safe for concurrent use.
type Pool struct {
	// Fixed at creation.
	cfg  Config
	life context.Context //nolint:containedctx // ends with Close, which owns the goroutines
	end  context.CancelFunc

	tasks  sync.WaitGroup
	barren atomic.Int32 // connections in a row that the server ended before it answered anything

	mu     sync.Mutex
	conns  []*Conn
	dial   *dial     // the one on its way, nil if none
	pause  time.Time // until when none is sent where there are connections already
	failed time.Time // when the last attempt at a connection came to nothing
	inVain int       // attempts in a row that came to nothing
	queue  []*waiter // requests that wait for room, the oldest first
	closed bool
}

// New makes a pool without connections.
func New(cfg Config) *Pool {
	p := &Pool{cfg: cfg}
	p.life, p.end = context.WithCancel(context.Background())

	return p
}

// RoundTrip makes a request over one of the connections. What it returns before the
// response matches [Unprocessed] where the server did nothing. It asks for no compression
// and follows no redirect; a request with a trailer is refused. Where there is no connection, it
// stops waiting for one a moment before the request's deadline, so that its caller learns why.
func (p *Pool) RoundTrip(r *http.Request) (*http.Response, error) {
	x, err := newExchange(r)
	if err != nil {
		return nil, err
	}
	defer x.settle()

	for {
		c, err := p.get(r.Context(), true)
		if err != nil {
			return nil, &unreached{err}
		}

		if !c.leads.suits(r) {
			return nil, ErrElsewhere
		}

		resp, err := x.make(c)
		if !errors.Is(err, errNotSent) {
			return resp, err
		}

		if errors.Is(err, h2.ErrClosed) {
			p.look()
		}
	}
}

// Connected reports whether a connection is open.
func (p *Pool) Connected() bool {
	p.mu.Lock()
	defer p.mu.Unlock()

	for _, c := range p.conns {
		if c.h2.Usable() {
			return true
		}
	}

	return false
}

// Retire has later requests go over new connections; requests under way go on.
func (p *Pool) Retire() {
	p.mu.Lock()
	defer p.mu.Unlock()

	for _, c := range p.conns {
		p.partLocked(c)
	}

	p.conns = nil
}

// Close closes the connections, which ends the requests under way, and waits for the
// pool's goroutines. Later calls do nothing.
func (p *Pool) Close() {
	p.mu.Lock()
	if !p.closed {
		for _, c := range p.conns {
			p.partLocked(c)
		}
	}

	p.closed, p.conns = true, nil
	p.end()
	p.wakeAllLocked()
	p.mu.Unlock()

	p.tasks.Wait()
}

// partLocked has a connection take no more requests and end with those that it has, or
// with the pool.
func (p *Pool) partLocked(c *Conn) {
	p.tasks.Go(func() {
		c.h2.Retire()

		select {
		case <-c.h2.Done():
		case <-p.life.Done():
		}

		c.expiry.stop()
		c.h2.Close()
	})
}

// look takes account of connections that take no more requests: it parts with them, has
// those who wait look again, and tells of the loss.
func (p *Pool) look() {
	p.mu.Lock()

	var lost []*Conn

	kept := make([]*Conn, 0, len(p.conns))

	for _, c := range p.conns {
		if c.h2.Usable() {
			kept = append(kept, c)

			continue
		}

		if c.h2.Failed() {
			p.barren.Add(1)
		}

		lost = append(lost, c)
		p.partLocked(c)
	}

	p.conns = kept
	p.wakeAllLocked()
	p.mu.Unlock()

	for _, c := range lost {
		if err := c.h2.Err(); err != nil {
			p.cfg.Lost(err)
		}
	}
}

// h2Config is how a connection is run. It is never idle for too long: it tells that the
// server is there.
func (p *Pool) h2Config() h2.Config {
	const never = 1<<63 - 1

	return h2.Config{
		MaxHeaderBytes: p.cfg.MaxHeaderBytes, IdleTimeout: never, PingInterval: p.cfg.PingAfter, PingTimeout: p.cfg.PingTimeout,
		Room: p.look, Freed: p.freed,
	}
}
