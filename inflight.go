package connectplugin

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// endGrace is how long a call that the host ends may take to tell its peer so. A
// peer that does not read is cut off then.
const endGrace = 2 * time.Second

// call is a request while it is served, so that the host can end it.
type call struct {
	// Fixed at creation.
	cancel  context.CancelCauseFunc
	ctrl    *http.ResponseController
	allowed func(*ruleBook) bool // by a policy; set before the call is held

	mu    sync.Mutex
	over  bool // the response must not be touched any more
	reads bool // the handler may wait for more of the request
}

// newCall returns the call of a request and the context that ends with it.
func newCall(ctx context.Context, w http.ResponseWriter) (context.Context, *call) {
	c := &call{ctrl: http.NewResponseController(w)}
	ctx, c.cancel = context.WithCancelCause(ctx)
	return ctx, c
}

// end ends the call: its context and its request at once, its response soon.
func (c *call) end(cause error) {
	c.cancel(cause)
	c.hurry()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reads && !c.over {
		_ = c.ctrl.SetReadDeadline(time.Unix(1, 0)) // wakes a handler that waits for more
	}
}

// hurry cuts the call off unless what it writes is read soon.
func (c *call) hurry() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		_ = c.ctrl.SetWriteDeadline(time.Now().Add(endGrace)) // not every writer has deadlines
	}
}

// callBody is the body of a request that a handler reads. Where the host ended the
// call, reading it says why.
type callBody struct {
	io.ReadCloser

	ended func() error // nil while the call goes on
}

// Read implements io.Reader.
func (b callBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		if why := b.ended(); why != nil {
			return n, why
		}
	}
	return n, err //nolint:wrapcheck // the body's own error
}

// withBody returns the request with a body on which its handler may wait: the end
// of the call wakes the handler, and the error says why.
func (c *call) withBody(r *http.Request) *http.Request {
	c.mu.Lock()
	c.reads = true
	c.mu.Unlock()
	ctx := r.Context()
	out := r.WithContext(ctx)
	out.Body = callBody{r.Body, func() error {
		if ctx.Err() == nil {
			return nil
		}
		return endOfStream(ctx)
	}}
	return out
}

// endWith ends the call with the identity of its caller, which may be nil, and
// with the grant that it came with, until it is untied.
func (c *call) endWith(ctx context.Context, id *tokenstore.Identity) (untie func()) {
	stops := make([]func() bool, 0, 2)
	if id != nil {
		stops = append(stops, id.OnEnd(func() { c.end(errIdentityEnded) }))
	}
	if grant, ok := grantFrom(ctx); ok {
		stops = append(stops, grant.OnRevoke(func() { c.end(errGrantRevoked) }))
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}
}

// done says that the request is served.
func (c *call) done() {
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	c.cancel(nil)
}

// calls is a set of calls in flight.
type calls struct {
	mu  sync.Mutex
	all map[*call]struct{}
}

func (s *calls) add(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[*call]struct{}{}
	}
	s.all[c] = struct{}{}
}

func (s *calls) remove(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, c)
}

// list returns the calls that are in flight now.
func (s *calls) list() []*call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.all))
}

// hold lets a change of policy end a call: allowed is asked now and after each
// change, until the call is released. It reports false where policy does not
// allow the call. In the host's own process there is no call, and nothing to end.
func (h *hub) hold(c *call, allowed func(*ruleBook) bool) (release func(), ok bool) {
	if c == nil {
		return func() {}, true
	}
	c.allowed = allowed
	h.permitted.add(c)
	if !allowed(h.rules.Load()) {
		h.permitted.remove(c)
		return nil, false
	}
	return func() { h.permitted.remove(c) }, true
}
