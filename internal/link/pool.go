// Package link keeps the HTTP/2 connections of one client to one server. It opens one
// at a time: whoever needs a connection waits for the one that is on its way. It tells
// at once when a connection is lost.
package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// ErrClosed is returned after [Pool.Close].
var ErrClosed = errors.New("link: closed")

// ErrNotBegun says that a server ended the connection, or said nothing on it, where it
// should have begun HTTP/2. The error that it wraps says how.
var ErrNotBegun = errors.New("the peer accepted the connection and did not begin HTTP/2")

// Config configures a [Pool]. Every field is required.
type Config struct {
	// Dial connects, TLS included.
	Dial func(ctx context.Context) (net.Conn, error)
	// DialTimeout bounds a dial, until the server has begun HTTP/2.
	DialTimeout time.Duration
	// MaxConns bounds the connections. Requests beyond what they carry wait.
	MaxConns int
	// MaxHeaderBytes bounds the header of a response.
	MaxHeaderBytes int64
	// PingAfter is the silence after which the server is pinged.
	PingAfter time.Duration
	// PingTimeout bounds the wait for the answer.
	PingTimeout time.Duration
	// Lost is told that a connection was lost: it ended, and nobody here ended it. It
	// must not wait for anything.
	Lost func(error)
	// Failed is told, before those who wait, that a connection could not be opened. It
	// must not wait for anything.
	Failed func(error)
}

// Pool is the connections of a client. It is safe for concurrent use.
type Pool struct {
	// Fixed at creation.
	cfg  Config
	life context.Context //nolint:containedctx // ends with Close, which owns the goroutines
	end  context.CancelFunc

	tasks sync.WaitGroup

	mu     sync.Mutex
	conns  []*Conn
	dial   *dial // the one on its way, nil if none
	next   int   // for taking turns where all are full
	closed bool
}

// dial is a connection on its way.
type dial struct {
	done chan struct{}
	err  error // set before done closes
}

// New makes a pool without connections.
func New(cfg Config) *Pool {
	p := &Pool{cfg: cfg}
	p.life, p.end = context.WithCancel(context.Background())

	return p
}

// Get returns a connection that takes a request now, or waits for room where there are
// as many as there may be. Each answer is for one request.
func (p *Pool) Get(ctx context.Context) (*Conn, error) {
	for {
		conns, err := p.list()
		if err != nil {
			return nil, err
		}

		// Not under the lock: it may call back.
		for _, c := range conns {
			if c.http.Reserve() == nil {
				return c, nil
			}
		}

		if c := p.anyOf(conns); c != nil {
			return c, nil
		}

		if err := p.wait(ctx); err != nil {
			return nil, err
		}
	}
}

// Open connects and waits until the server has begun HTTP/2. The connection is the
// caller's to use and to close.
func (p *Pool) Open(ctx context.Context) (*Conn, error) {
	raw, err := p.cfg.Dial(ctx)
	if err != nil {
		return nil, err
	}

	c := &Conn{line: newLine(raw)}

	c.http, err = p.transport(c.line).NewClientConn(ctx, "http", nowhere)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("http2: %w", err), raw.Close())
	}

	select {
	case <-c.line.spoke:
		err = c.line.failure()
	case <-ctx.Done():
		err = ctx.Err()
	}

	if err != nil {
		_ = c.http.Close()

		return nil, fmt.Errorf("%w: %w", ErrNotBegun, err)
	}

	return c, nil
}

// nowhere is what is dialled where the line is there already.
const nowhere = "line:0"

// Connected reports whether a connection is open.
func (p *Pool) Connected() bool {
	conns, err := p.list()

	return err == nil && len(conns) > 0
}

// Retire has later requests go over new connections; requests under way go on.
func (p *Pool) Retire() {
	p.mu.Lock()
	old := p.conns
	p.conns = nil
	p.mu.Unlock()

	for _, c := range old {
		c.http.SetStateHook(func(cc *http.ClientConn) { closeIdle(cc) })
		closeIdle(c.http)
	}
}

func closeIdle(cc *http.ClientConn) {
	if cc.InFlight() == 0 && cc.Err() == nil {
		_ = cc.Close()
	}
}

// Close closes the connections, which ends the requests under way, and waits for the
// pool's goroutines. Later calls do nothing.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	conns := p.conns
	p.conns = nil
	p.mu.Unlock()

	p.end()

	for _, c := range conns {
		_ = c.http.Close()
	}

	p.tasks.Wait()
}

// list returns the connections that are not lost.
func (p *Pool) list() ([]*Conn, error) {
	p.mu.Lock()
	all, closed := p.conns, p.closed
	p.mu.Unlock()

	if closed {
		return nil, ErrClosed
	}

	alive := make([]*Conn, 0, len(all))

	for _, c := range all {
		if c.http.Err() == nil {
			alive = append(alive, c)
		}
	}

	return alive, nil
}

// anyOf takes turns among connections of which there may be no more.
func (p *Pool) anyOf(conns []*Conn) *Conn {
	if len(conns) < p.cfg.MaxConns {
		return nil
	}

	p.mu.Lock()
	defer p.mu.Unlock()

	p.next++

	return conns[p.next%len(conns)]
}

// wait waits for the connection that is on its way, and sends one where none is.
func (p *Pool) wait(ctx context.Context) error {
	p.mu.Lock()

	if p.closed {
		p.mu.Unlock()

		return ErrClosed
	}

	d := p.dial
	if d == nil {
		d = &dial{done: make(chan struct{})}
		p.dial = d
		p.tasks.Go(func() { p.connect(d) })
	}
	p.mu.Unlock()

	select {
	case <-d.done:
		return d.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// connect opens a connection and tells those who wait.
func (p *Pool) connect(d *dial) {
	ctx, cancel := context.WithTimeout(p.life, p.cfg.DialTimeout)
	defer cancel()

	c, err := p.Open(ctx)

	p.mu.Lock()
	if err == nil && p.closed {
		err = ErrClosed
	}

	if err == nil {
		p.conns = append(p.conns, c)
	}

	p.dial = nil
	p.mu.Unlock()

	switch {
	case err == nil:
		c.http.SetStateHook(func(*http.ClientConn) { p.watch(c) })
	case c != nil:
		_ = c.http.Close()
	case p.life.Err() == nil:
		p.cfg.Failed(err)
	}

	d.err = err
	close(d.done)
}

// transport speaks HTTP/2 on a line that is there already, secured or not.
func (p *Pool) transport(l *line) *http.Transport {
	var protocols http.Protocols

	protocols.SetUnencryptedHTTP2(true)

	return &http.Transport{
		Protocols:              &protocols,
		DialContext:            func(context.Context, string, string) (net.Conn, error) { return l, nil },
		MaxResponseHeaderBytes: p.cfg.MaxHeaderBytes,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: p.cfg.PingAfter, PingTimeout: p.cfg.PingTimeout},
	}
}

// watch forgets a connection that takes no more requests, and tells of its loss.
func (p *Pool) watch(c *Conn) {
	reason := c.http.Err()
	if reason == nil || !p.forget(c) {
		return
	}

	if cause := c.line.failure(); cause != nil {
		reason = cause
	}

	p.cfg.Lost(reason)
}

// forget reports whether the pool still had the connection.
func (p *Pool) forget(c *Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()

	kept := make([]*Conn, 0, len(p.conns))

	for _, other := range p.conns {
		if other != c {
			kept = append(kept, other)
		}
	}

	found := len(kept) < len(p.conns) && !p.closed
	p.conns = kept

	return found
}
