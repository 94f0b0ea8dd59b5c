package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/heirs"
	"github.com/masegraye/connect-plugin-go/internal/limiter"
	"github.com/masegraye/connect-plugin-go/internal/turns"
)

// Config says what a [Listener] takes.
type Config struct {
	// TLS is the server side; nil serves plaintext, on which HTTP/1.1 may be spoken, so
	// that nothing is metered.
	TLS *tls.Config
	// HandshakeTimeout bounds the TLS handshake, without the time in which it waits for its turn, and
	// the time that the head of a request takes from its first frame on.
	HandshakeTimeout time.Duration
	// Trusted says that TLS admits only those who may send what they like: nothing that they
	// send is metered.
	Trusted bool
	// MaxConnections bounds the connections, those in their TLS handshake among them. A newcomer
	// beyond takes the place of one of the address that has most which proved nothing; where all proved
	// something it waits in the queue of the system.
	MaxConnections int
	// MaxPerAddress bounds those of one address that proved nothing; a newcomer beyond
	// takes the place of the one that was silent for longest, or is refused where none
	// was for Silence.
	MaxPerAddress int
	// PerSecond and Burst limit the new connections of one address; one that comes faster
	// is closed before TLS. Zero PerSecond sets no limit.
	PerSecond float64
	Burst     int
	// Pings and Refusals limit the PINGs of a connection, beside those that its calls and its
	// data explain, and its requests that were refused. Who goes on is cut off. Zero means 5
	// and 200, and 100 and 2,000.
	Pings, Refusals Rate
	// HeaderBytes is how large the head of a request may be, so that who sends a few is not cut off
	// for that; below 32 KiB it changes nothing.
	HeaderBytes int
	// Silence is how long a connection that proved nothing has to be silent before a
	// newcomer of its address may take its place. After TLS one is silent that has no request served,
	// whatever else it says.
	Silence time.Duration
	// Key returns under which key an address counts.
	Key func(net.Addr) string
	// Context returns the context of a connection, made of the listener's, in which the
	// TLS handshake is made; nil means the listener's.
	Context func(context.Context) context.Context
	// Turns are those of the process, for which TLS handshakes wait; nil has none wait.
	Turns *turns.Process
	// CutOff is told of each connection that was cut off, and Refused of each TLS handshake that
	// failed and of each bound that a newcomer met: [ErrTooFast], [ErrNoPlace], [ErrDisplaced],
	// [ErrSlow], and [ErrFull], that one without an address where it would have to wait for it; of what is an
	// [ErrNoDeadlines]; and without an address of what is an [ErrNotAccepted]. They must not block. Nil tells nobody.
	CutOff  func(c *Conn, reason string)
	Refused func(addr net.Addr, err error)
}

// The bounds that a newcomer meets.
var (
	ErrTooFast   = errors.New("the address opens connections too fast")
	ErrNoPlace   = errors.New("the address has too many connections that proved nothing")
	ErrDisplaced = errors.New("the address has too many connections that proved nothing, and one that was silent made room")
	ErrFull      = errors.New("there are as many connections as there may be, and newcomers wait")
	ErrSlow      = errors.New("the TLS handshake took too long")
)

// Why a connection goes on to count against its address, see [Conn.Prove].
var (
	ErrHolderFull = errors.New("the holder has as many connections as it may")
	ErrKinFull    = errors.New("those who belong together have as many connections as they may")
)

// Rate is how many of something there may be: Burst at once, and PerSecond in the long run.
type Rate struct {
	PerSecond float64
	Burst     int
}

// Listener is a [net.Listener] whose connections are ready for HTTP/2.
type Listener struct {
	net.Listener

	// Fixed at creation.
	cfg       Config
	begun     time.Time
	life      context.Context //nolint:containedctx // ends with End, as the handshakes do
	end       context.CancelFunc
	shut      chan struct{} // closed with the listener
	ready     chan net.Conn
	tasks     sync.WaitGroup
	rates     *limiter.Limiter // of new connections, by key
	ample     *limiter.Limiter // of those that begin with all of what is free
	rules     rules
	leave     *Farewell
	asks      *intake           // of all connections for which nobody pays, those of each address in turn
	nobody    *owed             // by these together
	addresses heirs.Book[*owed] // by those of each address
	doubted   *turns.Turns      // of the addresses of which TLS handshakes were in vain
	midst     midst             // of heads, of connections for which nobody pays

	mu     sync.Mutex
	room   sync.Cond // tells the acceptor that a connection ended
	closed bool
	err    error // of the listener below
	all    map[*slot]struct{}
	shares map[string]*share // by key
	held   map[string]int    // connections of those who proved who they are, by name, and those of their kin
}

// Holder is who proved to have a connection.
type Holder struct {
	// Name is what its connections are counted by.
	Name string
	// Most is how many of its connections do not count against their addresses.
	Most int
	// Kin is by what those of all are counted that belong together with the holder, empty where none do, and
	// MostOfKin how many there may be of them.
	Kin       string
	MostOfKin int
	// Ended reports whether it is gone; nil means that it never is. A connection whose
	// holder is gone is the first to make room.
	Ended func() bool
}

// names are those by which its connections are counted.
func (h *Holder) names() []string {
	if h.Kin == "" {
		return []string{h.Name}
	}
	return []string{h.Name, h.Kin}
}

func (h *Holder) ended() bool { return h.Ended != nil && h.Ended() }

// share is what one address has.
type share struct {
	slots    map[*slot]struct{}
	unproven int
	turns    *turns.Turns
	owes     *owed // those that come later go on with it
	gone     atomic.Bool
}

// Listen begins to accept from l, which it closes.
func Listen(l net.Listener, cfg Config) *Listener {
	e := &Listener{
		Listener: l, cfg: cfg, begun: time.Now(), shut: make(chan struct{}), ready: make(chan net.Conn),
		all: map[*slot]struct{}{}, shares: map[string]*share{}, held: map[string]int{}, rules: usual,
		leave: NewFarewell(), asks: &intake{}, nobody: owedByMany(ofNobody), doubted: newTurns(),
	}
	e.rules.of[pings].limit(cfg.Pings)
	e.rules.of[refusals].limit(cfg.Refusals)
	e.rules.heads(float64(cfg.HeaderBytes))
	e.room.L = &e.mu
	e.rates, e.ample = limiter.New(maxRates), limiter.New(maxRates)
	e.life, e.end = context.WithCancel(context.Background())
	e.tasks.Go(e.accept)
	e.tasks.Go(func() { e.leave.Run(e.life) })
	return e
}

// Accept returns the next connection that agreed on TLS.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.ready:
		return c, nil
	case <-l.shut:
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.err != nil {
			return nil, l.err
		}
		return nil, net.ErrClosed
	}
}

// Close takes no more connections. Those that Accept returned stay, and handshakes on
// their way go on until End, though nobody serves what comes of them.
func (l *Listener) Close() error {
	l.close(nil)
	return l.Listener.Close() //nolint:wrapcheck // stands for what it wraps
}

// End closes the listener, ends the handshakes on their way and waits for them.
func (l *Listener) End() {
	_ = l.Close()
	l.end()
	l.tasks.Wait()
	l.leave.empty() // of those that were refused meanwhile
}

// maxRates bounds the addresses whose connections are limited one by one.
const maxRates = 65_536

// unplaced is the key of connections whose address is not known yet. No address has it.
const unplaced = ""

// Len returns the number of connections.
func (l *Listener) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.all)
}

// inTime reports whether the address of a connection may open one more by now. It may wait for the
// address, as place does.
func (l *Listener) inTime(c net.Conn) bool {
	if l.cfg.PerSecond == 0 || l.rates.Allow(l.cfg.Key(c.RemoteAddr()), l.cfg.PerSecond, l.cfg.Burst, time.Now()) {
		return true
	}
	l.tell(c.RemoteAddr(), ErrTooFast)
	return false
}

func (l *Listener) close(err error) {
	l.mu.Lock()
	if !l.closed {
		l.closed, l.err = true, err
		close(l.shut)
	}
	l.mu.Unlock()
	l.room.Broadcast()
}

// accept takes connections as long as there is room. One at most waits for it here, so that room is
// made for somebody who came, and not for nobody.
func (l *Listener) accept() {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			if !Passes(err) {
				l.close(err)
				return
			}
			l.endure(err)
			continue
		}
		known := directly(c) != nil
		if known && !l.inTime(c) { // who comes too fast is not worth a goroutine, nor anybody's place
			l.leave.TurnAway(c)
			continue
		}
		if !l.awaitRoom(c) {
			_ = c.Close()
			return
		}
		s := l.admit(c)
		if known && !l.place(s) {
			l.leave.TurnAway(c)
			continue
		}
		l.tasks.Go(func() {
			if !known && (!l.inTime(c) || !l.place(s)) {
				l.remove(s)
				l.leave.Take(c)
				return
			}
			l.welcome(s)
		})
	}
}

// awaitRoom waits until there is room for a connection, and makes some where another one
// has to go for it. It reports false once the listener is closed.
func (l *Listener) awaitRoom(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for told := false; !l.closed && len(l.all) >= l.cfg.MaxConnections; {
		if !told {
			told = true
			l.mu.Unlock()
			l.tell(addressOf(c), ErrFull)
			l.mu.Lock()
			continue
		}
		if victim := l.dispensableLocked(); victim != nil {
			l.displaceLocked(victim)
			continue
		}
		wake := time.AfterFunc(l.cfg.Silence, l.room.Broadcast)
		l.room.Wait()
		wake.Stop()
	}
	return !l.closed
}

// knocks reports that whoever is let in is trusted, and who is, is known after TLS: until then a
// connection is as old as it is, whatever it says.
func (l *Listener) knocks() bool { return l.cfg.Trusted && l.cfg.TLS != nil }

// admit takes a connection in.
func (l *Listener) admit(c net.Conn) *slot {
	s := &slot{listener: l, key: unplaced}
	s.conn = &audible{Conn: c, slot: s, sending: sending{direct: direct(c)}}
	s.heard()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all[s] = struct{}{}
	l.joinLocked(s)
	return s
}

// place gives a connection its place among those of its address, or says that there is
// none. It may wait for the address: that of a connection through a balancer is what its
// first bytes say, and nobody else waits for them.
func (l *Listener) place(s *slot) bool {
	placed, err := l.placeBy(s, l.cfg.Key(s.conn.RemoteAddr()))
	if err != nil {
		l.tell(s.conn.RemoteAddr(), err)
	}
	return placed
}

// addressOf returns the address of a connection, nil where it may be long until that is known.
func addressOf(c net.Conn) net.Addr {
	if directly(c) == nil {
		return nil
	}
	return c.RemoteAddr()
}

// tell says that a newcomer met a bound.
func (l *Listener) tell(addr net.Addr, err error) {
	if f := l.cfg.Refused; f != nil {
		f(addr, err)
	}
}

// placeBy is place where the key of the address is known. The error is the bound that was met.
func (l *Listener) placeBy(s *slot, key string) (placed bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.all[s]; !ok {
		return false, nil // it was displaced meanwhile
	}
	for mine := l.shares[key]; mine != nil && mine.unproven >= l.cfg.MaxPerAddress; mine = l.shares[key] {
		victim := l.silentLocked(mine.slots)
		if victim == nil {
			l.removeLocked(s)
			return false, ErrNoPlace
		}
		err = ErrDisplaced
		l.displaceLocked(victim)
	}
	l.partLocked(s)
	s.key = key
	s.owes = l.joinLocked(s).owes
	if l.cfg.TLS != nil {
		s.conn.turns = l.shares[key].turns
	}
	return true, err
}

// joinLocked counts a connection among those with its key, partLocked takes it out.
func (l *Listener) joinLocked(s *slot) *share {
	if l.shares[s.key] == nil {
		l.shares[s.key] = &share{slots: map[*slot]struct{}{}, turns: newTurns()}
		l.shares[s.key].owes = l.addresses.Inherit(s.key, l.shares[s.key].gone.Load, newOwed, (*owed).isRested)
	}
	l.shares[s.key].slots[s] = struct{}{}
	l.shares[s.key].unproven++
	return l.shares[s.key]
}

func (l *Listener) partLocked(s *slot) {
	mine := l.shares[s.key]
	delete(mine.slots, s)
	if s.holder.Load() == nil {
		mine.unproven--
	}
	if len(mine.slots) == 0 {
		mine.gone.Store(true)
		delete(l.shares, s.key)
	}
}

func (l *Listener) releaseLocked(by *Holder) {
	for _, name := range by.names() {
		if l.held[name]--; l.held[name] == 0 {
			delete(l.held, name)
		}
	}
}

// dispensableLocked returns the slot that makes room where all are taken, nil for none: one whose holder is
// gone, or else, of the address that has most which proved nothing, the one that was silent for longest. So
// whoever has few connections, and has just come, keeps them however many come from elsewhere. Who was let in
// as trusted has to be silent for long enough, too.
func (l *Listener) dispensableLocked() *slot {
	if l.cfg.Trusted {
		return l.silentLocked(l.all)
	}
	gone, found := idlest(l.all)
	if gone || found == nil {
		return found
	}
	var most int
	for _, s := range l.shares {
		if s.unproven < most || s.unproven == 0 {
			continue
		}
		if _, longest := idlest(s.slots); s.unproven > most || longest.before(found) {
			most, found = s.unproven, longest
		}
	}
	return found
}

// silentLocked returns a slot whose holder is gone, or else the one that proved nothing and
// was silent for longest, nil where none was for long enough.
func (l *Listener) silentLocked(among map[*slot]struct{}) *slot {
	gone, found := idlest(among)
	if !gone && found != nil && time.Since(l.begun)-time.Duration(found.last.Load()) < l.cfg.Silence {
		return nil
	}
	return found
}

// idlest returns a slot whose holder is gone, or else the one that proved nothing and was silent for longest.
func idlest(among map[*slot]struct{}) (gone bool, found *slot) {
	for s := range among {
		by := s.holder.Load()
		if by != nil && by.ended() {
			return true, s
		}
		if by == nil && (found == nil || s.before(found)) {
			found = s
		}
	}
	return false, found
}

func (l *Listener) displaceLocked(s *slot) {
	l.removeLocked(s)
	go func() { _ = s.conn.Close() }()
}

func (l *Listener) remove(s *slot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.removeLocked(s)
}

func (l *Listener) removeLocked(s *slot) {
	if _, ok := l.all[s]; !ok {
		return
	}
	delete(l.all, s)
	l.partLocked(s)
	if by := s.holder.Load(); by != nil {
		l.releaseLocked(by)
	}
	s.over(time.Now())
	l.room.Broadcast()
}

// welcome agrees on TLS with a peer and hands its connection on.
func (l *Listener) welcome(s *slot) {
	if err := lacksDeadlines(s.conn.Conn); err != nil { // by now a balancer's header, which may have one, was read
		s.free()
		l.tell(s.conn.RemoteAddr(), err)
		l.leave.Take(s.conn.Conn)
		return
	}
	c := &Conn{Conn: s.conn, below: s.conn, slot: s, ctx: l.life, gone: make(chan struct{})}
	c.intake.Store(l.asks)
	if f := l.cfg.Context; f != nil {
		c.ctx = f(l.life)
	}
	if l.cfg.TLS != nil {
		conn, state, err := l.secure(c.ctx, s.conn)
		if err != nil {
			answerPlaintext(err)
			_ = s.conn.Close()
			s.free()
			if l.life.Err() == nil {
				l.tell(s.conn.RemoteAddr(), err)
			}
			return
		}
		c.Conn, c.state = conn, state
		if !l.cfg.Trusted {
			c.meter = l.newMeter(s)
			s.conn.metered = c
		}
	}
	select {
	case l.ready <- c:
	case <-l.life.Done():
		_ = c.Close()
	}
}
