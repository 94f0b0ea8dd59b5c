package proxy

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// maxTail bounds what is kept of the end of a response, and of what it holds unpacked.
	maxTail = 4 << 10

	codeUnknown         = 2
	codeUnimplemented   = 12
	codeUnauthenticated = 16

	flagCompressed = 0b0000_0001

	codingGzip = "gzip"

	fieldContentEncoding = "Content-Encoding"
	fieldConnectEncoding = "Connect-Content-Encoding"
	fieldGRPCEncoding    = "Grpc-Encoding"
)

// codeNames are the names of the codes in Connect.
var codeNames = [...]string{
	"", "canceled", "unknown", "invalid_argument", "deadline_exceeded", "not_found", "already_exists", "permission_denied",
	"resource_exhausted", "failed_precondition", "aborted", "out_of_range", "unimplemented", "internal", "unavailable",
	"data_loss", "unauthenticated",
}

// Outcome reads off a response, while it passes by, how its RPC ended, and counts. No more
// than the end of a response is kept of it, and of that a bounded part. The zero value is
// before the first; it is not safe for concurrent use.
type Outcome struct {
	// RequestBytes and ResponseBytes are the sizes of the bodies as far as they went.
	RequestBytes, ResponseBytes int64
	// Began is when the call began.
	Began time.Time

	framing   framing
	status    int    // zero before there is a response
	code      uint32 // that a field stated
	stated    bool   // there was such a field
	packed    bool   // what the end may be compressed with is gzip
	failed    bool   // it is an error of a unary call, and its body says which
	envelopes envelopes
	tail      []byte
}

// Reset makes it the zero value, and keeps memory. A nil one stays nil.
func (o *Outcome) Reset() {
	if o != nil {
		*o = Outcome{tail: o.tail[:0]}
	}
}

// Head takes in the head of the response as the caller gets it. Names are canonical.
func (o *Outcome) Head(status int, header http.Header) {
	o.head(status, header, framingOf(first(header[fieldContentType])))
}

// Body takes in the next part of the body.
func (o *Outcome) Body(p []byte) {
	o.ResponseBytes += int64(len(p))
	switch {
	case o.failed:
		o.keep(p)
	case o.framing == framingConnect, o.framing == framingGRPCWeb:
		o.envelopes.follow(p, o)
	}
}

// Trailer takes in a field of the trailer.
func (o *Outcome) Trailer(name, value string) {
	if o.framing == framingGRPC && http.CanonicalHeaderKey(name) == fieldStatus {
		o.state(value)
	}
}

// End takes in when the call began that is over, and how much went to the provider.
func (o *Outcome) End(begun time.Time, sent int64) {
	o.Began, o.RequestBytes = begun, sent
}

// Code returns the code of gRPC and Connect with which the RPC ended, zero for success, once
// the response is complete. What says none, or none that can be read, is unknown.
func (o *Outcome) Code() uint32 {
	switch {
	case o.stated && o.status == http.StatusOK: // beside another status no client reads it
		return o.code
	case o.failed, o.framing == framingConnect:
		if code, ok := o.readJSON(); ok {
			return code
		}
	case o.framing == framingGRPCWeb:
		if code, ok := o.readTrailers(); ok {
			return code
		}
	}
	if o.framing != framingNone && o.status == http.StatusOK {
		return codeUnknown // the end is missing, or is not to be read
	}
	return codeOfStatus(o.status)
}

// Answers reports whether an answer began that says nothing of a failure so far: who began it knows the procedure.
func (o *Outcome) Answers() bool {
	return o.status >= http.StatusOK && o.status < http.StatusMultipleChoices && (!o.stated || o.code == 0)
}

// head does what Head does where the framing is known. The names are canonical, so they are
// looked up as they are.
func (o *Outcome) head(status int, header http.Header, f framing) {
	o.status, o.framing = status, f
	switch f {
	case framingGRPC, framingGRPCWeb:
		o.packed = first(header[fieldGRPCEncoding]) == codingGzip
		if values := header[fieldStatus]; len(values) > 0 { // a response that is all trailers
			o.state(values[0])
		}
	case framingConnect:
		o.packed = first(header[fieldConnectEncoding]) == codingGzip
	case framingNone:
		if status >= http.StatusMultipleChoices {
			o.packed = first(header[fieldContentEncoding]) == codingGzip
			o.failed = strings.HasPrefix(first(header[fieldContentType]), "application/json")
		}
	}
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// keep adds to the tail what there is room for.
func (o *Outcome) keep(p []byte) {
	o.tail = append(o.tail, p[:min(len(p), maxTail-len(o.tail))]...)
}

// state takes in the status as gRPC writes it.
func (o *Outcome) state(value string) {
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil || n >= uint64(len(codeNames)) {
		n = codeUnknown
	}
	o.code, o.stated = uint32(n), true
}

// unpacked returns the tail without its compression, and reports whether that was possible.
func (o *Outcome) unpacked() ([]byte, bool) {
	compressed := o.framing == framingNone && o.packed || o.framing != framingNone && o.envelopes.head[0]&flagCompressed != 0
	if !compressed {
		return o.tail, true
	}
	if !o.packed {
		return nil, false
	}
	z, err := gzip.NewReader(bytes.NewReader(o.tail))
	if err != nil {
		return nil, false
	}
	text, _ := io.ReadAll(io.LimitReader(z, maxTail)) // of what was cut off the beginning will do
	return text, len(text) > 0
}

// readTrailers reads the trailers at the end of a gRPC-Web stream.
func (o *Outcome) readTrailers() (uint32, bool) {
	text, ok := o.unpacked()
	if !ok || !o.envelopes.ended {
		return 0, false
	}
	for line := range bytes.Lines(text) {
		name, value, _ := strings.Cut(string(bytes.TrimSpace(line)), ":")
		if http.CanonicalHeaderKey(strings.TrimSpace(name)) == fieldStatus {
			o.state(strings.TrimSpace(value))
			return o.code, true
		}
	}
	return 0, false
}

// readJSON reads the error of a unary call of Connect, or the end of one of its streams, in
// which there may be none.
func (o *Outcome) readJSON() (uint32, bool) {
	text, ok := o.unpacked()
	if !ok || o.framing == framingConnect && !o.envelopes.ended {
		return 0, false
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if o.framing == framingConnect {
		if found, whole := member(d, "error"); !found {
			return 0, whole
		}
	}
	if found, _ := member(d, "code"); !found {
		return 0, false
	}
	var name string
	if d.Decode(&name) != nil {
		return 0, false
	}
	for code, known := range codeNames {
		if name == known && code > 0 {
			return uint32(code), true
		}
	}
	return 0, false
}

// member goes on to the value of a member of the object that comes next, and reports whether
// it is there; whole reports that the object is complete where it is not. The text may be cut
// off behind the member.
func member(d *json.Decoder, name string) (found, whole bool) {
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return false, false
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return false, false
		}
		if key == name {
			return true, false
		}
		var skipped json.RawMessage
		if d.Decode(&skipped) != nil {
			return false, false
		}
	}
	end, err := d.Token()
	return false, err == nil && end == json.Delim('}')
}

// codeOfStatus is the code of a response that says nothing but a status of HTTP, as Connect
// and gRPC map it.
func codeOfStatus(status int) uint32 {
	switch status {
	case http.StatusBadRequest:
		return codeInternal
	case http.StatusUnauthorized:
		return codeUnauthenticated
	case http.StatusForbidden:
		return codePermissionDenied
	case http.StatusNotFound:
		return codeUnimplemented
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return codeUnavailable
	}
	if status >= http.StatusOK && status < http.StatusMultipleChoices {
		return 0
	}
	return codeUnknown
}
