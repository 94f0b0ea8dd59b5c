package link

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// make sends the request on a connection and waits for the header of the response. The
// error is errNotSent if the connection takes no request at the moment.
func (x *exchange) make(c *Conn) (*http.Response, error) {
	stream, rest, err := c.h2.Open(x.request)
	if err != nil {
		return nil, openError(err)
	}

	ctx := x.r.Context()
	b := &body{stream: stream, pool: c.pool}
	b.Body = h2.NewBody(stream, b.over)

	if ctx.Done() != nil {
		b.stop = context.AfterFunc(ctx, func() { stream.Cancel(ctx.Err()) })
	}

	x.upload(b, rest)

	status, fields, err := stream.Head()
	if err != nil {
		b.finish()

		return nil, err
	}

	if c.pool.barren.Load() > 0 {
		c.pool.barren.Store(0)
	}

	resp := &http.Response{
		StatusCode: status, Status: statusText(status), Proto: "HTTP/2.0", ProtoMajor: 2,
		Header: headerOf(fields), ContentLength: -1, Body: b, Request: x.r, TLS: c.state,
	}
	b.resp = resp
	resp.Trailer = announced(resp.Header)

	if stated := resp.Header[contentLength]; len(stated) == 1 {
		if n, err := strconv.ParseInt(stated[0], 10, 64); err == nil {
			resp.ContentLength = n
		}
	}

	return resp, nil
}

// body is the body of a response.
type body struct {
	h2.Body

	// Fixed before the response is handed over.
	stream *h2.Stream
	pool   *Pool
	resp   *http.Response
	stop   func() bool   // has the end of the context do nothing; may be nil
	upload io.ReadCloser // what is being sent, nil if nothing is

	once sync.Once
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.Body.Read(p)
	if errors.Is(err, io.ErrClosedPipe) {
		err = http.ErrBodyReadAfterClose
	}

	return n, err //nolint:wrapcheck // what net/http's body gives
}

// Close implements io.Closer: it breaks the call off if it is not over.
func (b *body) Close() error {
	b.finish()

	return b.Body.Close() //nolint:wrapcheck // it has no error
}

// over takes in the end of the response.
func (b *body) over(err error) error {
	if err == nil {
		for name, values := range headerOf(b.stream.Trailer()) {
			if b.resp.Trailer == nil {
				b.resp.Trailer = make(http.Header)
			}

			b.resp.Trailer[name] = values
		}
	}

	b.finish()

	return err
}

// finish ends the call.
func (b *body) finish() {
	b.once.Do(func() {
		if b.stop != nil {
			b.stop()
		}

		b.stream.Close()
		b.pool.freed()

		if b.upload != nil {
			_ = b.upload.Close()
		}
	})
}

// headerOf returns fields as net/http has them.
func headerOf(fields []hpack.HeaderField) http.Header {
	header := make(http.Header, len(fields))
	values := make([]string, len(fields))

	for i, f := range fields {
		name := http.CanonicalHeaderKey(f.Name)
		if have := header[name]; len(have) > 0 {
			header[name] = append(have, f.Value)

			continue
		}

		values[i] = f.Value
		header[name] = values[i : i+1 : i+1]
	}

	return header
}

// announced takes the names out of a header that it says are in the trailer, as net/http
// does: they are keys without values until the body was read.
func announced(header http.Header) http.Header {
	lines, ok := header["Trailer"]
	if !ok {
		return nil
	}

	delete(header, "Trailer")

	trailer := make(http.Header)

	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			trailer[http.CanonicalHeaderKey(strings.TrimSpace(name))] = nil
		}
	}

	return trailer
}

func statusText(status int) string {
	if status == http.StatusOK {
		return "200 OK"
	}

	return strings.TrimSpace(strconv.Itoa(status) + " " + http.StatusText(status))
}
