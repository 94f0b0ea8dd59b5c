package guest

import (
	"context"
	"errors"
	"log/slog"
	"sync"
)

// Log returns a logger of the user's so that a panic of its handler ends no process: the line is lost, and the first time the
// program's default logger says so. What is whose handler it is. Nil stays nil.
func Log(what string, l *slog.Logger) *slog.Logger {
	if l == nil {
		return nil
	}
	if _, again := l.Handler().(*logHandler); again {
		return l
	}
	return slog.New(&logHandler{to: l.Handler(), what: what, told: new(sync.Once)})
}

// logHandler contains the panics of a handler.
type logHandler struct {
	// Fixed at creation.
	to   slog.Handler
	what string
	told *sync.Once
}

// Enabled implements slog.Handler.
func (h *logHandler) Enabled(ctx context.Context, level slog.Level) (enabled bool) {
	h.tell(Contain(h.what, func() error {
		enabled = h.to.Enabled(ctx, level)
		return nil
	}))
	return enabled
}

// Handle implements slog.Handler.
func (h *logHandler) Handle(ctx context.Context, r slog.Record) error {
	err := Contain(h.what, func() error { return h.to.Handle(ctx, r) })
	h.tell(err)
	return err
}

// WithAttrs implements slog.Handler.
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.with(func() slog.Handler { return h.to.WithAttrs(attrs) })
}

// WithGroup implements slog.Handler.
func (h *logHandler) WithGroup(name string) slog.Handler {
	return h.with(func() slog.Handler { return h.to.WithGroup(name) })
}

// with returns what another handler is made of this one, or this one where that panics.
func (h *logHandler) with(made func() slog.Handler) slog.Handler {
	out := *h
	err := Contain(h.what, func() error {
		out.to = made()
		return nil
	})
	h.tell(err)
	return &out
}

// tell says once that the handler panicked, where that is another one's matter.
func (h *logHandler) tell(err error) {
	p, ok := errors.AsType[*PanicError](err)
	if !ok {
		return
	}
	h.told.Do(func() {
		_ = Contain("slog.Default", func() error {
			if other := slog.Default(); other.Handler() != h.to {
				other.Error("a log handler panicked; what it does not write is lost", "error", p, "stack", string(p.Stack))
			}
			return nil
		})
	})
}
