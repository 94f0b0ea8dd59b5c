package guest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/held"
)

// Log returns a logger of the user's so that its handler ends no process and holds nobody up. Of one that panics the line is
// lost. One that does not return is waited for a moment, and as long as it has not returned what is logged is lost, but for
// how much that was. The first time of either the program's default logger says so. What is whose handler it is. Nil
// stays nil.
func Log(what string, l *slog.Logger) *slog.Logger {
	if l == nil {
		return nil
	}
	if _, again := l.Handler().(*logHandler); again {
		return l
	}
	return slog.New(&logHandler{to: l.Handler(), log: &log{what: what, own: l.Handler(), writing: make(chan struct{}, most)}})
}

// patience is how long whoever logs waits for the handler. Whoever writes to a terminal or to another machine takes less.
const patience = time.Second

// most bounds the lines that are being written, and so what is left to a handler that does not return.
const most = 256

// log is what the handlers that are made of one share.
type log struct {
	// Fixed at creation.
	what string
	own  slog.Handler

	writing        chan struct{} // has an entry for each line that is being written
	panics, stands sync.Once     // said by the default log
	overdue        atomic.Int64  // lines that are being written and nobody waits for
	lost           atomic.Int64  // lines since the last one that was written
}

// logHandler contains a handler.
type logHandler struct {
	// Fixed at creation.
	to  slog.Handler
	log *log
}

// Enabled implements slog.Handler. While nothing is written nothing is to be.
func (h *logHandler) Enabled(ctx context.Context, level slog.Level) (enabled bool) {
	if h.log.overdue.Load() > 0 {
		if level >= slog.LevelInfo {
			h.log.lost.Add(1)
		}
		return false
	}
	h.log.tell(Contain(h.log.what, func() error {
		enabled = h.to.Enabled(ctx, level)
		return nil
	}))
	return enabled
}

// Handle implements slog.Handler.
func (h *logHandler) Handle(ctx context.Context, r slog.Record) error {
	if n := h.log.lost.Load(); n > 0 && h.log.overdue.Load() == 0 && h.log.lost.CompareAndSwap(n, 0) {
		again := slog.NewRecord(time.Now(), slog.LevelWarn, "the log handler did not return; lines are lost", 0)
		again.AddAttrs(slog.Int64("not_logged", n))
		_ = h.write(ctx, again)
	}
	if h.log.overdue.Load() > 0 {
		h.log.lost.Add(1)
		return fmt.Errorf("%s %w", h.log.what, ErrRuns)
	}
	err := h.write(ctx, r)
	h.log.tell(err)
	return err
}

// WithAttrs implements slog.Handler.
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.with(func() slog.Handler { return h.to.WithAttrs(settledAttrs(attrs)) })
}

// WithGroup implements slog.Handler.
func (h *logHandler) WithGroup(name string) slog.Handler {
	return h.with(func() slog.Handler { return h.to.WithGroup(name) })
}

// write has a line written in a goroutine of its own, which it leaves to the handler where that takes too long.
func (h *logHandler) write(ctx context.Context, r slog.Record) error {
	if err := Contain(h.log.what, func() error { r = settled(r); return nil }); err != nil {
		return err
	}
	var over atomic.Bool // set by the end of the line or of the patience, whichever comes first
	came := make(chan error, 1)
	enough := time.NewTimer(patience)
	defer enough.Stop()
	select {
	case h.log.writing <- struct{}{}:
	case <-enough.C:
		h.log.lost.Add(1)
		return fmt.Errorf("%s %w", h.log.what, ErrRuns)
	}
	go func() {
		err := error(&PanicError{What: h.log.what}) // after a Goexit only what is deferred runs
		defer func() {
			<-h.log.writing
			came <- err
			if !over.CompareAndSwap(false, true) {
				h.log.overdue.Add(-1)
			}
		}()
		held.Aside(func() {
			err = Contain(h.log.what, func() error { return h.to.Handle(ctx, r) })
		})
	}()
	select {
	case err := <-came:
		return err
	case <-enough.C:
	}
	h.log.overdue.Add(1)
	if !over.CompareAndSwap(false, true) { // at that moment
		h.log.overdue.Add(-1)
		return <-came
	}
	return fmt.Errorf("%s %w", h.log.what, ErrRuns)
}

// with returns what another handler is made of this one, or this one where that panics.
func (h *logHandler) with(made func() slog.Handler) slog.Handler {
	out := *h
	err := Contain(h.log.what, func() error {
		out.to = made()
		return nil
	})
	h.log.tell(err)
	return &out
}

// tell says once that the handler panicked, and once that it does not return, where that is another one's matter.
func (l *log) tell(err error) {
	if p, ok := errors.AsType[*PanicError](err); ok {
		l.panics.Do(func() {
			l.say("a log handler panicked; what it does not write is lost", "error", p, "stack", string(p.Stack))
		})
	}
	if errors.Is(err, ErrRuns) {
		// It may wait for the same as the handler does.
		l.stands.Do(func() { go l.say("a log handler does not return; what it does not write is lost", "error", err) })
	}
}

func (l *log) say(text string, args ...any) {
	_ = Contain("slog.Default", func() error {
		if other := slog.Default(); other.Handler() != l.own {
			other.Error(text, args...)
		}
		return nil
	})
}
