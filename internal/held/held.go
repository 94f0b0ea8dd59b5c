// Package held keeps what is to be told to code of the user's until no lock is held any more.
package held

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/stack"
)

// patience is how long anybody waits for what others tell: code that is told may itself wait for whoever waits.
const patience = 5 * time.Second

// most bounds what waits to be told while nobody holds it; beyond that order is lost.
const most = 4096

// Queue tells values in their order, and holds them while somebody has a lock. The zero value holds nothing.
type Queue[T any] struct {
	mu         sync.Mutex
	holding    bool
	telling    bool
	values     []T
	kept, told uint64        // how many were kept, and of them told
	left       uint64        // up to which nobody waits for them, so that whoever tells goes on with them
	changed    chan struct{} // closed and replaced when one was told; nil while nobody waits
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
		q.kept++
	}
	return q.holding
}

// Pass tells a value: after those that are kept, and by whoever tells them. It keeps the value while there is a lock.
func (q *Queue[T]) Pass(value T, tell func(T)) {
	q.mu.Lock()
	if waits := q.telling || len(q.values) > 0; !q.holding && (!waits || len(q.values) >= most) {
		q.mu.Unlock()
		tell(value)
		return
	}
	defer q.mu.Unlock()
	q.values = append(q.values, value)
	q.kept++
	if !q.holding {
		q.await(q.kept, tell)
	}
}

// Tell tells what was kept, in its order and without a lock, and returns when that was told, by whomever, or a few seconds later.
// To code that is told and makes something to tell it returns at once: whoever tells goes on with that.
func (q *Queue[T]) Tell(tell func(T)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.await(q.kept, tell)
}

// await returns when so many were told. The caller has the lock, which is given back meanwhile.
func (q *Queue[T]) await(mark uint64, tell func(T)) {
	if q.told >= mark {
		return
	}
	if q.telling && toldHere() {
		q.left = max(q.left, mark)
		return
	}
	enough := time.NewTimer(patience)
	defer enough.Stop()
	for q.told < mark {
		if !q.telling {
			q.drain(mark, tell)
			continue
		}
		if q.changed == nil {
			q.changed = make(chan struct{})
		}
		if !q.wait(q.changed, enough.C) {
			q.left = max(q.left, mark)
			return
		}
	}
}

// wait reports whether something was told before it was enough.
func (q *Queue[T]) wait(changed <-chan struct{}, enough <-chan time.Time) bool {
	q.mu.Unlock()
	defer q.mu.Lock()
	select {
	case <-changed:
		return true
	case <-enough:
		return false
	}
}

// drain tells what is kept, up to a mark.
func (q *Queue[T]) drain(mark uint64, tell func(T)) {
	q.telling = true
	defer q.next(false)
	for q.told < max(mark, q.left) {
		value := q.values[0]
		q.values = q.values[1:]
		func() {
			q.mu.Unlock()
			defer func() {
				q.mu.Lock()
				q.told++
			}()
			tell(value)
		}()
		q.next(true)
	}
}

// next wakes up whoever waits.
func (q *Queue[T]) next(telling bool) {
	q.telling = telling
	if q.changed != nil {
		close(q.changed)
		q.changed = nil
	}
}

// Aside calls code of the user's as what is told something: it does not wait for what others tell, which may wait for it.
func Aside(f func()) { f() }

// toldHere reports whether this goroutine is in code that is told something.
func toldHere() bool { return stack.Below("internal/held.(*Queue[...]).drain", "internal/held.Aside") }

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
