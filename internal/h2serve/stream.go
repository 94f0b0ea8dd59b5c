package h2serve

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/h2frame"
	"github.com/masegraye/connect-plugin-go/internal/late"
)

// Errors of the body of a request.
var (
	errLength  = errors.New("the request has another length than it states")
	errReset   = errors.New("the peer has reset the stream")
	errLingers = errors.New("too many responses wait for the peer")
)

func resetError(code http2.ErrCode) error { return fmt.Errorf("%w: %s", errReset, code) }

// stream is one request and its response. It is the request's body, too.
type stream struct {
	// Fixed at creation.
	c       *conn
	id      uint32
	req     *http.Request // until it is served
	large   bool          // its head is larger than is taken
	ctx     late.Context  // of the request: whatever breaks the stream, or serves it, ends it
	trailer http.Header   // of the request, nil for none: the handler's, filled when it reads the end of the body

	// Guarded by c.mu.
	can        sync.Cond // something below changed
	unread     queue     // of the request's body
	readErr    error     // after unread; io.EOF at its end
	recvWindow int64
	credit     int64       // of it that was read and is not given back yet
	arrived    http.Header // of trailer, before the handler has read so far
	declared   int64       // bytes of the body still to come, -1 if not stated
	expects    bool        // the peer waits for 100 before it sends the body
	remote     bool        // the request is complete
	closed     bool        // off the wire
	window     int64       // that the peer takes
	err        error       // why no more can be sent
	timers     [2]*time.Timer
	served     bool     // the handler has returned
	leave      func()   // gives back the place in which the rest of the response waits; nil where it does not
	last       bool     // what is being sent ends the response, but for its trailer
	brief      bool     // and it is short
	blocked    bool     // among those of c
	waits      bool     // its handler does, to send
	turn       bool     // it was woken to send, and counts among those
	lasting    *Lasting // nil unless the response outlasts its handler

	// In the same place, as each request has them.
	response response // of the handler
	outlasts Lasting  // of lasting
}

// Read implements io.Reader.
func (st *stream) Read(p []byte) (int, error) {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if n := st.unread.take(p); n > 0 {
			st.readLocked(int64(n))
			if st.unread.length > 0 || !errors.Is(st.readErr, io.EOF) {
				return n, nil
			}
			return n, st.endLocked()
		}
		if st.readErr != nil {
			return 0, st.endLocked()
		}
		if len(p) == 0 {
			return 0, nil
		}
		st.invite()
		st.can.Wait()
	}
}

// Close implements io.Closer: nobody reads the rest.
func (st *stream) Close() error {
	st.stopReading(http.ErrBodyReadAfterClose)
	return nil
}

// wakeLocked has whoever waits for the stream look again.
func (st *stream) wakeLocked() {
	st.can.Broadcast()
	if st.lasting != nil {
		st.lasting.goOnLocked()
	}
}

// endLocked returns what whoever read everything is told, after the trailer is there for it.
func (st *stream) endLocked() error {
	if errors.Is(st.readErr, io.EOF) {
		maps.Copy(st.trailer, st.arrived)
		st.arrived = nil
	}
	return st.readErr
}

// serve runs the handler.
func (st *stream) serve() {
	r := st.req
	st.req = nil // the handlers of streams that last have others, and let go of it
	w := &st.response
	*w = response{st: st, header: http.Header{}, declared: -1, bodiless: r.Method == http.MethodHead}
	defer st.returned()
	finished := false
	defer func() {
		p := recover()
		if finished {
			return
		}
		// Without a panic the handler has ended its goroutine.
		if err, ok := p.(error); p != nil && (!ok || !errors.Is(err, http.ErrAbortHandler)) {
			st.c.s.cfg.Log.Debug(fmt.Sprintf("http: panic serving %s: %v\n%s", st.c.remote, p, debug.Stack()))
		}
		w.release()
		st.c.mu.Lock()
		defer st.c.mu.Unlock()
		st.c.resetLocked(st.id, http2.ErrCodeInternal, http.ErrAbortHandler)
	}()
	handler := st.c.s.cfg.Handler
	if st.large {
		handler = st.c.s.cfg.TooLarge
	}
	handler.ServeHTTP(w, r)
	if st.lasting == nil {
		w.end()
	}
	finished = true
}

// returned takes in that the handler has returned.
func (st *stream) returned() {
	if st.lasting != nil {
		st.response.header, st.response.head = nil, nil // the head was sent
		st.lasting.owner.Begin(st.lasting)
		return
	}
	st.ctx.End(nil)
	st.done()
}

// left gives the place back in which the rest of the response waited.
func (st *stream) left() {
	if st.leave != nil {
		st.leave()
	}
}

// done takes in that the request was served.
func (st *stream) done() {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range st.timers {
		if t != nil {
			t.Stop()
		}
	}
	st.unread.clear() // nobody reads it any more
	c.running--
	c.quietLocked()
}

// breakLocked ends a stream for its handler and takes it off the wire.
func (st *stream) breakLocked(err error) {
	if st.readErr == nil {
		st.readErr = err
	}
	if st.err == nil {
		st.err = err
	}
	st.closeLocked()
	st.ctx.End(nil)
}

// closeLocked takes a stream off the wire.
func (st *stream) closeLocked() {
	if st.closed {
		return
	}
	st.closed = true
	c := st.c
	if !st.remote {
		c.underway += max(st.recvWindow, 0)
	}
	c.creditLocked(int64(st.unread.length))
	delete(c.streams, st.id)
	c.unblockLocked(st)
	st.wakeLocked()
	c.quietLocked()
}

// resetLocked resets a stream, with what its handler is told.
func (c *conn) resetLocked(id uint32, code http2.ErrCode, err error) {
	st := c.streams[id]
	if st == nil && code == http2.ErrCodeInternal {
		return // it has ended
	}
	c.dropHalfLocked(id)
	c.out = h2frame.AppendReset(c.out, id, code)
	c.flushElsewhereLocked()
	if st != nil {
		st.breakLocked(err)
	}
}

// takeLocked takes in data of a frame of a length, which counts its padding.
func (st *stream) takeLocked(data []byte, length int64) {
	if st.declared >= 0 {
		st.declared -= int64(len(data))
	}
	if st.readErr != nil { // nobody reads it
		st.c.creditLocked(int64(len(data)))
		return
	}
	st.credit += length - int64(len(data))
	st.unread.put(data)
	st.can.Broadcast()
}

// uploadedLocked notes that the request is complete.
func (st *stream) uploadedLocked() error {
	if st.declared > 0 {
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeProtocol, Cause: errLength}
	}
	st.remote = true
	if st.readErr == nil {
		st.readErr = io.EOF
	}
	st.can.Broadcast()
	return nil
}

// invite tells a peer that waits for it to send the body.
func (st *stream) invite() {
	if st.expects && !st.closed {
		st.expects = false
		st.c.headLocked(st, "100", nil, false)
		st.c.flushElsewhereLocked()
	}
}

// readLocked gives n bytes that were read back to the windows, in large steps.
func (st *stream) readLocked(n int64) {
	c := st.c
	if st.closed {
		return // given back when it was closed
	}
	c.creditLocked(n)
	if st.credit += n; st.remote || st.credit < int64(c.s.cfg.StreamWindow)/2 {
		return
	}
	c.out = h2frame.AppendWindowUpdate(c.out, st.id, uint32(st.credit)) //nolint:gosec // at most the window
	st.recvWindow += st.credit
	st.credit = 0
	c.flushElsewhereLocked()
}

func (st *stream) stopReading(err error) {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	st.stopReadingLocked(err)
}

func (st *stream) stopReadingLocked(err error) {
	c := st.c
	n := int64(st.unread.clear())
	if !st.closed {
		c.creditLocked(n)
	}
	if st.readErr == nil || errors.Is(st.readErr, io.EOF) {
		st.readErr = err
	}
	st.can.Broadcast()
}

// Which of the two deadlines of a stream.
const (
	reading = iota
	writing
)

// deadline has a direction of the stream end at a time; zero takes that back.
func (st *stream) deadline(which int, t time.Time) {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	if st.timers[which] != nil {
		st.timers[which].Stop()
		st.timers[which] = nil
	}
	if t.IsZero() || st.closed {
		return
	}
	left := time.Until(t)
	switch {
	case left <= 0:
		st.overdueLocked(which) // now, and not after the handler has gone on
		return
	case which == reading && st.remote: // nothing is waited for
		return
	}
	st.timers[which] = time.AfterFunc(left, func() {
		st.c.mu.Lock()
		defer st.c.mu.Unlock()
		st.overdueLocked(which)
	})
}

func (st *stream) overdueLocked(which int) {
	if which == reading {
		st.stopReadingLocked(os.ErrDeadlineExceeded)
		return
	}
	st.c.resetLocked(st.id, http2.ErrCodeInternal, os.ErrDeadlineExceeded)
}
