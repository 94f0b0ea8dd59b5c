package main

import (
	"context"
	"slices"
	"sync"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

// record is what the kit's host saw of the subject, in order. It is safe for concurrent
// use.
type record struct {
	self string // fixed at creation

	mu      sync.Mutex
	events  []connectplugin.AuditEvent
	watches []*connectpluginv1.WatchServiceRequest
	asked   []*connectpluginv1.HandshakeRequest
	given   []string      // tokens
	changed chan struct{} // closed and replaced with each entry
}

func newRecord(self string) *record { return &record{self: self, changed: make(chan struct{})} }

// WrapUnary implements connect.Interceptor: it notes handshakes of the subject.
func (r *record) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if m, ok := req.Any().(*connectpluginv1.HandshakeRequest); ok && m.GetSelfId() == r.self {
			r.add(func() { r.asked = append(r.asked, m) })
			resp, err := next(ctx, req)
			if err == nil {
				r.keep(resp)
			}
			return resp, err
		}
		return next(ctx, req)
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (*record) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements connect.Interceptor: it notes the watches of the
// subject.
func (r *record) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if c, ok := connectplugin.CallerFromContext(ctx); ok && c.SelfID == r.self {
			conn = &notedConn{StreamingHandlerConn: conn, record: r}
		}
		return next(ctx, conn)
	}
}

func (r *record) add(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	close(r.changed)
	r.changed = make(chan struct{})
}

// keep keeps the token of an answer.
func (r *record) keep(resp connect.AnyResponse) {
	if m, ok := resp.Any().(*connectpluginv1.HandshakeResponse); ok {
		r.add(func() { r.given = append(r.given, m.GetRuntimeToken()) })
	}
}

// tokens are those that the subject was given.
func (r *record) tokens() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.given)
}

func (r *record) audit(e connectplugin.AuditEvent) {
	if e.SelfID == r.self {
		r.add(func() { r.events = append(r.events, e) })
	}
}

// await waits until a condition of the record holds, which is read under its lock.
func (r *record) await(ctx context.Context, holds func() bool) error {
	for {
		r.mu.Lock()
		ok, changed := holds(), r.changed
		r.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// mark is how long the record is now, to be waited beyond.
func (r *record) mark() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.events)
}

// event waits for an event of a kind beyond a mark.
func (r *record) event(ctx context.Context, mark int, kind connectplugin.AuditKind) (connectplugin.AuditEvent, error) {
	var found connectplugin.AuditEvent
	err := r.await(ctx, func() bool {
		for _, e := range r.events[mark:] {
			if e.Kind == kind {
				found = e
				return true
			}
		}
		return false
	})
	return found, err
}

// notedConn notes what a watch asks for.
type notedConn struct {
	connect.StreamingHandlerConn

	record *record
}

// Receive implements connect.StreamingHandlerConn.
func (c *notedConn) Receive(m any) error {
	err := c.StreamingHandlerConn.Receive(m)
	if w, ok := m.(*connectpluginv1.WatchServiceRequest); ok && err == nil {
		c.record.add(func() { c.record.watches = append(c.record.watches, w) })
	}
	return err //nolint:wrapcheck // stands for what it wraps
}
