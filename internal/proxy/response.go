package proxy

import (
	"fmt"
	"net/http"

	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/headers"
	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

const (
	fieldContentType   = "Content-Type"
	fieldContentLength = "Content-Length"
)

// respond passes the response on.
func (c *call) respond(s *h2.Stream) {
	status, fields, err := s.Head()
	c.result.Latency = c.latency()
	if err != nil {
		c.fail(classOf(err), err)
		return
	}
	c.p.proved()
	c.result.Status = status
	if !forwardable(status) {
		c.fail(ClassResponse, fmt.Errorf("%w: status %d", ErrResponse, status))
		return
	}
	c.active.Store(true)
	header := c.w.Header()
	addFields(header, "", headers.Response, c.p.cfg.Headers, fields)
	d := download{call: c, framing: framingOf(header.Get(fieldContentType)), head: header}
	if d.framing != framingNone {
		header.Del(fieldContentLength) // nobody knows how long a stream will be
	}
	c.noteHead(status, header, d.framing)
	c.result.Written = true
	c.w.WriteHeader(status)
	if keepsHead(c.w) {
		d.forgetHead()
	}
	d.copy(s)
}

// keepsHead reports whether WriteHeader has taken the fields that there were, as a writer of the host's own server says.
// Those of others do, too, but what is wrapped around them may hold the head back until something is written, as gin does.
func keepsHead(w http.ResponseWriter) bool {
	for {
		switch x := w.(type) {
		case interface{ KeepsHead() }:
			return true
		case interface{ Unwrap() http.ResponseWriter }:
			w = x.Unwrap()
		default:
			return false
		}
	}
}

// forwardable reports whether a final response of that status is passed on: an
// answer or an error, no redirect. What an unknown status means is for the caller
// to say.
func forwardable(status int) bool {
	return status >= http.StatusOK && status < http.StatusMultipleChoices || status >= http.StatusBadRequest
}

// addFields adds the fields that pass to header, their names with the prefix.
func addFields(header http.Header, prefix string, d headers.Direction, rules *headers.Rules, fields []hpack.HeaderField) {
	values := make([]string, 0, len(fields))
	for _, f := range fields {
		name := http.CanonicalHeaderKey(f.Name)
		if !rules.Passes(d, name) || !headers.ValidValue(f.Value) {
			rules.Drop(d, name)
			continue
		}
		name = prefix + name
		if have := header[name]; len(have) > 0 {
			header[name] = append(have, f.Value)
			continue
		}
		values = append(values, f.Value)
		header[name] = values[len(values)-1 : len(values) : len(values)]
	}
}

// download is the passing on of a response whose head is written.
type download struct {
	*call

	framing   framing
	head      http.Header // that is written, nil once it is the writer's
	envelopes envelopes   // as far as they were passed on
	held      beginning   // of a message, that was not
	body      bool        // some of it was written
}

// copy passes the body and the trailer on. What there is of them is flushed as
// soon as nothing more is there.
func (d *download) copy(s *h2.Stream) {
	for {
		if s.Paused() {
			if err := d.ctrl.Flush(); err != nil {
				d.broken(ClassCanceled, fmt.Errorf("write response: %w", err))
				return
			}
			d.forgetHead()
		}
		part, end, err := s.Next()
		if err != nil {
			d.broken(classOf(err), err)
			return
		}
		if err := d.write(part); err != nil {
			d.broken(ClassCanceled, fmt.Errorf("write response: %w", err))
			return
		}
		if end {
			d.end(s)
			return
		}
	}
}

// forgetHead lets go of the fields of a head that the writer has: a call may be open for long.
func (d *download) forgetHead() {
	clear(d.head)
	d.head = nil
}

// end passes on what is left of a response that ended well.
func (d *download) end(s *h2.Stream) {
	if err := d.pass(d.held.rest()); err != nil {
		d.broken(ClassCanceled, fmt.Errorf("write response: %w", err))
		return
	}
	d.trailer(s.Trailer())
}

// trailer passes the trailer on.
func (d *download) trailer(fields []hpack.HeaderField) {
	if len(fields) > 0 && !d.body {
		headBeforeTrailer(&d.ctrl)
	}
	addFields(d.w.Header(), http.TrailerPrefix, headers.Trailer, d.p.cfg.Headers, fields)
	for _, f := range fields {
		d.noteTrailer(f.Name, f.Value)
	}
}

// headBeforeTrailer lets the head of a response without a body leave before its
// trailer is known. Otherwise net/http states a content length of 0 in it, and proxies
// in front of the host (nginx, HAProxy) then drop the trailer, which has the status of
// a gRPC call.
func headBeforeTrailer(ctrl *http.ResponseController) {
	_ = ctrl.Flush() // a caller that is gone needs none
}

// write passes on what came, but for a small message that is not complete.
func (d *download) write(part *h2.Buffer) error {
	if part == nil {
		return nil
	}
	defer part.Release()
	d.active.Store(true)
	if d.framing == framingNone {
		return d.pass(part.B)
	}
	before, whole := d.held.next(part.B)
	if err := d.pass(before); err != nil {
		return err
	}
	if err := d.pass(whole); err != nil {
		return err
	}
	d.held.keep(part.B[len(whole):])
	return nil
}

func (d *download) pass(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	n, err := d.w.Write(p)
	d.body = d.body || n > 0
	d.active.Store(true)
	d.passed(p[:n])
	return err //nolint:wrapcheck // wrapped by the caller
}

// passed takes in what was written to the caller.
func (d *download) passed(p []byte) {
	if d.framing != framingNone {
		d.envelopes.advance(p)
	}
	d.noteBody(p)
}

// broken ends a response that stopped in the middle. What is held of a message is dropped.
func (d *download) broken(class Class, err error) {
	d.fail(class, err)
	if d.Ending == nil || !d.canEnd() {
		d.abort()
		return
	}
	status, ok := d.Ending(d.result.Class, d.result.Err)
	if !ok || writeEnding(d.w, d.framing, status) != nil {
		d.abort()
	}
}

// canEnd reports whether the protocol can say here why a response ends: between two messages,
// and in gRPC anywhere, as its trailer is no part of the body.
func (d *download) canEnd() bool {
	return d.framing == framingGRPC || d.framing != framingNone && d.envelopes.between()
}
