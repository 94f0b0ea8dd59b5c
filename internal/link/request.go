package link

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/headers"
	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

const (
	usualFields = 24 // header fields for which a request has room at first
	// wholeBody is the stated length up to which a body that does not wait is sent
	// complete, with the header.
	wholeBody = 128 << 10

	contentLength = "Content-Length"
	contentType   = "Content-Type"
)

// What is wrong with a request.
var (
	errMethod  = errors.New("link: method is not valid")
	errTarget  = errors.New("link: URL is not one of HTTP")
	errField   = errors.New("link: header field is not valid")
	errTrailer = errors.New("link: a request has no trailer here; send what it says in the header or the body")
)

// exchange is a request on its way, and what becomes of it.
type exchange struct {
	r       *http.Request
	request h2.Request
	fields  *[]hpack.HeaderField
	whole   *h2.Buffer // the body, where it is sent complete
	length  int64      // of the body, -1 if it is not stated
	passed  bool       // the body is closed by somebody else
}

var fieldLists = sync.Pool{New: func() any {
	list := make([]hpack.HeaderField, 0, usualFields)

	return &list
}}

// newExchange checks a request and prepares it. The body is closed if it fails.
func newExchange(r *http.Request) (*exchange, error) {
	x := &exchange{r: r, length: bodyLength(r)}

	err := x.check()
	if err == nil {
		x.fields, _ = fieldLists.Get().(*[]hpack.HeaderField)
		err = x.list()
	}

	if err == nil {
		err = x.readWhole()
	}

	if err != nil {
		x.settle()

		return nil, err
	}

	x.request = h2.Request{
		Fields: *x.fields,
		End:    x.whole != nil || x.length == 0,
		Gather: isUnary(r),
		Aside:  true,
		Head:   r.Method == http.MethodHead,
		Owner:  r.URL.Path,
	}
	if x.whole != nil {
		x.request.Body = x.whole.B
	}

	if !x.request.End {
		x.request.Over = func() { _ = r.Body.Close() }
	}

	return x, nil
}

// settle gives back what the exchange does not need any more.
func (x *exchange) settle() {
	if x.fields != nil {
		clear(*x.fields)
		*x.fields = (*x.fields)[:0]
		fieldLists.Put(x.fields)
		x.fields = nil
	}

	if !x.passed {
		x.passed = true

		x.whole.Release()

		if x.r.Body != nil {
			_ = x.r.Body.Close()
		}
	}
}

func (x *exchange) check() error {
	r := x.r
	switch {
	case r.Method != "" && !isToken(r.Method):
		return errMethod
	case r.URL == nil || r.URL.Scheme != "https" && r.URL.Scheme != "http", !httpguts.ValidHostHeader(authority(r)):
		return errTarget
	case len(r.Trailer) > 0:
		return errTrailer
	default:
		return r.Context().Err()
	}
}

// list writes the header fields.
func (x *exchange) list() error {
	r := x.r

	path := r.URL.RequestURI()
	if path[0] != '/' || strings.ContainsFunc(path, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
		return errTarget
	}

	method := r.Method
	if method == "" {
		method = http.MethodGet
	}

	x.add(":method", method)
	x.add(":scheme", r.URL.Scheme)
	x.add(":authority", authority(r))
	x.add(":path", path)

	if x.length > 0 || x.length == 0 && r.Method == http.MethodPost {
		x.add("content-length", strconv.FormatInt(x.length, 10))
	}

	for name, values := range r.Header {
		if err := x.addValid(name, values); err != nil {
			return err
		}
	}

	return nil
}

// addValid adds a field of the request, unless it is none of HTTP/2.
func (x *exchange) addValid(name string, values []string) error {
	lower := headers.Lower(name)
	if isHopByHop(lower) {
		return nil
	}

	if !isToken(name) {
		return fmt.Errorf("%w: %q", errField, name)
	}

	for _, value := range values {
		if !httpguts.ValidHeaderFieldValue(value) {
			return fmt.Errorf("%w: the value of %q", errField, name)
		}

		x.add(lower, value)
	}

	return nil
}

func (x *exchange) add(name, value string) {
	*x.fields = append(*x.fields, hpack.HeaderField{Name: name, Value: value})
}

// readWhole reads a body that is short and does not wait: one that can be had again.
func (x *exchange) readWhole() error {
	if x.length <= 0 || x.length > wholeBody || x.r.GetBody == nil {
		return nil
	}

	x.whole = h2.GetBuffer(int(x.length))
	x.whole.B = x.whole.B[:x.length]

	if _, err := io.ReadFull(x.r.Body, x.whole.B); err != nil {
		return fmt.Errorf("read request: %w", err)
	}

	return nil
}

// authority is the host that a request is for, without the zone of its address: that means something
// on this machine alone (RFC 6874, section 4).
func authority(r *http.Request) string {
	host := cmp.Or(r.Host, r.URL.Host)

	zone, end := strings.IndexByte(host, '%'), strings.LastIndexByte(host, ']')
	if zone < 0 || end < zone || host[0] != '[' {
		return host
	}

	return host[:zone] + host[end:]
}

// bodyLength is the length of a request's body, -1 if it is not stated.
func bodyLength(r *http.Request) int64 {
	switch {
	case r.Body == nil || r.Body == http.NoBody:
		return 0
	case r.ContentLength > 0:
		return r.ContentLength
	default:
		return -1
	}
}

// isHopByHop reports whether a field is none that HTTP/2 has (RFC 9113, section 8.2.2),
// or one that is written otherwise.
func isHopByHop(name string) bool {
	switch name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade", "host", "content-length", "trailer":
		return true
	default:
		return false
	}
}

// isUnary reports whether a request looks like one whose response is a single message: a
// unary call of Connect. Its parts are gathered for a moment, which ends early where the
// response turns out to be something else.
func isUnary(r *http.Request) bool {
	kind := r.Header[contentType]
	if len(kind) == 0 {
		return r.Method == http.MethodGet
	}

	codec, ok := strings.CutPrefix(kind[0], "application/")

	return ok && !strings.HasPrefix(codec, "grpc") && !strings.HasPrefix(codec, "connect+")
}

func isToken(s string) bool {
	for i := range len(s) {
		if !httpguts.IsTokenRune(rune(s[i])) {
			return false
		}
	}

	return s != ""
}
