package proxy

import (
	"cmp"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/headers"
	"github.com/masegraye/connect-plugin-go/internal/late"
	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// endGrace is how long the end of an interrupted call may take to reach a caller
// that reads slowly.
const endGrace = 2 * time.Second

// Call says how to forward one request.
type Call struct {
	// Path is the path on the provider, as [JoinPath] returns it.
	Path string
	// ContentType is that of the request, where it was read already.
	ContentType string
	// CallerID is the runtime id of the authenticated caller, which the
	// provider gets as X-Plugin-Caller-Id; empty leaves the field out.
	CallerID string
	// Account is whose the call is where several callers are counted as one: it is what shares the provider's
	// streams and places to wait with others. Empty is CallerID.
	Account string
	// Urgent has the call go before others where the provider has no room: it
	// takes a connection that is kept for that. It is for the host's own
	// questions.
	Urgent bool
	// Last says that the provider is told that no other call follows: [Provider.Seal] reported
	// so. It passes where others are refused already.
	Last bool
	// CallerSelfID and CallerVersion are its self id and version, which the provider
	// gets as X-Plugin-Caller-Self-Id and X-Plugin-Caller-Self-Version; empty leaves
	// the field out.
	CallerSelfID, CallerVersion string
	// Began is when the call came, of which a part of the time that it states is over; the
	// zero Time is now.
	Began time.Time
	// Ahead pays for what the provider may send ahead; nil does not bound that.
	Ahead *Ahead
	// Holder pays for what the host holds of a large answer's head; nil has everything held. Where it has no room
	// the call ends with ErrHeld.
	Holder Holder
	// Ending states the outcome with which a stream ends for the caller that
	// broke after a part of it was written. It is asked only where the
	// protocol can say so at that point. If it is nil or reports false, the
	// stream is aborted: the caller sees a reset.
	Ending func(Class, error) (Status, bool)
	// Outcome, where it is not nil, takes in what the call is like, and forgets what it knew. It
	// is the call's until Forward returns.
	Outcome *Outcome
}

// Ahead is how much providers may send ahead on the calls of one caller, beyond the little
// that they may on each. It is safe for concurrent use.
type Ahead = h2.Ahead

// NewAhead returns one of so many bytes.
func NewAhead(most int64) *Ahead { return h2.NewAhead(most) }

// Holder is who pays for what is held of an answer.
type Holder = h2.Holder

// Pace is how fast providers of one owner may send more header fields than answers usually have. It is safe for
// concurrent use, and the zero value is ready.
type Pace = h2.Pace

// account is whose the call is, empty for the host's own.
func (c *Call) account() string { return cmp.Or(c.Account, c.CallerID) }

// stated yields what the host says of the caller and of the call.
func (c *Call) stated(yield func(name, value string)) {
	for _, field := range [...]struct{ name, value string }{
		{headers.CallerID, c.CallerID}, {headers.CallerSelfID, c.CallerSelfID}, {headers.CallerVersion, c.CallerVersion},
	} {
		if field.value != "" {
			yield(field.name, field.value)
		}
	}
	if c.Last {
		yield(headers.LastCall, headers.Yes)
	}
}

// call is one request on its way.
type call struct {
	// Fixed at creation.
	Call

	p    *Provider
	own  *memoryCall // nil where the provider is on the network
	w    http.ResponseWriter
	r    *http.Request
	ctrl http.ResponseController

	start  time.Time
	unary  bool  // the response is most likely a single message
	length int64 // of the request's body, -1 if it is not stated

	active atomic.Bool   // something moved since the provider last looked
	silent time.Duration // guarded by p.mu
	holds  bool          // a stream; guarded by p.mu
	crowds *company      // where it is one of a crowd; guarded by p.mu
	result Result        // used by the forwarding goroutine only
	fields *fieldList    // as above; nil once the request is not sent again
	whole  *h2.Buffer    // the request's body, where it is sent complete

	mu      sync.Mutex
	reading time.Time     // since when the request's body is being read, zero while it is not
	waited  time.Duration // for the caller to send what it did so far
	taken   int64         // bytes of the request's body
	ended   bool          // w, r and Outcome must not be used any more
	cause   error
	stopped chan struct{} // closed with cause set; made when somebody waits
	stream  *h2.Stream
	handler *late.Context // of the request to a provider in this process
}

// Ended interrupts the call because its context ended.
func (c *call) Ended(cause error) { c.interrupt(cause) }

// read reads the request's body, and notes how long the caller took to send it.
func (c *call) read(p []byte) (int, error) {
	begun := time.Now()
	c.mu.Lock()
	c.reading = begun
	c.mu.Unlock()
	n, err := c.r.Body.Read(p)
	c.mu.Lock()
	c.reading = time.Time{}
	c.waited += time.Since(begun)
	c.taken += int64(n)
	c.mu.Unlock()
	return n, err //nolint:wrapcheck // the body's own error
}

// requestBody is the body of the call's request as an io.Reader.
type requestBody struct{ *call }

// Read implements io.Reader.
func (b requestBody) Read(p []byte) (int, error) { return b.read(p) }

// latency is how long the call has taken so far, without the time in which its caller had
// something to send: a caller that dawdles makes no provider look slow.
func (c *call) latency() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	waited := c.waited
	if !c.reading.IsZero() {
		waited += now.Sub(c.reading)
	}
	return max(now.Sub(c.start)-waited, 1)
}

// noteHead has the outcome take in the head of the response. As for all of these, a provider
// in this process that goes on after its end changes nothing any more; what comes from a stream is
// noted by who forwards, and needs no lock.
func (c *call) noteHead(status int, header http.Header, f framing) {
	switch {
	case c.Outcome == nil:
	case c.own == nil:
		c.Outcome.head(status, header, f)
	default:
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.ended {
			c.Outcome.head(status, header, f)
		}
	}
}

// noteBody has it take in a part of the body.
func (c *call) noteBody(p []byte) {
	switch {
	case c.Outcome == nil:
	case c.own == nil:
		c.Outcome.Body(p)
	default:
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.ended {
			c.Outcome.Body(p)
		}
	}
}

// noteTrailer has it take in a field of the trailer.
func (c *call) noteTrailer(name, value string) {
	switch {
	case c.Outcome == nil:
	case c.own == nil:
		c.Outcome.Trailer(name, value)
	default:
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.ended {
			c.Outcome.Trailer(name, value)
		}
	}
}

// interrupt breaks the call off for the given reason: whoever waits for the
// provider wakes at once, whoever waits for the caller soon.
func (c *call) interrupt(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || c.cause != nil {
		return
	}
	c.cause = err
	if c.stopped != nil {
		close(c.stopped)
	}
	if c.handler != nil {
		c.handler.End(err)
	}
	if c.stream != nil {
		c.stream.Cancel(err)
	}
	_ = c.ctrl.SetWriteDeadline(time.Now().Add(endGrace))
	c.stopReading()
}

// stopReading makes reads of the request's body return.
func (c *call) stopReading() {
	if err := c.ctrl.SetReadDeadline(longAgo); err != nil {
		_ = c.r.Body.Close()
	}
}

// attach makes an interruption reach the stream.
func (c *call) attach(s *h2.Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stream = s
	if s != nil && c.cause != nil {
		s.Cancel(c.cause)
	}
}

// attachHandler makes an interruption reach a provider in this process.
func (c *call) attachHandler(ctx *late.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handler = ctx
	if c.cause != nil {
		ctx.End(c.cause)
	}
}

// interrupted returns a channel that is closed when the call is interrupted.
func (c *call) interrupted() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped == nil {
		c.stopped = make(chan struct{})
		if c.cause != nil {
			close(c.stopped)
		}
	}
	return c.stopped
}

// why returns why the call was interrupted, nil if it was not.
func (c *call) why() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// end makes later interruptions leave the request and the response alone, and has the outcome
// take in what is known at the end.
func (c *call) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended && c.Outcome != nil {
		c.Outcome.End(c.start, c.taken)
	}
	c.ended = true
}

// fail sets the result of a call that broke. The reason of an interruption goes
// before what it led to.
func (c *call) fail(class Class, err error) {
	if cause := c.why(); cause != nil {
		class, err = classOfCause(cause), cause
	}
	err = c.lapsed(err)
	c.result.Class, c.result.Err, c.result.Fault = class, err, isFault(class, err)
}

func classOfCause(cause error) Class {
	switch {
	case errors.Is(cause, ErrIdle):
		return ClassIdle
	case errors.Is(cause, ErrClosed):
		return ClassReset
	default:
		return ClassCanceled
	}
}

// classOf tells the class of an error of a stream.
func classOf(err error) Class {
	switch {
	case errors.Is(err, h2.ErrUnprocessed):
		return ClassUnavailable
	case errors.Is(err, h2.ErrMalformed):
		return ClassResponse
	default:
		return ClassReset
	}
}

// abort ends the response so that the caller sees an error and no clean end.
func (c *call) abort() {
	if err := c.ctrl.SetWriteDeadline(longAgo); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)
