package proxy

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/headers"
	"github.com/masegraye/connect-plugin-go/internal/late"
	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// RoundTrip makes a call of the host's own to a provider on the network, and returns the
// response when its head is there. The result says why there is none. The call is in flight
// until the body of the response was read to its end or closed, which also closes the
// request's. What reading the body gives for a call that broke is a [*BrokenError]. Fields
// pass by the rules by which they do in [Provider.Forward].
func (p *Provider) RoundTrip(r *http.Request, how Call) (*http.Response, Result) {
	if err := checkRequest(r, how.Path); err != nil {
		return nil, Result{Class: ClassRefused, Err: err}
	}
	t := &trip{call: call{
		Call: how, p: p, r: r, ctrl: *http.NewResponseController(ownWriter{r}), start: time.Now(),
		unary: isUnary(r, how.ContentType), length: r.ContentLength,
	}}
	if err := p.enter(&t.call); err != nil {
		return nil, Result{Class: ClassUnavailable, Err: err, Retryable: true}
	}
	t.active.Store(true)
	t.forget = late.OnEnd(r.Context(), &t.call)
	t.begin()
	if t.resp == nil {
		t.result.Retryable = t.result.Retryable && t.why() == nil
		t.finish(!t.result.Retryable)
	}
	return t.resp, t.result
}

// BrokenError says that a call broke after the head of its response. It is for the host's
// log, as [Result.Err] is.
type BrokenError struct {
	Class Class
	Err   error
}

// Error implements error.
func (e *BrokenError) Error() string { return "the call broke: " + e.Err.Error() }

// Unwrap returns what broke the call.
func (e *BrokenError) Unwrap() error { return e.Err }

// trip is a call whose response the host itself reads.
type trip struct {
	call
	h2.Body

	// Fixed when RoundTrip returns.
	forget  late.Tie // to the end of the context
	at      *h2.Stream
	sending *upload
	resp    *http.Response

	once sync.Once
}

// Read implements io.Reader.
func (t *trip) Read(p []byte) (int, error) {
	n, err := t.Body.Read(p)
	t.active.Store(true)
	return n, err
}

// Close ends the call if it is not over.
func (t *trip) Close() error {
	t.finish(true)
	return t.Body.Close()
}

// begin sends the request and takes in the head of the response.
func (t *trip) begin() {
	if err := t.checkGet(); err != nil {
		t.fail(ClassRefused, err)
		return
	}
	request, err := t.prepare()
	if err != nil {
		t.fail(ClassCanceled, err)
		return
	}
	t.attempt(func() { t.ask(request) })
}

// ask sends the request once.
func (t *trip) ask(request h2.Request) {
	t.result = Result{}
	stream, rest, err := t.p.open(&t.call, request)
	if err != nil {
		t.unopened(err)
		return
	}
	if !request.End {
		t.releaseFields() // it is not sent again, and may take long
	}
	t.at = stream
	t.attach(stream)
	t.sending = t.startUpload(stream, request, rest)
	status, fields, err := stream.Head()
	t.result.Latency = t.latency()
	switch {
	case err != nil:
		t.fail(classOf(err), err)
	case !forwardable(status):
		t.fail(ClassResponse, fmt.Errorf("%w: status %d", ErrResponse, status))
	default:
		t.p.proved()
		t.respondTo(status, fields)
	}
	if t.resp == nil {
		t.hangUp()
		t.at, t.sending = nil, nil
		t.settle(request)
	}
}

// respondTo makes the response.
func (t *trip) respondTo(status int, fields []hpack.HeaderField) {
	t.active.Store(true)
	t.result.Status, t.result.Sent = status, true
	t.Body = h2.NewBody(t.at, t.over)
	t.resp = &http.Response{
		Status: http.StatusText(status), StatusCode: status, Proto: "HTTP/2.0", ProtoMajor: 2, ContentLength: -1,
		Header: make(http.Header, len(fields)), Trailer: make(http.Header), Body: t, Request: t.r,
	}
	addFields(t.resp.Header, "", headers.Response, t.p.cfg.Headers, fields)
}

// over takes in the end of the response.
func (t *trip) over(err error) error {
	if err == nil {
		addFields(t.resp.Trailer, "", headers.Trailer, t.p.cfg.Headers, t.at.Trailer())
	} else {
		t.fail(classOf(err), err)
		err = &BrokenError{Class: t.result.Class, Err: t.result.Err}
	}
	t.finish(true)
	return err
}

// hangUp ends the stream, and what is sent on it.
func (t *trip) hangUp() {
	if t.at == nil {
		return
	}
	t.attach(nil)
	t.at.Close()
	t.sending.wait()
}

// finish leaves nothing of the call, and closes the request's body where nobody wants more
// of it.
func (t *trip) finish(last bool) {
	t.once.Do(func() {
		t.forget.Loose()
		t.hangUp()
		t.end()
		t.releaseFields()
		t.whole.Release()
		if last {
			_ = t.r.Body.Close()
		}
		t.p.leave(&t.call)
	})
}

// ownWriter stands for whom a call's response is written to: here it is read.
type ownWriter struct{ r *http.Request }

// Header implements http.ResponseWriter.
func (ownWriter) Header() http.Header { return nil }

// Write implements http.ResponseWriter.
func (ownWriter) Write(p []byte) (int, error) { return len(p), nil }

// WriteHeader implements http.ResponseWriter.
func (ownWriter) WriteHeader(int) {}

// SetWriteDeadline has nothing to end: the stream's end wakes whoever reads.
func (ownWriter) SetWriteDeadline(time.Time) error { return nil }

// SetReadDeadline ends the request's body, where the deadline has passed.
func (w ownWriter) SetReadDeadline(t time.Time) error {
	if time.Until(t) <= 0 {
		_ = w.r.Body.Close()
	}
	return nil
}
