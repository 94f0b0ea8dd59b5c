// Package held keeps what is to be told to code of the user's until no lock is held any more.
package held

import (
	"context"
	"log/slog"
	"sync"
)

// Queue holds values while somebody has a lock. The zero value holds nothing.
type Queue[T any] struct {
	mu      sync.Mutex
	holding bool
	telling bool
	values  []T
}

// Hold keeps from now on what comes. The caller has the lock that there is one of.
func (q *Queue[T]) Hold() { q.hold(true) }

// Release keeps nothing from now on. What is kept waits for Tell.
func (q *Queue[T]) Release() { q.hold(false) }

func (q *Queue[T]) hold(holding bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.holding = holding
}

// Keep keeps a value, or reports that it may be told.
func (q *Queue[T]) Keep(value T) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.holding {
		q.values = append(q.values, value)
	}
	return q.holding
}

// Tell tells what was kept, in its order and without a lock. Where it is being told already, as
// to code that makes something to tell, that goes on with it.
func (q *Queue[T]) Tell(tell func(T)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.telling {
		return
	}
	q.telling = true
	defer func() { q.telling = false }()
	for len(q.values) > 0 {
		value := q.values[0]
		q.values = q.values[1:]
		func() {
			q.mu.Unlock()
			defer q.mu.Lock()
			tell(value)
		}()
	}
}

// Line is one of a log that is kept.
type Line struct {
	to     slog.Handler
	ctx    context.Context //nolint:containedctx // of whoever logged
	record slog.Record
}

// Write writes it.
func (l Line) Write() { _ = l.to.Handle(l.ctx, l.record) }

// Handler returns a handler whose lines are kept where a queue keeps them.
func Handler(to slog.Handler, lines *Queue[Line]) slog.Handler { return handler{to, lines} }

type handler struct {
	slog.Handler

	lines *Queue[Line]
}

// Handle implements slog.Handler.
func (h handler) Handle(ctx context.Context, r slog.Record) error {
	if h.lines.Keep(Line{to: h.Handler, ctx: ctx, record: r}) {
		return nil
	}
	return h.Handler.Handle(ctx, r) //nolint:wrapcheck // the handler's own error
}

// WithAttrs implements slog.Handler.
func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(attrs), h.lines}
}

// WithGroup implements slog.Handler.
func (h handler) WithGroup(name string) slog.Handler {
	return handler{h.Handler.WithGroup(name), h.lines}
}
