// Package unsent makes the response to a request that was never sent, out of what a writer
// of answers writes on a server.
package unsent

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// Answer gathers an answer. It implements [http.ResponseWriter] and is used by one
// goroutine. The zero value is ready to use.
type Answer struct {
	status int         // zero until it was written
	header http.Header // that the writer changes
	sent   http.Header // as it was when the status was written
	body   bytes.Buffer
}

// Header implements [http.ResponseWriter].
func (a *Answer) Header() http.Header {
	if a.header == nil {
		a.header = http.Header{}
	}
	return a.header
}

// WriteHeader implements [http.ResponseWriter]. The first one counts.
func (a *Answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status, a.sent = status, a.Header().Clone()
	}
}

// Write implements [http.ResponseWriter].
func (a *Answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p) //nolint:wrapcheck // never fails
}

// Response returns what was written, as the client of a server of HTTP/2 would get it. Of
// what was set after the status it has the trailers that the header announced.
func (a *Answer) Response(r *http.Request) *http.Response {
	a.WriteHeader(http.StatusOK)
	trailer := http.Header{}
	for _, name := range a.sent.Values("Trailer") {
		for key := range strings.SplitSeq(name, ",") {
			key = http.CanonicalHeaderKey(strings.TrimSpace(key))
			if values := a.header.Values(key); len(values) > 0 {
				trailer[key] = values
			}
		}
	}
	a.sent.Del("Trailer")
	return &http.Response{
		Status:     strconv.Itoa(a.status) + " " + http.StatusText(a.status),
		StatusCode: a.status, Proto: "HTTP/2.0", ProtoMajor: 2, Header: a.sent, Trailer: trailer,
		ContentLength: int64(a.body.Len()), Body: io.NopCloser(&a.body), Request: r,
	}
}
