package edge

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// errEnhanceYourCalm is the code of the GOAWAY to who is cut off (RFC 9113, section 7).
const errEnhanceYourCalm = 0xb

// parting is how long a peer that is cut off may take to read why.
const parting = time.Second

// ErrCutOff is what reading gives on a connection whose peer was cut off.
var ErrCutOff = errors.New("connection cut off: its frames cost more than its requests explain")

// Conn is one connection. It is safe for concurrent use as a [net.Conn] is.
type Conn struct {
	net.Conn

	// Fixed at creation.
	ctx   context.Context      //nolint:containedctx // of the whole connection
	state *tls.ConnectionState // nil in plaintext
	below *audible
	slot  *slot
	gone  chan struct{} // closed with the connection

	once    sync.Once
	account atomic.Pointer[Account] // nil where nobody pays
	intake  atomic.Pointer[intake]  // of who pays, or else that of all for which nobody does
	held    held                    // of who reads
	head    heading
	carried int     // reads that brought something, and of which the records of TLS were not counted
	cost    float64 // so far, beside what it is for, as requests are counted

	refused  atomic.Int64 // requests, since who reads looked
	answered atomic.Int64 // and those of anybody that were served

	writing sync.Mutex // held during a write, and taken before mu
	parts   bool       // guarded by writing: the peer is to be told why it is cut off

	mu     sync.Mutex
	meter  *meter        // nil in plaintext, and where the peer is trusted
	cut    chan struct{} // closed when the peer, who is cut off, was told so; nil where it is not
	closed bool          // no account counts it any more
}

// Context returns the context of the connection, see [Config].
func (c *Conn) Context() context.Context { return c.ctx }

// Abort ends the connection without a word, which takes no time.
func (c *Conn) Abort() {
	_ = c.slot.conn.Close()
	c.slot.free()
}

// TLS returns the state of TLS, nil in plaintext. It must not be changed.
func (c *Conn) TLS() *tls.ConnectionState { return c.state }

// Prove says who the peer proved to be: from now on it counts against that and not against
// its address, if the holder has room for it. The error is [ErrHolderFull], [ErrKinFull], or
// [net.ErrClosed] where the connection has ended.
func (c *Conn) Prove(by Holder) error { return c.slot.prove(by) }

// Proven reports whether somebody proved to have the connection.
func (c *Conn) Proven() bool { return c.slot.holder.Load() != nil }

// Bill has an account pay for what the connection carries from now on. In debt the connection
// waits for each piece of it, a second at most. Requests on all connections of an account are
// taken on as those of one peer.
func (c *Conn) Bill(a *Account) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if former := c.account.Swap(a); former != a && !c.closed {
		former.count(-1)
		a.count(1)
	}
	c.intake.Store(a.intake)
	if c.meter != nil {
		c.meter.bill()
	}
}

// Sharers returns how many connections there are of whoever pays for this one: what one of them may
// make a server keep, all of them may.
func (c *Conn) Sharers() int {
	if a := c.account.Load(); a != nil {
		return int(a.conns.Load())
	}
	return 1
}

// Began says that a request of the peer is being served: the next one may be, too.
func (c *Conn) Began() {
	if c.meter != nil {
		c.intake.Load().began()
	}
}

// Ended says that a request of the peer has ended, whatever came of it: another is taken on.
func (c *Conn) Ended() {
	if c.meter != nil {
		c.intake.Load().ended()
	}
}

// Served says that a request of the peer was served, as one whose caller is known or as one of anybody. It
// pays for frames to come, and the peer was heard.
func (c *Conn) Served(known bool) {
	c.slot.heard()
	if c.meter == nil {
		return
	}
	if known {
		c.account.Load().served(time.Now())
	} else {
		c.answered.Add(1)
	}
	c.mu.Lock()
	c.meter.served(known)
	c.mu.Unlock()
}

// Decoded says how much larger header fields of the peer were than the blocks they came in, and what those
// count that are more than is usual: who pays for the connection, or else everybody at the peer's address together, waits for
// these: in the midst of a head for which the connection has a seat not before that is whole, as others wait for the seat. It reports
// false where the peer is cut off, for that or for something else. It is for who reads.
func (c *Conn) Decoded(beyond, many int) bool {
	if c.meter == nil {
		return true
	}
	now := time.Now()
	by := c.intake.Load()
	if by == c.slot.listener.asks {
		by = &c.slot.owes.heads
	}
	if wait := by.heavy(many, now); wait > 0 && c.head.seated {
		c.head.later = max(c.head.later, wait)
	} else {
		c.waitFor(wait)
	}
	c.mu.Lock()
	c.meter.decoded(beyond, now)
	tooMany := c.tooMuchLocked(headerBytes)
	told := c.cut
	c.mu.Unlock()
	switch {
	case tooMany:
		c.cutOff(cutFor + headerBytes.String())
	case told != nil:
		<-told // as in allows
	}
	return told == nil
}

// Refused says that a request of the peer was refused. Who goes on asking is cut off, or waits
// where an account pays.
func (c *Conn) Refused() {
	if c.meter == nil {
		return
	}
	now := time.Now()
	if a := c.account.Load(); a != nil { // cut off it would come again, which costs more
		a.refused(now)
		a.intake.refused(now)
		c.mu.Lock() // a stream that is reset because its request was refused is paid for
		c.meter.left[refusals] = min(c.meter.left[refusals]+1, c.meter.rule(refusals).keep())
		c.mu.Unlock()
		return
	}
	c.refused.Add(1)
	c.mu.Lock()
	c.meter.fill(now)
	c.meter.left[refusals]--
	tooMany := c.tooMuchLocked(refusals)
	c.mu.Unlock()
	if tooMany {
		c.cutOff(cutFor + refusals.String())
	}
}

// Stray says how many bytes the peer sent for streams that had ended, and not only before it could
// know. Who goes on is cut off.
func (c *Conn) Stray(n int) {
	if c.meter == nil {
		return
	}
	now := time.Now()
	c.mu.Lock()
	c.meter.fill(now)
	c.meter.take(strays, float64(n))
	tooMany := c.tooMuchLocked(strays)
	c.mu.Unlock()
	if tooMany {
		c.cutOff(cutFor + strays.String())
	}
}

// TooLong says that the peer sends a header block which is longer than anything explains: it is cut off.
// It reports false where nobody counts.
func (c *Conn) TooLong() bool {
	if c.meter == nil {
		return false
	}
	c.mu.Lock()
	cut := c.cut == nil
	if cut {
		c.cut = make(chan struct{})
	}
	c.mu.Unlock()
	if cut {
		c.cutOff(CutOffBlock)
	}
	return true
}

// Read reads what the peer sent, as long as that costs what useful work explains, and no faster
// than its requests are taken on.
func (c *Conn) Read(p []byte) (int, error) {
	c.pause()
	if !c.head.seated {
		c.waitFor(c.head.later)
		c.head.later = 0
	}
	if c.held.waits {
		c.held.waits = false
		c.intake.Load().wait(c.slot.who(), c.held.cut, c.gone)
		c.waitFor(c.account.Load().patience(time.Now()))
	}
	if len(c.held.bytes) > 0 {
		if !c.abide(c.together(0, 0, time.Now())) {
			return 0, ErrCutOff
		}
		return c.release(p)
	}
	n, err := c.readOn(p)
	if n == 0 {
		return n, err
	}
	c.carried++
	now := time.Now()
	c.account.Load().spend(n, now)
	if c.meter == nil {
		return n, err
	}
	if !c.allows(p[:n], now) {
		return 0, ErrCutOff
	}
	seated := c.head.seated
	if !c.abide(c.together(c.meter.little, c.meter.gaveUp, now)) {
		return 0, ErrCutOff
	}
	if most := c.takeOn(c.meter.opens, c.upTo(n, seated), now); most < n {
		return c.hold(p[:n], most), nil // the error comes again
	}
	return n, err
}

// Write writes what the server answers.
func (c *Conn) Write(p []byte) (int, error) {
	c.pause()
	c.account.Load().spend(len(p), time.Now())
	if c.meter == nil {
		return c.Conn.Write(p) //nolint:wrapcheck // stands for what it wraps
	}
	c.writing.Lock()
	c.mu.Lock()
	told := c.cut
	c.mu.Unlock()
	if told != nil {
		c.writing.Unlock()
		<-told // as in allows
		return 0, ErrCutOff
	}
	defer c.writing.Unlock()
	n, err := c.Conn.Write(p)
	c.mu.Lock()
	c.meter.sent(p[:n])
	tooMany := c.tooMuchLocked(refusals)
	c.mu.Unlock()
	if tooMany {
		c.partLocked(cutFor + refusals.String())
	}
	return n, err //nolint:wrapcheck // stands for what it wraps
}

// Close closes the connection and gives its place to another.
func (c *Conn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		close(c.gone)
		err = c.Conn.Close()
		c.slot.free()
		c.slot.listener.midst.leave(c)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.closed = true
		c.account.Load().count(-1)
	})
	return err //nolint:wrapcheck // stands for what it wraps
}

// tooMuchLocked reports whether the peer is to be cut off now for one kind.
func (c *Conn) tooMuchLocked(k kind) bool {
	if c.cut != nil || c.meter.left[k] >= 0 {
		return false
	}
	c.cut = make(chan struct{})
	return true
}

// pause waits until the account has paid for its bytes.
func (c *Conn) pause() { c.waitFor(c.account.Load().Debt(time.Now())) }

// waitFor waits, a second at most.
func (c *Conn) waitFor(d time.Duration) {
	if d == 0 {
		return
	}
	t := time.NewTimer(min(d, longestPause))
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.gone:
	}
}

// allows meters what the peer sent, and cuts it off where that is too much. Of who is cut off it says
// so when that was told: whoever reads closes the connection then.
func (c *Conn) allows(p []byte, now time.Time) bool {
	c.mu.Lock()
	if told := c.cut; told != nil {
		c.mu.Unlock()
		<-told // within the time that the parting has
		return false
	}
	k, tooMany := c.meter.received(p, now)
	if tooMany {
		c.cut = make(chan struct{})
	}
	c.mu.Unlock()
	if tooMany {
		c.cutOff(cutFor + k.String())
	}
	return !tooMany
}

// cutOff tells the peer why, where the last frame is whole. That nothing can be read any more ends
// the connection.
func (c *Conn) cutOff(reason string) {
	_ = c.SetDeadline(time.Now().Add(parting)) // also of what is being written
	c.writing.Lock()
	defer c.writing.Unlock()
	c.partLocked(reason)
}

// partLocked is cutOff where nobody else writes.
func (c *Conn) partLocked(reason string) {
	_ = c.SetDeadline(time.Now().Add(parting))
	c.mu.Lock()
	between, last := c.meter.between(), c.meter.last
	defer close(c.cut)
	c.mu.Unlock()
	if between {
		_, _ = c.Conn.Write(goAway(last, reason))
	}
	if a := c.account.Load(); a != nil {
		a.intake.cutOff(time.Now())
	}
	c.slot.cutOff(c, reason)
}

// goAway is a GOAWAY frame (RFC 9113, section 6.8).
func goAway(last uint32, reason string) []byte {
	const fixed = 8
	out := make([]byte, headerLen, headerLen+fixed+len(reason))
	binary.BigEndian.PutUint16(out[1:], uint16(fixed+len(reason))) //nolint:gosec // a reason is short
	out[3] = frameGoAway
	out = binary.BigEndian.AppendUint32(out, last)
	out = binary.BigEndian.AppendUint32(out, errEnhanceYourCalm)
	return append(out, reason...)
}

// slot is the place that a connection takes from the moment it is accepted.
type slot struct {
	listener *Listener
	key      string
	owes     *owed                  // of its address, nil before that is known
	conn     *audible               // as accepted
	holder   atomic.Pointer[Holder] // who proved to have it, nil for nobody; set under the listener's lock
	last     atomic.Int64           // when the peer was heard last, or served after TLS, as the listener's age
}

// before reports whether its peer has been silent for longer than another's.
func (s *slot) before(other *slot) bool { return s.last.Load() < other.last.Load() }

func (s *slot) heard() { s.last.Store(int64(time.Since(s.listener.begun))) }

// prove gives the slot to a holder that has room for it, unless one that ends some day has it
// and lives.
func (s *slot) prove(by Holder) error {
	l := s.listener
	l.mu.Lock()
	defer l.mu.Unlock()
	if !s.yields(by) {
		return nil
	}
	switch _, ok := l.all[s]; {
	case !ok:
		return net.ErrClosed
	case l.held[by.Name] >= by.Most:
		return ErrHolderFull
	case by.Kin != "" && l.held[by.Kin]-s.takes(by.Kin) >= by.MostOfKin:
		return ErrKinFull
	}
	if former := s.holder.Load(); former != nil {
		l.releaseLocked(former)
	} else {
		l.shares[s.key].unproven--
		s.owes.known.Add(1)
	}
	for _, name := range by.names() {
		l.held[name]++
	}
	s.holder.Store(&by)
	return nil
}

// takes is how many of the connections of a kin the slot is already, which another holder of it takes over.
func (s *slot) takes(kin string) int {
	if former := s.holder.Load(); former != nil && former.Kin == kin {
		return 1
	}
	return 0
}

// who is whoever has the slot, or else its address.
func (s *slot) who() string {
	if by := s.holder.Load(); by != nil {
		return by.Name
	}
	return s.key
}

func (s *slot) yields(by Holder) bool {
	former := s.holder.Load()
	return former == nil || former.ended() || former.Ended == nil && by.Ended != nil
}

func (s *slot) free() { s.listener.remove(s) }

func (s *slot) cutOff(c *Conn, reason string) {
	if f := s.listener.cfg.CutOff; f != nil {
		f(c, reason)
	}
}
