package h2

import (
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/h2frame"
)

// Stream is one request and its response. One goroutine may read the response
// while another writes the request; Cancel is safe from any. Close ends it for whoever
// still waits on it, and has to be called.
type Stream struct {
	// Fixed at creation.
	c  *Conn
	id uint32
	at int64 // where its first frame is in all that is sent

	ahead  *Ahead
	holder Holder
	payer  Payer
	// Told of changes while c.mu is held, which is theirs.
	wake     sync.Cond // there is something to read
	sendWake sync.Cond // there may be room to send

	// Guarded by c.mu.
	err         error // why it broke
	status      int   // 0 until the response's headers are there
	fields      []hpack.HeaderField
	trailer     []hpack.HeaderField
	eof         bool // the response is complete
	sentEnd     bool // the request is complete
	closed      bool // no longer on the wire
	queued      bool // in c.waiters
	dirty       bool // in c.woken
	interim     int
	named       int         // header fields that came, of all heads
	expected    Reserved    // what was counted of the answer before it came
	small       int         // frames with next to nothing in them, since they were counted
	paced       *time.Timer // until the reader is told of what came; nil where it may know
	body        *Buffer
	stated      int64  // bytes of the body still to come, -1 if not stated
	over        func() // told that nobody wants the rest of the request; nil once it was, or where nobody is
	head        bool   // the response states the length of a body that it lacks
	gather      bool   // the reader waits for the whole body, or much of it
	whole       bool   // however long that takes
	holding     bool   // in c.held, or was and is gathered no more
	lifted      bool   // gathering was ended, which the reader does not know yet
	windowMoved int64  // what its send window differs from the initial one
	share       *share // nil once the request is off the wire
	recvWindow  int64
	credit      int64 // bytes that were read and not yet given back to the window
	lent        int64 // bytes that are being read, of a stream that is not wide
	long        bool  // it came faster than it was read, and there is more of it
	wide        bool  // the server may send far ahead, which ahead pays for
}

// Request is what [Conn.Open] sends.
type Request struct {
	// Fields are in lower case, the pseudo-header fields first. Those that are sensitive or large take no place in
	// the connection's table of fields.
	Fields []hpack.HeaderField
	// Own are further fields, which take none either: what a caller chooses. Nil is none.
	Own *Literals
	// Body is the beginning of the body.
	Body []byte
	// End says that Body is all of it.
	End bool
	// Gather has the response handed over when it is complete, or in large
	// parts, as long as that takes a few milliseconds at most.
	Gather bool
	// Whole has it gathered however long that takes: a part of it is of no use to anybody.
	// One that breaks before it is complete, and before it is large, has no head either.
	Whole bool
	// Aside has the request written by a goroutine of the connection's, so that Open
	// does not wait for a server that reads slowly.
	Aside bool
	// Head says that the response has no body, whatever length it states.
	Head bool
	// Over is called, on a goroutine of its own, if the response is complete or the
	// stream has broken while the request is not complete: nobody wants the rest of it.
	// Nil calls nobody.
	Over func()
	// Ahead pays for what the server may send ahead where the response is long. Nil does not
	// bound that.
	Ahead *Ahead
	// Holder pays for a large head of the response, and for its trailer; where it has no room the stream breaks with
	// [ErrHeld]. Nil takes all of them.
	Holder Holder
	// Owner is who shares what the stream takes of the connection's send
	// window with other streams of the same name.
	Owner string
	// Payer is for whom [Config.Pace] counts what comes, and Expected what [Pace.Reserve] counted of it already.
	Payer    Payer
	Expected Reserved
	// Reserved says that the place that [Conn.Reserve] took is for it. Open gives it back
	// where it fails.
	Reserved bool
}

// size is the size of the header list (RFC 9113, section 6.5.2).
func (r *Request) size() int64 {
	var n int64
	for _, f := range r.Fields {
		n += int64(f.Size())
	}
	if r.Own != nil {
		n += r.Own.size
	}
	return n
}

// Open sends a request and as much of its body as the server takes at once. The
// rest is returned and has to be written. Errors are [ErrClosed], [ErrFull] and
// [ErrTooLarge], when nothing was sent; every other failure shows on the stream.
func (c *Conn) Open(r Request) (*Stream, []byte, error) {
	s := &Stream{
		c: c, gather: r.Gather || r.Whole, whole: r.Whole, head: r.Head, over: r.Over, stated: -1,
		recvWindow: leastAhead, ahead: r.Ahead, holder: r.Holder, payer: r.Payer, expected: r.Expected,
	}
	s.wake.L, s.sendWake.L = &c.mu, &c.mu
	size := r.size()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.admitLocked(s, size, r.Reserved); err != nil {
		if r.Reserved {
			c.load.Add(-1)
		}
		return nil, nil, err
	}
	body := r.Body
	s.sentEnd = r.End && len(body) == 0
	if !s.sentEnd {
		c.joinShareLocked(s, r.Owner)
	}
	c.headSentLocked()
	s.at = c.taken + int64(len(c.out))
	c.out = h2frame.AppendHeaders(c.out, s.id, c.encodeLocked(&r), s.sentEnd, c.peer.maxFrame)
	for len(body) > 0 {
		rest := c.sendLocked(s, body, r.End)
		if len(rest) == len(body) {
			break
		}
		body = rest
	}
	if r.Aside {
		c.flushElsewhereLocked()
	} else {
		c.flushLocked()
	}
	return s, body, nil
}

// admitLocked gives s, whose fields are of the given size, a place on the wire.
func (c *Conn) admitLocked(s *Stream, size int64, reserved bool) error {
	switch {
	case size > c.peer.maxHeader:
		return ErrTooLarge
	case c.overLocked() || c.draining:
		return ErrClosed
	case c.nextID > maxStreamID:
		c.usable.Store(false)
		return errStreamsSpent
	case len(c.out) >= openWater:
		c.choked.Store(true)
		return ErrFull
	case !reserved && c.Full():
		return ErrFull
	case reserved && c.load.Load() > c.limit.Load(): // the server lowered it meanwhile
		return ErrFull
	}
	s.id = c.nextID
	c.nextID += 2
	c.streams[s.id] = s
	if !reserved {
		c.load.Add(1)
	}
	return nil
}

// Write sends more of the request's body, and its end if end is set. It waits
// for the server's flow control. An error is the one that ended the stream.
func (s *Stream) Write(p []byte, end bool) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if s.closed || s.sentEnd || s.eof {
			return s.endLocked()
		}
		before := len(p)
		p = c.sendLocked(s, p, end)
		if len(p) == 0 {
			c.flushLocked() // and that wakes the next one
			return nil
		}
		if len(p) < before {
			continue
		}
		c.flushLocked()
		if s.closed || s.eof || c.budgetLocked(s, len(p)) > 0 { // while it wrote
			continue
		}
		c.queueLocked(s)
		c.wakeWaiterLocked() // what s may not take another may
		s.sendWake.Wait()
		c.unqueueLocked(s)
	}
}

// Head waits for the response and returns its status and its fields, in lower
// case. The fields are the caller's: the stream does not keep them.
func (s *Stream) Head() (int, []hpack.HeaderField, error) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case s.err == nil && s.paced != nil:
		case s.eof, s.status != 0 && (s.err == nil || !s.gather) && s.readyLocked():
			s.lifted = false
			fields := s.fields
			s.fields = nil
			return s.status, fields, nil
		case s.err != nil:
			return 0, nil, s.err
		}
		s.wake.Wait()
	}
}

// Paused reports that Next would wait, and that the response is not being
// gathered: what there was of it should be passed on.
func (s *Stream) Paused() bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return !s.gather && (!s.eof || s.paced != nil) && s.err == nil && s.body == nil
}

// Next waits for more of the response's body and returns all that is there, and
// whether that was the end. The buffer may be nil: at the end, and when the
// gathering of the response has just ended. The caller owns the
// buffer and releases it. What came before a failure is returned before the
// error.
func (s *Stream) Next() (*Buffer, bool, error) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s.awaitLocked()
	switch {
	case s.body != nil && s.readyLocked():
		b := s.body
		s.body = nil
		if s.wide {
			s.creditLocked(int64(len(b.B)))
		} else {
			s.lent = int64(len(b.B))
		}
		return b, s.eof && s.paced == nil, nil
	case s.eof:
		return nil, true, nil
	case s.err != nil:
		return nil, false, s.err
	}
	s.lifted = false
	return nil, false, nil
}

// Await returns when Next would not wait. It is for who calls Next, and uses less of its stack.
func (s *Stream) Await() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.awaitLocked()
}

// Trailer returns the response's trailer, in lower case. It is complete when
// Next reported the end.
func (s *Stream) Trailer() []hpack.HeaderField {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.trailer
}

// Cancel breaks the stream off: everything that waits on it returns err, and the
// server is told. After the end of the response it only stops the request.
func (s *Stream) Cancel(err error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.resetLocked(s, err, http2.ErrCodeCancel)
}

// Close ends the stream and releases what it holds.
func (s *Stream) Close() {
	c := s.c
	c.mu.Lock()
	c.resetLocked(s, ErrClosed, http2.ErrCodeCancel)
	s.body.Release()
	s.body, s.fields, s.trailer = nil, nil, nil
	s.narrowLocked()
	last := c.draining && len(c.streams) == 0
	c.mu.Unlock()
	if last {
		c.fail(ErrClosed)
	}
}

// awaitLocked waits until Next has something to say.
func (s *Stream) awaitLocked() {
	s.creditLocked(s.lent) // who asks for more is done with it
	if s.long && s.lent > 0 && !s.eof {
		s.widenLocked()
	}
	s.lent = 0
	for s.waitsLocked() {
		s.wake.Wait()
	}
}

// waitsLocked reports whether Next has nothing to say yet.
func (s *Stream) waitsLocked() bool {
	switch {
	case s.err != nil:
		return false
	case s.paced != nil:
		return s.body == nil || !s.eof // what came before a trailer does not wait for it
	default:
		return !s.eof && !s.lifted && (s.body == nil || !s.readyLocked())
	}
}

// windowLocked is how much the server takes ahead on the stream.
func (s *Stream) windowLocked() int64 { return s.c.peer.window + s.windowMoved }

// endLocked returns why nothing more can be sent.
func (s *Stream) endLocked() error {
	s.c.wakeWaiterLocked()
	if s.err != nil {
		return s.err
	}
	return ErrClosed
}

// readyLocked reports whether the reader wants to know what there is.
func (s *Stream) readyLocked() bool {
	if !s.gather || s.eof || s.err != nil {
		return true
	}
	return s.body != nil && (len(s.body.B) >= gatherBody || s.crampedLocked())
}

// aheadLocked is how much the server may send before somebody reads.
func (s *Stream) aheadLocked() int64 {
	if s.wide {
		return streamWindow
	}
	return leastAhead
}

// creditLocked gives n bytes back to the stream's window, in large steps.
func (s *Stream) creditLocked(n int64) {
	s.credit += n
	if s.eof || s.closed || s.credit < s.aheadLocked()/2 {
		return
	}
	s.grantLocked(s.credit)
	s.credit = 0
}

// resetLocked breaks a stream off that is still on the wire.
func (c *Conn) resetLocked(s *Stream, err error, code http2.ErrCode) {
	if s.closed {
		if s.paced != nil { // nobody waits any more for what came
			s.paced.Stop()
			s.paced = nil
			s.wake.Broadcast()
		}
		return
	}
	c.out = h2frame.AppendReset(c.out, s.id, code)
	c.control += h2frame.HeadLen
	if !s.eof {
		c.abandoned.Add(1)
	}
	c.failStreamLocked(s, err)
	c.flushElsewhereLocked()
}

// failStreamLocked takes a stream off the wire and wakes its users.
func (c *Conn) failStreamLocked(s *Stream, err error) {
	if s.err == nil {
		s.err = err
	}
	c.removeLocked(s)
	s.wake.Broadcast()
	s.overLocked()
}

// overLocked says that the rest of the request is not wanted.
func (s *Stream) overLocked() {
	if s.over != nil && !s.sentEnd {
		go s.over()
	}
	s.over = nil
}

// removeLocked takes a stream off the wire.
func (c *Conn) removeLocked(s *Stream) {
	if s.closed {
		return
	}
	s.closed = true
	if !s.eof {
		c.worth.leave(s.recvWindow)
		c.lateLocked(s)
	}
	delete(c.streams, s.id)
	c.load.Add(-1)
	c.unqueueLocked(s)
	c.leaveShareLocked(s)
	s.sendWake.Broadcast()
}
