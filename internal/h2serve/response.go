package h2serve

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// keptBody is how much of a response waits for its end, or for being flushed.
const keptBody = 4 << 10

var bodies = sync.Pool{New: func() any { return new([keptBody]byte) }}

var (
	errTooMuch = errors.New("the handler wrote more than the Content-Length that it stated")
	errRefused = errors.New("the handler refused the request")
)

// response is what a handler writes to. It belongs to the handler's goroutine.
type response struct {
	// Fixed at creation.
	st       *stream
	header   http.Header
	bodiless bool // to HEAD

	status   int         // 0 before there is a head
	head     http.Header // as it was then
	declared int64       // length of the body, -1 if the handler states none
	wrote    int64
	waiting  *[keptBody]byte // the beginning of the body, nil for none
	length   int             // of what waits
	sent     bool            // the head is
	over     bool
	refused  bool
}

// Header implements http.ResponseWriter.
func (w *response) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(status int) {
	const lowest, final, highest = 100, 200, 999
	switch {
	case status < lowest || status > highest:
		panic(fmt.Sprintf("invalid WriteHeader code %d", status))
	case w.status != 0 || w.over:
		return
	case status < final && status != http.StatusSwitchingProtocols:
		w.inform(status)
		return
	}
	w.freeze(status, w.header.Clone())
}

// KeepsHead says that WriteHeader keeps the fields that there are, whatever becomes of them then.
func (*response) KeepsHead() {}

// Write implements http.ResponseWriter.
func (w *response) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	switch w.wrote += int64(len(p)); {
	case w.over:
		return 0, http.ErrHandlerTimeout
	case !bodyAllowed(w.status):
		return 0, http.ErrBodyNotAllowed
	case w.declared >= 0 && w.wrote > w.declared:
		return 0, errTooMuch
	}
	if w.length+len(p) <= keptBody {
		if w.waiting == nil {
			w.waiting, _ = bodies.Get().(*[keptBody]byte)
		}
		w.length += copy(w.waiting[w.length:], p)
		return len(p), nil
	}
	if err := w.send(p, false); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush implements http.Flusher.
func (w *response) Flush() { _ = w.FlushError() }

// FlushError is what http.ResponseController flushes with.
func (w *response) FlushError() error {
	w.begin()
	return w.send(nil, true)
}

// SetReadDeadline is what http.ResponseController sets.
func (w *response) SetReadDeadline(t time.Time) error {
	w.st.deadline(reading, t)
	return nil
}

// SetWriteDeadline is what http.ResponseController sets.
func (w *response) SetWriteDeadline(t time.Time) error {
	w.st.deadline(writing, t)
	return nil
}

// EnableFullDuplex says that reading and writing at the same time is possible.
func (w *response) EnableFullDuplex() error { return nil }

// Refuse has the stream be reset when the handler returns, in words that say that nothing was done with the request, so that its peer
// may make it again whatever it is (RFC 9113, section 8.7). It reports false where there is an answer already.
func (w *response) Refuse() bool {
	w.refused = w.status == 0 && !w.over
	return w.refused
}

// freeze has the head be what it is now. One that is sent before the handler goes on may be the handler's own.
func (w *response) freeze(status int, head http.Header) {
	w.status, w.head = status, head
	if w.head == nil {
		w.head = http.Header{}
	}
	if stated := w.head["Content-Length"]; len(stated) > 0 {
		if n, err := strconv.ParseUint(stated[0], 10, 63); err == nil {
			w.declared = int64(n)
		} else {
			w.head = w.head.Clone()
			delete(w.head, "Content-Length")
		}
	}
}

// begin does what WriteHeader does for a response that is sent before its handler goes on, or after it.
func (w *response) begin() {
	if w.status == 0 && !w.over {
		w.freeze(http.StatusOK, w.header)
	}
}

// end ends the response when the handler has returned.
func (w *response) end() {
	if !w.refused || w.status != 0 {
		w.finish()
		return
	}
	w.release()
	w.st.c.mu.Lock()
	defer w.st.c.mu.Unlock()
	if !w.st.closed { // else the peer waits for no answer
		w.st.c.resetLocked(w.st.id, http2.ErrCodeRefusedStream, errRefused)
	}
}

// inform sends a response before the response.
func (w *response) inform(status int) {
	c := w.st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.st.closed {
		return
	}
	w.st.expects = w.st.expects && status != http.StatusContinue
	c.headLocked(w.st, strconv.Itoa(status), w.header, false)
	c.flushLocked()
}

// send sends what waits, and then p. Only what is to be flushed is written at once: the rest goes
// along with more.
func (w *response) send(p []byte, flush bool) error {
	st, c := w.st, w.st.c
	first := w.kept()
	var room [usualMore]hpack.HeaderField
	more := room[:0]
	if !w.sent {
		more = w.complete(more, first, p)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if st.err != nil {
		return st.err
	}
	if !w.sent {
		w.sent = true
		if err := c.sendHeadLocked(st, strconv.Itoa(w.status), w.head, false, more...); err != nil {
			return err
		}
		w.head = trailerOf(w.head)
	}
	for _, part := range [][]byte{first, p} {
		if len(part) > 0 && !w.bodiless {
			if err := c.sendLocked(st, part, false); err != nil {
				return err
			}
		}
	}
	if w.length = 0; flush && w.waiting != nil { // the next message of a stream may be long in coming
		bodies.Put(w.waiting)
		w.waiting = nil
	}
	if flush || len(c.out) >= leastFrame {
		c.flushLocked()
	}
	return nil
}

// trailerOf is what is still of use of a head that was sent.
func trailerOf(head http.Header) http.Header {
	if announced, ok := head["Trailer"]; ok {
		return http.Header{"Trailer": announced}
	}
	return nil
}

// kept is what waits.
func (w *response) kept() []byte {
	if w.waiting == nil {
		return nil
	}
	return w.waiting[:w.length]
}

// usualMore is how many fields a server adds to those of a handler.
const usualMore = 3

// complete adds the fields that a handler leaves to the server.
func (w *response) complete(more []hpack.HeaderField, first, p []byte) []hpack.HeaderField {
	if _, ok := w.head["Date"]; !ok {
		more = append(more, hpack.HeaderField{Name: "date", Value: date()})
	}
	if len(first) == 0 {
		first = p
	}
	_, typed := w.head["Content-Type"]
	_, encoded := w.head["Content-Encoding"]
	if !typed && !encoded && len(first) > 0 && bodyAllowed(w.status) {
		more = append(more, hpack.HeaderField{Name: "content-type", Value: http.DetectContentType(first)})
	}
	return more
}

// finish sends the rest of the response, and its end.
func (w *response) finish() {
	w.begin()
	w.over = true
	defer w.release()
	st, c := w.st, w.st.c
	var room [usualMore]hpack.HeaderField
	body, more := w.whole(room[:0])
	trailer := w.trailer()
	defer st.left()
	c.mu.Lock()
	defer c.mu.Unlock()
	if st.err != nil {
		return
	}
	st.last, st.served = true, true
	st.stopReadingLocked(http.ErrBodyReadAfterClose) // and nothing of the request is kept while the rest waits
	if !w.sent && c.sendHeadLocked(st, strconv.Itoa(w.status), w.head, len(body) == 0 && trailer == nil, more...) != nil {
		return
	}
	if (len(body) > 0 || w.sent && trailer == nil) && c.sendLocked(st, body, trailer == nil) != nil {
		return
	}
	if trailer != nil && c.sendHeadLocked(st, "", trailer, true) != nil {
		return
	}
	if !st.remote {
		c.halfCloseLocked(st.id)
	}
	st.breakLocked(http.ErrBodyReadAfterClose)
	c.flushLocked()
}

// whole returns what is left of the body, and adds fields to a head that was not sent: the length, as all is sent in one piece.
func (w *response) whole(more []hpack.HeaderField) (body []byte, all []hpack.HeaderField) {
	body = w.kept()
	if !w.sent {
		more = w.complete(more, body, nil)
		if _, stated := w.head["Content-Length"]; !stated && bodyAllowed(w.status) && (len(body) > 0 || !w.bodiless) {
			more = append(more, hpack.HeaderField{Name: "content-length", Value: strconv.Itoa(len(body))})
		}
	}
	if w.bodiless {
		body = nil
	}
	return body, more
}

// release gives back what waits.
func (w *response) release() {
	if w.over = true; w.waiting != nil {
		bodies.Put(w.waiting)
		w.waiting, w.length = nil, 0
	}
}

// trailer returns the fields that follow the body: those that the handler declared, and those with
// the prefix. Nil is none.
func (w *response) trailer() http.Header {
	var out http.Header
	add := func(name string, values []string) {
		if len(values) == 0 || !httpguts.ValidTrailerHeader(name) {
			return
		}
		if out == nil {
			out = http.Header{}
		}
		out[name] = values
	}
	for _, list := range w.head["Trailer"] {
		for name := range strings.SplitSeq(list, ",") {
			name = textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name))
			add(name, w.header[name])
		}
	}
	for name, values := range w.header {
		if inner, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			add(textproto.CanonicalMIMEHeaderKey(inner), values)
		}
	}
	return out
}

// bodyAllowed reports whether a response of a status has a body.
func bodyAllowed(status int) bool {
	const final = 200
	return status >= final && status != http.StatusNoContent && status != http.StatusNotModified
}

// stamp is a date as it is written, for a second.
type stamp struct {
	second int64
	text   string
}

var lastStamp atomic.Pointer[stamp]

// date returns the value of the field now.
func date() string {
	now := time.Now()
	if s := lastStamp.Load(); s != nil && s.second == now.Unix() {
		return s.text
	}
	s := &stamp{second: now.Unix(), text: now.UTC().Format(http.TimeFormat)}
	lastStamp.Store(s)
	return s.text
}
