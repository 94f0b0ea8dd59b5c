package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/headers"
	"github.com/masegraye/connect-plugin-go/internal/late"
)

// maxPanicText bounds what the log says of a panic, in characters.
const maxPanicText = 200

var errPanic = errors.New("provider panicked")

// usualValues is how many values of header fields a call has in one place.
const usualValues = 16

// memoryCall is a call to a provider in this process, in one place with what the provider gets
// of it.
type memoryCall struct {
	call

	ctx    late.Context
	target url.URL
	body   memoryBody
	writer memoryWriter
	values [usualValues]string
	used   int // of them
}

// one returns the values of a field that has one.
func (m *memoryCall) one(value string) []string {
	at := m.used
	if at == len(m.values) {
		return []string{value}
	}
	m.used++
	m.values[at] = value
	return m.values[at : at+1 : at+1]
}

// add adds a field to a header.
func (m *memoryCall) add(header http.Header, name, value string) {
	if have := header[name]; len(have) > 0 {
		header[name] = append(have, value)
		return
	}
	header[name] = m.one(value)
}

// dispatch hands the request to a provider in this process.
func (c *call) dispatch(parent context.Context) {
	// The provider's context ends by interruption, which notes its reason first.
	own := c.own
	own.ctx.InitAlone(parent)
	defer own.ctx.End(nil)
	c.attachHandler(&own.ctx)
	c.result.Sent = true
	w := &own.writer
	w.call, w.header = c, make(http.Header)
	err := w.serve(own.request())
	if c.result.Latency == 0 {
		c.result.Latency = c.latency()
	}
	switch {
	case err != nil:
		w.finish(ClassReset, err)
	case c.why() != nil:
		w.finish(ClassCanceled, c.why())
	case w.err != nil:
		w.finish(ClassResponse, w.err)
	default:
		w.WriteHeader(http.StatusOK)
		w.trailers()
	}
}

// request is the request as the provider sees it: what a request over the
// network would carry, and nothing of the host's.
func (m *memoryCall) request() *http.Request {
	m.target = urlOf(m.Path, m.r.URL.RawQuery)
	m.body = memoryBody{ReadCloser: m.r.Body, call: &m.call, left: m.p.cfg.MaxBody}
	r := http.Request{
		Method:        m.r.Method,
		URL:           &m.target,
		Proto:         "HTTP/2.0",
		ProtoMajor:    2,
		Header:        m.requestHeader(),
		Body:          &m.body,
		ContentLength: m.length,
		RequestURI:    m.target.RequestURI(),
	}
	return r.WithContext(&m.ctx)
}

// requestHeader is the header of that request.
func (m *memoryCall) requestHeader() http.Header {
	const stated = 3 // by the host
	header := make(http.Header, len(m.r.Header)+stated)
	m.p.cfg.Headers.Each(headers.Request, m.r.Header, func(name, value string) { m.add(header, name, value) })
	m.stated(func(name, value string) { header[name] = m.one(value) })
	return header
}

// memoryBody notes that something moves, and ends with an error where it is too large.
type memoryBody struct {
	io.ReadCloser

	call *call
	left int64 // that may come; of no use where there is no bound
	err  error // that it is too large
}

// Read implements io.Reader.
func (b *memoryBody) Read(p []byte) (int, error) {
	most := b.call.p.cfg.MaxBody
	if b.err != nil {
		return 0, b.err
	}
	if most > 0 && int64(len(p)) > b.left {
		p = p[:b.left+1] // one more shows that there is more
	}
	n, err := b.call.read(p)
	b.call.active.Store(true)
	if b.left -= int64(n); most > 0 && b.left < 0 {
		b.err = &http.MaxBytesError{Limit: most}
		return n - 1, b.err
	}
	return n, err
}

// memoryWriter is the response writer of a provider in this process. It keeps
// the provider's header fields apart from those that the caller gets.
type memoryWriter struct {
	download

	header  http.Header
	written bool // the head is decided
	err     error
}

// Header implements http.ResponseWriter.
func (w *memoryWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *memoryWriter) WriteHeader(status int) {
	if w.written || status < http.StatusOK || w.why() != nil {
		return
	}
	w.written = true
	w.result.Latency = w.latency()
	w.result.Status = status
	if !forwardable(status) {
		w.err = fmt.Errorf("%w: status %d", ErrResponse, status)
		return
	}
	dst := w.w.Header()
	w.p.cfg.Headers.Each(headers.Response, w.header, func(name, value string) { w.own.add(dst, name, value) })
	if w.framing = framingOf(dst.Get(fieldContentType)); w.framing != framingNone {
		dst.Del(fieldContentLength) // nobody knows how long a stream will be
	}
	w.noteHead(status, dst, w.framing)
	w.result.Written = true
	w.w.WriteHeader(status)
}

// Write implements http.ResponseWriter. It fails once the call is interrupted, so
// that the end of the stream is left to the host.
func (w *memoryWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if err := w.why(); err != nil {
		return 0, err
	}
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.w.Write(p)
	w.body = w.body || n > 0
	w.active.Store(true)
	w.passed(p[:n])
	return n, err //nolint:wrapcheck // the writer's own error
}

// Flush implements http.Flusher.
func (w *memoryWriter) Flush() { _ = w.FlushError() }

// FlushError flushes what was written, as http.ResponseController does.
func (w *memoryWriter) FlushError() error {
	w.WriteHeader(http.StatusOK)
	if err := w.why(); err != nil {
		return err
	}
	if w.err != nil {
		return w.err
	}
	return w.ctrl.Flush() //nolint:wrapcheck // the writer's own error
}

// EnableFullDuplex says that reading and writing at the same time is possible.
func (w *memoryWriter) EnableFullDuplex() error { return nil }

// SetReadDeadline sets the caller's, as http.ResponseController does.
func (w *memoryWriter) SetReadDeadline(t time.Time) error {
	return w.ctrl.SetReadDeadline(t) //nolint:wrapcheck // the writer's own error
}

// SetWriteDeadline sets the caller's, as http.ResponseController does.
func (w *memoryWriter) SetWriteDeadline(t time.Time) error {
	return w.ctrl.SetWriteDeadline(t) //nolint:wrapcheck // the writer's own error
}

// serve calls the provider and turns a panic into an error.
func (w *memoryWriter) serve(r *http.Request) (err error) {
	defer func() {
		if v := recover(); v != nil {
			// Quoted: what it says may come from the caller.
			err = fmt.Errorf("%w: %.*q", errPanic, maxPanicText, fmt.Sprint(v))
		}
	}()
	w.p.cfg.Handler.ServeHTTP(w, r)
	return nil
}

// trailers passes on what the provider set as trailer, announced or not.
func (w *memoryWriter) trailers() {
	if !w.result.Written {
		return
	}
	trailer := w.trailer()
	if len(trailer) == 0 {
		return
	}
	if !w.body {
		headBeforeTrailer(&w.ctrl)
	}
	w.p.cfg.Headers.Each(headers.Trailer, trailer, func(name, value string) {
		w.own.add(w.w.Header(), http.TrailerPrefix+name, value)
		w.noteTrailer(name, value)
	})
}

// trailer returns the trailer, nil for none.
func (w *memoryWriter) trailer() http.Header {
	var trailer http.Header
	set := func(name string, values []string) {
		if trailer == nil {
			trailer = make(http.Header)
		}
		trailer[name] = values
	}
	for name, values := range w.header {
		if inner, ok := cutTrailerPrefix(name); ok {
			set(inner, values)
		}
	}
	for _, name := range announced(w.header) {
		if values := w.header.Values(name); len(values) > 0 {
			set(http.CanonicalHeaderKey(name), values)
		}
	}
	return trailer
}

// finish ends a call that broke.
func (w *memoryWriter) finish(class Class, err error) {
	if w.result.Written {
		w.broken(class, err)
		return
	}
	w.fail(class, err)
}

func cutTrailerPrefix(name string) (string, bool) {
	inner, ok := strings.CutPrefix(name, http.TrailerPrefix)
	return http.CanonicalHeaderKey(inner), ok
}

// announced returns the names that a Trailer field lists.
func announced(header http.Header) []string {
	var names []string
	for _, line := range header["Trailer"] {
		for name := range strings.SplitSeq(line, ",") {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return names
}
