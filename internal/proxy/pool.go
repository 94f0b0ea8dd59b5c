package proxy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// wearPause is the least time between two connections that are set aside because of streams
// that were given up.
const wearPause = 200 * time.Millisecond

// dial is an attempt to connect that any number of calls wait for.
type dial struct {
	begun time.Time
	spare bool // there was another connection when it began
	done  chan struct{}
	late  chan struct{} // closed when the calls have waited for long enough, though it goes on
	err   error         // set before done is closed
}

func (d *dial) isLate() bool {
	select {
	case <-d.late:
		return true
	default:
		return false
	}
}

// lines are a provider's connections. They are guarded by the provider's mu.
type lines struct {
	conns   []*h2.Conn // that take calls
	company map[*h2.Conn]*company
	reserve *h2.Conn   // for urgent calls that find no room on the others
	leaving []*h2.Conn // that end with the calls that they have
	dialing *dial      // one of conns that is under way
	opening *dial      // the reserve that is under way
	worn    time.Time  // when one was last set aside for its wear
	resting bool       // one has to be, and it is too early for that
	hope    patience   // of a connection where there is none
	spare   patience   // and of one more
	calm    patience   // of a server that floods, whatever it answers in between
	waiting queue
	said    time.Time // when the log was told last that the provider leaves
	unsaid  int       // how often it was not told since
}

// choice is what a call is to do: use conn, fail with err, or wait for dial or
// for a while.
type choice struct {
	conn   *h2.Conn
	err    error
	dial   *dial
	wait   time.Duration
	barred bool // there is room, for others than the call's caller
	apart  bool // there is room, and a connection of its own soon
}

// open opens a stream on a connection with room for one, and returns what it did
// not send of the request's body yet. An error means that nothing was sent.
func (p *Provider) open(c *call, request h2.Request) (*h2.Stream, []byte, error) {
	request.Reserved = true
	if err := p.pace(c, &request); err != nil {
		return nil, nil, err
	}
	for {
		conn, err := p.conn(c)
		if err != nil {
			p.cfg.Pace.Return(request.Payer, request.Expected)
			return nil, nil, err
		}
		stream, rest, err := conn.Open(request)
		if errors.Is(err, h2.ErrTooLarge) {
			p.cfg.Pace.Return(request.Payer, request.Expected)
		}
		if err == nil || errors.Is(err, h2.ErrTooLarge) {
			return stream, rest, err
		}
	}
}

// pace has a call wait for what its caller got before, where that was more than answers usually have, and no longer for what its
// caller's other calls were to get, once they get nothing. The host's own questions wait for nothing.
func (p *Provider) pace(c *call, request *h2.Request) error {
	if c.Urgent || request.Payer.Name == "" {
		return nil
	}
	var wait time.Duration
	if request.Expected, wait = p.cfg.Pace.Reserve(request.Payer); wait == 0 {
		return nil
	}
	if !p.cfg.Pace.Wait(request.Payer, request.Expected, wait, c.interrupted()) {
		p.cfg.Pace.Return(request.Payer, request.Expected)
		return c.why()
	}
	return nil
}

// conn returns a connection with a place for a stream, and waits for one where
// necessary.
func (p *Provider) conn(c *call) (*h2.Conn, error) {
	var w *waiting
	defer func() { w.leave(p) }()
	for {
		p.mu.Lock()
		if c.holds { // it got no stream, or one that the provider did not look at
			p.yieldLocked(c)
			p.offerLocked()
		}
		ch := p.takeLocked(c, w == nil)
		if ch.conn == nil && ch.err == nil && !ch.apart {
			w, ch.err = w.enterLocked(c, ch)
		}
		p.mu.Unlock()
		if ch.conn != nil || ch.err != nil {
			return ch.conn, ch.err
		}
		wait := w.wait
		if ch.apart {
			wait = awaitApart
		}
		if err := wait(c, ch); err != nil {
			return nil, err
		}
	}
}

// takeLocked says what a call is to do, and takes the place on a connection that it is to use. A
// connection may be full by the time, and is none to use then.
func (p *Provider) takeLocked(c *call, isNew bool) choice {
	for {
		ch := p.chooseLocked(c, isNew)
		switch {
		case ch.conn == nil:
			return ch
		case ch.conn.Reserve():
			if !c.Urgent {
				ch.conn.Use()
			}
			p.holdLocked(c, ch.conn)
			return ch
		}
	}
}

// chooseLocked says what a call is to do. One that is new waits behind those that
// wait already, unless it is urgent, or they wait for calls of their own callers to end.
func (p *Provider) chooseLocked(c *call, isNew bool) choice {
	if p.ctx.Err() != nil {
		return choice{err: ErrClosed}
	}
	best, how := p.bestLocked(c)
	if isNew && !c.Urgent && p.lines.waiting.has(p.mayLocked) {
		if best != nil && how == fits {
			return choice{} // which those before it are about to take: none is dialled for that
		}
		return p.waitLocked()
	}
	barred := best != nil && !c.Urgent && !p.mayLocked(c.account())
	if barred {
		best = nil
	}
	ch := p.useLocked(c, best, how)
	ch.barred = barred
	return ch
}

// useLocked says what a call is to do that may have a stream on the given connection, which is
// nil where there is none for it.
func (p *Provider) useLocked(c *call, best *h2.Conn, how fit) choice {
	switch {
	case best != nil && how == foreign && !c.Urgent:
		return p.apartLocked(c, best)
	case best != nil && how < strained && (c.Urgent || best.Load() < p.cfg.CallsPerConn && !best.Filling()):
		return choice{conn: best}
	case c.Urgent && len(p.lines.conns) >= p.cfg.MaxConns:
		return p.reserveLocked(best)
	default:
		return p.growLocked(best, how == strained)
	}
}

// growLocked dials where another connection would be better than the given one,
// and says what a call is to do meanwhile.
func (p *Provider) growLocked(best *h2.Conn, strained bool) choice {
	ch := p.waitLocked()
	switch {
	case best != nil && (ch.dial == nil || !strained):
		return choice{conn: best} // a further one is for later calls
	case best == nil && ch.wait > shortWait && len(p.lines.conns) == 0:
		return choice{err: fmt.Errorf("%w: not dialled again yet after: %w", errUnavailable, p.lines.lastLocked())}
	default:
		return ch
	}
}

// waitLocked says what a call waits for that finds no connection, and dials where
// there may be another one.
func (p *Provider) waitLocked() choice {
	l := &p.lines
	switch {
	case l.dialing != nil && len(l.conns) > 0 && l.dialing.isLate():
		return choice{} // for room on the others
	case l.dialing != nil && l.dialing.spare && len(l.conns) == 0:
		// It may go nowhere for long, which nobody knew as long as there was another one.
	case l.dialing != nil:
		return choice{dial: l.dialing}
	case len(l.conns) >= p.cfg.MaxConns && l.resting:
		return choice{wait: max(time.Millisecond, p.restLocked())}
	case len(l.conns) >= p.cfg.MaxConns:
		return choice{}
	}
	if wait := l.left(len(l.conns) > 0, time.Now()); wait > 0 {
		return choice{wait: wait}
	}
	l.dialing = p.dialLocked(p.settleLocked)
	return choice{dial: l.dialing}
}

// reserveLocked says what an urgent call is to do that finds no room: it takes
// the connection that is kept for that, and else is told to use the given one.
func (p *Provider) reserveLocked(other *h2.Conn) choice {
	l := &p.lines
	if l.reserve != nil && !l.reserve.Usable() {
		p.retireLocked(l.reserve)
		l.reserve = nil
	}
	switch {
	case l.reserve != nil && !l.reserve.Full() && !l.reserve.Worn():
		return choice{conn: l.reserve}
	case l.reserve != nil && l.reserve.Worn():
		p.retireLocked(l.reserve)
		l.reserve = nil
	case l.reserve != nil:
		return choice{conn: other}
	}
	if l.opening != nil && l.opening.isLate() {
		return choice{conn: other}
	}
	if l.opening == nil {
		if wait := l.left(len(l.conns) > 0, time.Now()); wait > 0 {
			return choice{conn: other, wait: wait}
		}
		l.opening = p.dialLocked(func(_ *dial, conn *h2.Conn) { p.lines.reserve, p.lines.opening = conn, nil })
	}
	return choice{dial: l.opening}
}

// fit is how well a connection fits a call.
type fit int

const (
	fits     fit = iota
	foreign      // another one is dialled, if there may be one
	strained     // better than nothing
)

// fitLocked says how well a connection fits a call, whose server may be busy.
func (p *Provider) fitLocked(c *call, conn *h2.Conn, worn bool) fit {
	switch {
	case worn || conn.Dry(c.account()):
		return strained
	case p.foreignLocked(c, conn):
		return foreign
	default:
		return fits
	}
}

// bestLocked returns the least loaded connection with room for a stream of those that fit best, nil if
// there is none, and how well it does. It forgets the
// connections that ended, and those whose server may be busy with streams that
// were given up: a call would wait there for one of their handlers to end.
func (p *Provider) bestLocked(c *call) (*h2.Conn, fit) {
	l := &p.lines
	var best *h2.Conn
	bestFit := fits
	kept := l.conns[:0]
	l.resting = false
	for _, conn := range l.conns {
		worn := conn.Worn()
		if !conn.Usable() || worn && p.replaceLocked() {
			p.retireLocked(conn)
			continue
		}
		kept = append(kept, conn)
		rests := worn && len(l.leaving) < p.cfg.MaxConns
		if l.resting = l.resting || rests; rests || conn.Full() {
			continue
		}
		how := p.fitLocked(c, conn, worn)
		if best == nil || how < bestFit || how == bestFit && conn.Load() < best.Load() {
			best, bestFit = conn, how
		}
	}
	p.keepLocked(kept)
	return best, bestFit
}

// keepLocked forgets the connections but the given ones, which stand at the beginning of them.
func (p *Provider) keepLocked(kept []*h2.Conn) {
	l := &p.lines
	if len(kept) < len(l.conns) {
		p.wakeAllLocked() // there may be another one now
	}
	clear(l.conns[len(kept):])
	l.conns = kept
}

// replaceLocked reports whether a worn connection may end with its calls: that did
// not happen just now, and not too many are ending already.
func (p *Provider) replaceLocked() bool {
	if len(p.lines.leaving) >= p.cfg.MaxConns || p.restLocked() > 0 {
		return false
	}
	p.lines.worn = time.Now()
	return true
}

// restLocked is how long the next worn connection has to stay.
func (p *Provider) restLocked() time.Duration { return time.Until(p.lines.worn.Add(wearPause)) }

// retireLocked has a connection end with its last call, and waits for that
// elsewhere.
func (p *Provider) retireLocked(conn *h2.Conn) {
	if conn.Flooded() {
		p.lines.calm.waste(time.Now(), errFloods)
	}
	if conn.Failed() {
		p.wasteLocked(len(p.lines.conns) > 1, errUseless)
	}
	p.lines.leaving = append(p.lines.leaving, conn)
	delete(p.lines.company, conn)
	p.background.Go(func() {
		conn.Retire()
		select {
		case <-conn.Done():
		case <-p.ctx.Done():
		}
		conn.Close()
		p.mu.Lock()
		p.lines.leaving = slices.DeleteFunc(p.lines.leaving, func(other *h2.Conn) bool { return other == conn })
		p.wakeAllLocked()
		p.mu.Unlock()
	})
}

// LetGo ends the connections that carried nothing but the host's own questions: where none is due for long they need not stay. Those
// that calls were made on wait for the next ones, as long as Config.IdleTimeout.
func (p *Provider) LetGo() {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.lines.conns[:0]
	for _, conn := range p.lines.conns {
		if conn.Used() || conn.Load() > 0 {
			kept = append(kept, conn)
			continue
		}
		p.retireLocked(conn)
	}
	p.keepLocked(kept)
}

// hopeFor says when a connection may be dialled that is one more, or the only one.
func (l *lines) hopeFor(spare bool) *patience {
	if spare {
		return &l.spare
	}
	return &l.hope
}

// left is how long it takes until there may be such a connection.
func (l *lines) left(spare bool, now time.Time) time.Duration {
	return max(l.hopeFor(spare).left(now), l.calm.left(now))
}

// lastLocked is why there may be no connection yet.
func (l *lines) lastLocked() error {
	if l.calm.until.After(l.hope.until) {
		return l.calm.last
	}
	return l.hope.last
}

// wasteLocked notes a connection that was of no use. That of one more goes by what came of such ones before: what
// the others answer says nothing of it.
func (p *Provider) wasteLocked(spare bool, err error) {
	hope := p.lines.hopeFor(spare)
	hope.waste(time.Now(), err)
	if !spare {
		p.troubled.Store(true)
		return
	}
	if n := hope.useless; n&(n-1) == 0 { // the first ones, and then fewer and fewer
		p.cfg.Logger.Warn("one more connection to a provider was of no use, so its callers share what there is",
			"endpoint", cmp.Or(p.cfg.Name, p.authority), "error", err, "times", n)
	}
}

// dialLocked starts to connect. The connection is handed to settle, and nil if
// there is none, while mu is held.
func (p *Provider) dialLocked(settle func(*dial, *h2.Conn)) *dial {
	d := &dial{begun: time.Now(), spare: len(p.lines.conns) > 0, done: make(chan struct{}), late: make(chan struct{})}
	late := time.AfterFunc(p.cfg.DialTimeout, func() { close(d.late) })
	p.background.Go(func() {
		conn, err := p.connect()
		late.Stop()
		p.mu.Lock()
		defer p.mu.Unlock()
		hope := p.lines.hopeFor(d.spare)
		switch {
		case errors.Is(err, errUseless), err != nil && d.spare && p.ctx.Err() == nil:
			p.wasteLocked(d.spare, err)
		case err != nil:
			hope.refuse(time.Now(), err)
		case p.ctx.Err() != nil:
			p.retireLocked(conn)
			conn, err = nil, ErrClosed
		case conn.Full() && conn.Load() == 0:
			p.wasteLocked(d.spare, errUseless)
		default:
			hope.refused = 0
		}
		d.err = err
		settle(d, conn)
		close(d.done)
		p.wakeAllLocked()
	})
	return d
}

// settleLocked takes a connection in that was dialled for all.
func (p *Provider) settleLocked(d *dial, conn *h2.Conn) {
	if p.lines.dialing == d { // and no other one in its place
		p.lines.dialing = nil
	}
	if conn != nil {
		p.lines.conns = append(p.lines.conns, conn)
	}
}

// proved notes that the provider answers.
func (p *Provider) proved() {
	if !p.troubled.Load() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines.hope = patience{}
	p.troubled.Store(false)
	p.wakeAllLocked() // they need not wait for the next dial
}
