// Package inflight knows the requests that are being served, so that whoever
// decides that one must end can end it: at once for its handler, soon for its
// peer. It knows nothing of who calls or why a call ends.
package inflight

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/late"
)

// EndGrace is how long a call that is ended may take to tell its peer so. A peer
// that does not read is cut off then.
const EndGrace = 2 * time.Second

// Call is a request while it is served. It is safe for concurrent use.
type Call struct {
	// Fixed by Begin.
	ctrl http.ResponseController

	ctx late.Context

	mu    sync.Mutex
	over  bool // the response must not be touched any more
	reads bool // the handler may wait for more of the request
}

// New returns the call of a request and the context that ends with it. Whoever
// makes it calls [Call.Done] when the request is served.
func New(ctx context.Context, w http.ResponseWriter) (context.Context, *Call) {
	c := new(Call)
	ctx = c.Begin(ctx, nil, w)
	return ctx, c
}

// Begin does what New does with a zero Call. The root is a context that ctx is, but for values; nil where that is not known.
func (c *Call) Begin(ctx, root context.Context, w http.ResponseWriter) context.Context {
	c.ctrl = *http.NewResponseController(w)
	c.ctx.InitUnder(ctx, root)
	return &c.ctx
}

// End ends the call: its context and its request at once, its response soon.
func (c *Call) End(cause error) {
	c.ctx.End(cause)
	c.CutOffSoon()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reads && !c.over {
		_ = c.ctrl.SetReadDeadline(time.Unix(1, 0)) // wakes a handler that waits for more
	}
}

// CutOffSoon cuts the call off unless what it writes is read soon.
func (c *Call) CutOffSoon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		_ = c.ctrl.SetWriteDeadline(time.Now().Add(EndGrace)) // not every writer has deadlines
	}
}

// Done says that the request is served. Nothing touches its response any more.
func (c *Call) Done() {
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	c.ctx.End(nil)
}

// WithBody returns the request with a body on which its handler may wait: the end
// of the call wakes the handler, and the error is what why makes of the request's
// context.
func (c *Call) WithBody(r *http.Request, why func(context.Context) error) *http.Request {
	c.mu.Lock()
	c.reads = true
	if c.ctx.Err() != nil && !c.over { // whoever ended it did not know
		_ = c.ctrl.SetReadDeadline(time.Unix(1, 0))
	}
	c.mu.Unlock()
	ctx := r.Context()
	out := r.WithContext(ctx)
	out.Body = body{r.Body, func() error {
		if ctx.Err() == nil {
			return nil
		}
		return why(ctx)
	}}
	return out
}

// body is the body of a request that a handler reads. Where the call was ended,
// reading it says why.
type body struct {
	io.ReadCloser

	ended func() error // nil while the call goes on
}

// Read implements io.Reader.
func (b body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		if why := b.ended(); why != nil {
			return n, why
		}
	}
	return n, err //nolint:wrapcheck // the body's own error
}
