package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/backoff"
	"github.com/masegraye/connect-plugin-go/internal/intime"
	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// dialPause is how long no further connection is tried after one that failed, while
// there are others.
const dialPause = time.Second

// dial is a connection on its way.
type dial struct {
	done chan struct{}
	err  error // set before done closes
}

// waiter is a request that waits for room on a connection.
type waiter struct {
	turn chan struct{} // has an element when it should look again
	soon *time.Timer   // until when it waits for any connection; nil is as long as it may
}

// errNoneYet is what requests get that could wait longer only until nobody can be told.
var errNoneYet = errors.New("there is no connection yet, and the time that the request had is all but over")

// hurry sets how long a request waits for any connection, so that whoever makes it learns that the
// server is out of reach, and not that its time is over.
func (w *waiter) hurry(ctx context.Context) {
	deadline, ok := ctx.Deadline()
	if !ok || w.soon != nil {
		return
	}

	if left, ok := intime.Wait(time.Until(deadline)); ok {
		w.soon = time.NewTimer(left)
	}
}

// choice is what a request is to do: use conn, fail with err, or wait, for dial too if
// there is one, and no longer than pause if that is not zero.
type choice struct {
	conn  *Conn
	err   error
	dial  *dial
	pause time.Duration
}

// Get returns a connection that takes a request now, or waits for room where there are
// as many as there may be. Others may be faster to use that room.
func (p *Pool) Get(ctx context.Context) (*Conn, error) { return p.get(ctx, false) }

// get is Get for a request that hurries, or not.
func (p *Pool) get(ctx context.Context, hurries bool) (*Conn, error) {
	var w *waiter

	defer func() { p.leave(w) }()

	for {
		p.mu.Lock()

		ch := p.chooseLocked(w == nil)
		if ch.conn == nil && ch.err == nil {
			w = p.waitLocked(w)
		}
		p.mu.Unlock()

		if w != nil && hurries {
			w.hurry(ctx)
		}

		if ch.conn != nil || ch.err != nil {
			return ch.conn, ch.err
		}

		if err := w.wait(ctx, ch); err != nil && (ctx.Err() != nil || !p.Connected()) {
			return nil, err
		}
	}
}

// chooseLocked says what a request is to do. A new one goes behind those that wait.
func (p *Pool) chooseLocked(isNew bool) choice {
	if p.closed {
		return choice{err: ErrClosed}
	}

	var best *Conn

	open := 0

	for _, c := range p.conns {
		if !c.h2.Usable() {
			continue
		}

		open++

		if !c.h2.Full() && (best == nil || c.h2.Load() < best.h2.Load()) {
			best = c
		}
	}

	switch {
	case best != nil && (!isNew || len(p.queue) == 0):
		return choice{conn: best}
	case best != nil, open >= p.cfg.MaxConns:
		return choice{}
	}

	if pause := time.Until(p.pause); open > 0 && pause > 0 {
		return choice{pause: pause}
	}

	if p.dial == nil {
		d := &dial{done: make(chan struct{})}
		p.dial = d
		p.tasks.Go(func() { p.connect(d) })
	}

	return choice{dial: p.dial}
}

// waitLocked puts a request into the queue, where it was if it was there before.
func (p *Pool) waitLocked(w *waiter) *waiter {
	switch {
	case w == nil:
		w = &waiter{turn: make(chan struct{}, 1)}
		p.queue = append(p.queue, w)
	case !slices.Contains(p.queue, w):
		p.queue = slices.Insert(p.queue, 0, w)
	}

	return w
}

// wait returns when the request should look again. An error is that of the context, or
// of the connection on its way.
func (w *waiter) wait(ctx context.Context, ch choice) error {
	var (
		d       = ch.dial
		dialled <-chan struct{}
		pause   <-chan time.Time
	)

	if ch.pause > 0 {
		timer := time.NewTimer(ch.pause)
		defer timer.Stop()

		pause = timer.C
	}

	if d != nil {
		dialled = d.done
	}

	select {
	case <-w.turn:
	case <-pause:
	case <-w.late():
		return errNoneYet
	case <-dialled:
		return d.err
	case <-ctx.Done():
		return ctx.Err()
	}

	if d == nil {
		return nil
	}

	select {
	case <-dialled:
		return d.err
	default:
		return nil
	}
}

// late ends the waiting for any connection; nil never does.
func (w *waiter) late() <-chan time.Time {
	if w.soon == nil {
		return nil
	}

	return w.soon.C
}

// leave takes a request out of the queue. Whoever is next looks whether there is room
// left.
func (p *Pool) leave(w *waiter) {
	if w == nil {
		return
	}

	if w.soon != nil {
		w.soon.Stop()
	}

	p.mu.Lock()
	defer p.mu.Unlock()

	if i := slices.Index(p.queue, w); i >= 0 {
		p.queue = slices.Delete(p.queue, i, i+1)
	}

	p.wakeLocked()
}

// freed has the request whose turn it is look again: another one has ended.
func (p *Pool) freed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wakeLocked()
}

// wakeLocked wakes the request whose turn it is, and reports whether there was one.
func (p *Pool) wakeLocked() bool {
	if len(p.queue) == 0 {
		return false
	}

	w := p.queue[0]
	p.queue = slices.Delete(p.queue, 0, 1)

	select {
	case w.turn <- struct{}{}:
	default:
	}

	return true
}

func (p *Pool) wakeAllLocked() {
	for p.wakeLocked() {
	}
}

// mostBarren is how many connections in a row may be of no use before there is a pause
// between them.
const mostBarren = 3

const (
	firstRedialWait = 10 * time.Millisecond
	mostRedialWait  = 250 * time.Millisecond
)

// redial are the waits between attempts that come to nothing, so that calls in a loop do not dial as fast as they can
// who accepts connections and does not serve, as a balancer without a server behind it. They are so short that who
// waits for a server that restarts hardly waits for longer.
var redial = backoff.Waits{Initial: firstRedialWait, Max: mostRedialWait, Factor: 2, Jitter: true}

// rest returns how long to wait before another attempt.
func (p *Pool) rest(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()

	n := p.inVain - mostBarren
	if n < 0 {
		return 0
	}

	return p.failed.Add(redial.After(n + 1)).Sub(now)
}

// connect opens a connection and tells those who wait.
func (p *Pool) connect(d *dial) {
	if n := int(p.barren.Load()) - mostBarren; n >= 0 {
		backoff.Wait(p.life, backoff.Reconnect.After(n+1))
	}
	backoff.Wait(p.life, p.rest(time.Now()))

	ctx, cancel := context.WithTimeout(p.life, p.cfg.DialTimeout)
	defer cancel()

	c, err := p.Open(ctx)

	p.mu.Lock()
	if err == nil && p.closed {
		c.h2.Retire() // it has no requests

		err = ErrClosed
	}

	if err == nil {
		p.conns, p.inVain = append(p.conns, c), 0
	} else {
		p.failed = time.Now()
		p.inVain++
		p.pause = p.failed.Add(dialPause)
	}

	p.dial = nil
	p.mu.Unlock()

	switch {
	case c != nil && err != nil:
		c.Close()
	case err != nil && p.life.Err() == nil:
		p.cfg.Failed(err)
	}

	d.err = err
	close(d.done)
	p.look() // it may have ended already
}

// Spare returns a connection of the pool that takes a request now, nil where there is none. It
// opens none.
func (p *Pool) Spare() *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()

	for _, c := range p.conns {
		if c.h2.Usable() && !c.h2.Full() {
			return c
		}
	}

	return nil
}

// Keep gives a connection of [Pool.Open] to the pool, and reports whether the pool has it: one
// that has another, or gets one, needs none.
func (p *Pool) Keep(c *Conn) bool {
	p.mu.Lock()

	kept := slices.Contains(p.conns, c)
	if !kept && !p.closed && len(p.conns) == 0 && p.dial == nil {
		p.conns, kept = append(p.conns, c), true
	}
	p.mu.Unlock()

	if kept {
		p.look() // it may have ended already
	}

	return kept
}

// Open connects and waits until the server has begun HTTP/2. The connection is the
// caller's to use and to close, or to [Pool.Keep].
func (p *Pool) Open(ctx context.Context) (*Conn, error) {
	var leads place

	nc, err := p.cfg.Dial(context.WithValue(ctx, placeKey{}, &leads), func(raw net.Conn) net.Conn {
		h2.WatchPeer(raw, p.cfg.PingAfter, p.cfg.PingTimeout)

		return h2.NewBatch(raw)
	})
	if err != nil {
		return nil, err
	}

	c := &Conn{pool: p, local: localAddr(nc), leads: leads}

	batch, _ := nc.(*h2.Batch)

	if secure, ok := nc.(*tls.Conn); ok {
		batch, _ = secure.NetConn().(*h2.Batch)
		state := secure.ConnectionState()
		c.state = &state
	} else {
		nc = &firstBytes{Conn: nc}
	}

	c.h2, err = h2.Client(ctx, nc, batch, p.h2Config())
	if ctx.Err() != nil {
		err = errors.Join(err, ctx.Err())
	}

	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotBegun, err)
	}

	p.expire(c)

	return c, nil
}
