package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/headers"
	"github.com/masegraye/connect-plugin-go/internal/late"
	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

const (
	// wholeBody is the stated length up to which a request is sent complete.
	wholeBody = 128 << 10
	// attempts is how often a request is sent that the provider refused
	// before it looked at it.
	attempts = 2
	// usualFields is how many header fields a request has room for at first.
	usualFields = 32
)

// Forward sends the request to the provider and writes its response to w. It
// returns when nothing of the call is left running. The request's context ends
// the call; its cause is the result's error then.
//
// Where the caller has to see that a response is broken, Forward sets a write
// deadline in the past, which resets an HTTP/2 stream; if w has no deadlines it
// panics with [http.ErrAbortHandler].
func (p *Provider) Forward(w http.ResponseWriter, r *http.Request, how Call) Result {
	how.Outcome.Reset()
	if err := checkRequest(r, how.Path); err != nil {
		return Result{Class: ClassRefused, Err: err}
	}
	c := p.newCall(&how, r)
	c.w, c.ctrl = w, *http.NewResponseController(w)
	if err := p.enter(c); err != nil {
		c.end()
		return Result{Class: ClassUnavailable, Err: err, Retryable: true}
	}
	if r.ProtoMajor == 1 {
		_ = c.ctrl.EnableFullDuplex() // a writer that cannot is one of a test
	}
	c.active.Store(true)
	ctx := r.Context()
	tie := late.OnEnd(ctx, c)
	defer func() {
		tie.Loose()
		c.end()
		p.leave(c)
	}()
	switch err := c.checkGet(); {
	case err != nil:
		c.fail(ClassRefused, err)
	case p.cfg.Handler != nil:
		c.dispatch(ctx)
	default:
		c.forward()
	}
	c.end()
	if c.why() != nil {
		// The deadlines of w are those of an end: nothing else can be made of it.
		c.result.Retryable = false
	}
	return c.result
}

// newCall returns the call of a request.
func (p *Provider) newCall(how *Call, r *http.Request) *call {
	var c *call
	if p.cfg.Handler != nil {
		own := new(memoryCall)
		c = &own.call
		c.own = own
	} else {
		c = new(call)
	}
	c.Call, c.p, c.r, c.start, c.unary, c.length = *how, p, r, time.Now(), isUnary(r, how.ContentType), r.ContentLength
	return c
}

// checkRequest refuses what no RPC asks for.
func checkRequest(r *http.Request, path string) error {
	switch {
	case r.Method == http.MethodPost:
	case r.Method != http.MethodGet, r.ContentLength > 0:
		return fmt.Errorf("%w: %q", ErrMethod, r.Method)
	}
	if !validQuery(r.URL.RawQuery) {
		return fmt.Errorf("%w: query", ErrPath)
	}
	return CheckPath(path)
}

// checkGet refuses a GET with a body. One whose length is not stated may still be
// empty; then it is stated from now on.
func (c *call) checkGet() error {
	if c.r.Method != http.MethodGet || c.r.ContentLength == 0 {
		return nil
	}
	if n, err := io.ReadFull(c.r.Body, make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: GET with a body", ErrMethod)
	}
	c.length = 0
	return nil
}

// isUnary reports whether a request looks like one whose response is a single
// message: a unary call of Connect. Its parts are gathered for a moment, which
// ends early where the response turns out to be something else. The content type is
// empty where nobody has read it.
func isUnary(r *http.Request, contentType string) bool {
	if r.Method == http.MethodGet {
		return true
	}
	if contentType == "" {
		contentType = first(r.Header[fieldContentType])
	}
	codec, ok := strings.CutPrefix(contentType, "application/")
	return ok && !strings.HasPrefix(codec, "grpc") && !strings.HasPrefix(codec, "connect+")
}

// statesConnect reports whether the caller says that it speaks Connect. A unary response is
// then a single message, of which nobody can use a part.
func statesConnect(r *http.Request) bool {
	if r.Method == http.MethodGet {
		for parameter := range strings.SplitSeq(r.URL.RawQuery, "&") {
			if parameter == "connect=v1" {
				return true
			}
		}
		return false
	}
	return first(r.Header["Connect-Protocol-Version"]) == "1"
}

// forward exchanges the request and the response with a provider on the network.
func (c *call) forward() {
	request, err := c.prepare()
	if err != nil {
		c.fail(ClassCanceled, err)
		return
	}
	defer c.whole.Release()
	defer c.releaseFields()
	c.attempt(func() { c.exchange(request) })
}

// prepare reads what of the request is sent at once.
func (c *call) prepare() (h2.Request, error) {
	body, err := c.readWhole()
	if err != nil {
		return h2.Request{}, err
	}
	c.whole, c.fields = body, newFieldList()
	c.requestFields(c.fields)
	request := h2.Request{
		Fields: c.fields.fields,
		Own:    &c.fields.own,
		End:    body != nil || c.length == 0,
		Gather: c.unary,
		Whole:  c.unary && statesConnect(c.r),
		Owner:  c.account(),
		Payer:  h2.Payer{Name: c.account(), Instance: c.CallerID},
		Ahead:  c.Ahead,
		Holder: c.Holder,
	}
	if body != nil {
		request.Body = body.B
	}
	return request, nil
}

// attempt sends the request, and once more where the provider did not look at it. A body
// that was read can be read again where nobody else did.
func (c *call) attempt(once func()) {
	for range attempts {
		once()
		if !c.result.Retryable {
			return
		}
		if !errors.Is(c.result.Err, h2.ErrUnprocessed) {
			break
		}
	}
	if c.whole != nil {
		c.r.Body = io.NopCloser(bytes.NewReader(bytes.Clone(c.whole.B)))
	}
}

// readWhole reads the request's body if it is stated to be short. It returns nil
// for a body that is empty or is to be sent as it comes.
func (c *call) readWhole() (*h2.Buffer, error) {
	n := c.length
	if n <= 0 || n > wholeBody {
		return nil, nil //nolint:nilnil // documented
	}
	body := h2.GetBuffer(int(n))
	body.B = body.B[:n]
	if _, err := io.ReadFull(requestBody{c}, body.B); err != nil {
		body.Release()
		return nil, fmt.Errorf("read request: %w", err)
	}
	return body, nil
}

// exchange sends the request once and passes the response on.
func (c *call) exchange(request h2.Request) {
	c.result = Result{}
	stream, rest, err := c.p.open(c, request)
	if err != nil {
		c.unopened(err)
		return
	}
	if !request.End {
		c.releaseFields() // it is not sent again, and may take long
	}
	c.attach(stream)
	upload := c.startUpload(stream, request, rest)
	defer upload.wait()
	defer c.attach(nil)
	defer stream.Close()
	c.respond(stream)
	c.settle(request)
}

// unopened sets the result of a call for which there was no stream.
func (c *call) unopened(err error) {
	c.fail(ClassUnavailable, err)
	c.result.Latency = c.latency()
	c.result.Retryable = c.result.Class == ClassUnavailable && !errors.Is(err, h2.ErrTooLarge)
}

// settle says what else is known of a call that was sent.
func (c *call) settle(request h2.Request) {
	c.result.Sent = !errors.Is(c.result.Err, h2.ErrUnprocessed)
	if c.result.Class == ClassUnavailable && !c.result.Written {
		c.result.Retryable = request.End
	}
}

// fieldList is a reusable list of header fields.
type fieldList struct {
	fields []hpack.HeaderField
	own    h2.Literals // of the caller
	usual  uint        // which of the usual ones it has, a bit for each
}

var fieldLists sync.Pool

// usual are the fields of callers that are alike from call to call.
var usual = numbered(
	fieldContentType, fieldContentEncoding, fieldConnectEncoding, fieldGRPCEncoding, "Accept", "Accept-Encoding", "Connect-Accept-Encoding",
	"Connect-Protocol-Version", "Grpc-Accept-Encoding", "Te", "User-Agent", "X-User-Agent",
)

func numbered(names ...string) map[string]int {
	m := make(map[string]int, len(names))
	for i, name := range names {
		m[name] = i
	}
	return m
}

func newFieldList() *fieldList {
	if list, ok := fieldLists.Get().(*fieldList); ok {
		return list
	}
	return &fieldList{fields: make([]hpack.HeaderField, 0, usualFields)}
}

func (l *fieldList) add(name, value string) {
	l.fields = append(l.fields, hpack.HeaderField{Name: name, Value: value})
}

// pass adds a field of the caller's. One that calls usually have, and whose value is like that of other calls,
// takes a place in the table that the calls of a connection share, once.
func (l *fieldList) pass(name, value string) {
	if at, usual := usual[name]; usual && l.usual&(1<<at) == 0 {
		l.usual |= 1 << at
		l.add(headers.Lower(name), value)
		return
	}
	l.own.Add(name, value)
}

// releaseFields gives the list of the request's fields back.
func (c *call) releaseFields() {
	l := c.fields
	if l == nil {
		return
	}
	c.fields = nil
	clear(l.fields)
	l.fields, l.usual = l.fields[:0], 0
	l.own.Reset()
	fieldLists.Put(l)
}

// requestFields lists what the provider gets.
func (c *call) requestFields(list *fieldList) {
	endpoint := &c.p.cfg.Endpoint
	scheme := schemeTLS
	if endpoint.plaintext {
		scheme = schemePlaintext
	}
	path := endpoint.path + c.Path
	if c.r.URL.RawQuery != "" {
		path += "?" + c.r.URL.RawQuery
	}
	list.add(":method", c.r.Method)
	list.add(":scheme", scheme)
	list.add(":authority", c.p.authority)
	// One with a query is like no other call's.
	list.fields = append(list.fields, hpack.HeaderField{Name: ":path", Value: path, Sensitive: c.r.URL.RawQuery != ""})
	c.p.cfg.Headers.Each(headers.Request, c.r.Header, list.pass)
	if c.length > 0 {
		list.add("content-length", strconv.FormatInt(c.length, 10))
	}
	c.stated(func(name, value string) { list.add(headers.Lower(name), value) })
}
