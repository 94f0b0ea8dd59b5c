// Package swell bounds what the messages of a request become when they are decompressed,
// before whoever decompresses them has seen them whole: it inflates them along the way,
// counts, and keeps nothing of what comes out.
package swell

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
)

var (
	// ErrSwollen says that a message becomes larger than it may.
	ErrSwollen = errors.New("a message becomes too large when it is decompressed")
	// ErrEncoding says that a request is compressed in a way that cannot be looked into.
	ErrEncoding = errors.New("the compression is not supported")
	// ErrCorrupt says that what is said to be compressed is not.
	ErrCorrupt = errors.New("a compressed message is malformed")
)

// Bounds are those of one message.
type Bounds struct {
	// Bytes is how large a message may become.
	Bytes int64
	// Ratio is how many times its compressed size it may become, once it is more than
	// Free.
	Ratio int
	// Free is up to which size the ratio does not matter, in bytes: short texts that repeat
	// themselves shrink to next to nothing.
	Free int64
}

// Most is how large a message of so many compressed bytes may become.
func (b Bounds) Most(compressed int64) int64 {
	if compressed >= b.Bytes/int64(max(b.Ratio, 1)) {
		return b.Bytes
	}
	return min(b.Bytes, max(b.Free, compressed*int64(b.Ratio)))
}

const (
	gzipName     = "gzip"
	identityName = "identity"
)

// Guard returns a request in which each message keeps the bounds. Reading the body of any
// other fails, before its last byte, with what tell makes of [ErrSwollen] or [ErrCorrupt].
// The error is for a request that is not to be served at all. A request that is not
// compressed is returned as it is.
func Guard(r *http.Request, b Bounds, tell func(error) error) (*http.Request, error) {
	if r.Method == http.MethodGet {
		return r, checkQuery(r.URL, b)
	}
	kind, enveloped := Framing(r.Header)
	encoding, err := encodingOf(r.Header, kind)
	if enveloped && err == nil { // nothing but messages is compressed
		if whole, no := encodingOf(r.Header, contentEncoding); no != nil || whole != "" {
			err = ErrEncoding
		}
	}
	if err != nil || encoding == "" || r.Body == nil {
		return r, err
	}
	out := r.WithContext(r.Context())
	guarded := &body{ReadCloser: r.Body, bounds: b, tell: tell, enveloped: enveloped, left: -1}
	if !enveloped {
		guarded.length = r.ContentLength
	}
	out.Body = guarded
	return out, nil
}

const contentEncoding = "Content-Encoding"

// Framing says which header names the compression of a request's messages, and whether
// each has an envelope that says if it is compressed. It follows from the content type.
func Framing(h http.Header) (name string, enveloped bool) {
	media, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	media = strings.ToLower(strings.TrimSpace(media))
	switch {
	case strings.HasPrefix(media, "application/grpc"):
		return "Grpc-Encoding", true
	case strings.HasPrefix(media, "application/connect+"):
		return "Connect-Content-Encoding", true
	}
	return contentEncoding, false
}

// encodingOf returns the compression that a header names, empty for none.
func encodingOf(h http.Header, name string) (string, error) {
	values := h[name]
	if len(values) == 0 {
		return "", nil
	}
	switch value := strings.ToLower(strings.TrimSpace(values[0])); {
	case len(values) > 1:
		return "", ErrEncoding
	case value == "" || value == identityName:
		return "", nil
	case value == gzipName || value == "x-gzip":
		return gzipName, nil
	}
	return "", ErrEncoding
}

// checkQuery looks into the message in the query of a Connect GET request. What is none
// is for the handler to refuse.
func checkQuery(u *url.URL, b Bounds) error {
	if u.RawQuery == "" {
		return nil
	}
	q := u.Query()
	switch q.Get("compression") {
	case "", identityName:
		return nil
	case gzipName:
	default:
		if q.Has("encoding") && q.Has("message") { // else it is a query of somebody's who does not speak Connect
			return ErrEncoding
		}
		return nil
	}
	message := []byte(q.Get("message"))
	if q.Get("base64") == "1" {
		message = decoded(q.Get("message"))
	}
	z, err := gzip.NewReader(bytes.NewReader(message))
	if err != nil {
		return nil //nolint:nilerr // the handler says what is wrong
	}
	most := b.Most(int64(len(message)))
	if n, _ := io.Copy(io.Discard, io.LimitReader(z, most+1)); n > most {
		return ErrSwollen
	}
	return nil
}

// decoded is what a handler of Connect reads of a message in base64, line feeds among it, up to what is wrong with it: that
// the handler says.
func decoded(message string) []byte {
	const quantum = 4                 // characters that belong together
	encoding := base64.RawURLEncoding // which is padded nowhere
	if len(message)%quantum == 0 {
		encoding = base64.URLEncoding
	}
	out, _ := io.ReadAll(base64.NewDecoder(encoding, strings.NewReader(message)))
	return out
}
