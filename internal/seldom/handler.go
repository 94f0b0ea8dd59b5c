// Package seldom bounds what somebody else can make a program write into its log: so many lines
// of a kind at once, and then one in a while, the latest, which says how many there were.
package seldom

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Config is what a [Handler] keeps to.
type Config struct {
	Burst int                   // lines of a kind that are written at once
	Every time.Duration         // when one more is
	Kinds int                   // how many kinds are told apart; what is beyond them is one
	Key   string                // the attribute that tells lines of the same level and message apart
	More  string                // the attribute of how many lines were not written
	Clip  func(s string) string // bounds a text
}

// kind is what lines have in common that are counted together.
type kind struct {
	level    slog.Level
	text, of string
}

// tempo is how much of a kind was written.
type tempo struct {
	used  float64 // of the burst
	at    time.Time
	held  *line // the latest that was not written, nil for none
	more  int   // before that
	timer *time.Timer
}

// line is one that waits.
type line struct {
	to     slog.Handler
	record slog.Record
}

// Handler is a [slog.Handler] that bounds what it passes on. Make it with [New] and end it with
// [Handler.Close]; it is safe for concurrent use.
type Handler struct {
	to    slog.Handler
	kinds *kinds
}

// kinds is what the handlers of one log share.
type kinds struct {
	// Fixed at creation.
	cfg     Config
	pending sync.WaitGroup // timers

	mu     sync.Mutex
	tempos map[kind]*tempo
	closed bool
}

// New returns a handler that passes on to another one.
func New(to slog.Handler, cfg Config) *Handler {
	return &Handler{to: to, kinds: &kinds{cfg: cfg, tempos: map[kind]*tempo{}}}
}

// Enabled implements slog.Handler.
func (h *Handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.to.Enabled(ctx, level)
}

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Handler{to: h.to.WithAttrs(attrs), kinds: h.kinds}
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{to: h.to.WithGroup(name), kinds: h.kinds}
}

// Handle implements slog.Handler.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	if !h.kinds.due(h.to, r, time.Now()) {
		return nil
	}
	return h.to.Handle(ctx, h.kinds.clipped(r)) //nolint:wrapcheck // stands for what it wraps
}

// Close writes at once what waits, with how much there was. Later lines that are too many are dropped.
func (h *Handler) Close() {
	k := h.kinds
	k.mu.Lock()
	k.closed = true
	var last []*tempo
	for _, t := range k.tempos {
		if t.timer != nil && t.timer.Stop() {
			k.pending.Done()
			last = append(last, t)
		}
	}
	k.mu.Unlock()
	for _, t := range last {
		k.release(t, time.Now())
	}
	k.pending.Wait()
}

// due reports whether a line is to be written now, and holds it otherwise.
func (k *kinds) due(to slog.Handler, r slog.Record, now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.tempoLocked(k.kindOf(r), now)
	if t.used = max(t.used-float64(now.Sub(t.at))/float64(k.cfg.Every), 0); now.After(t.at) {
		t.at = now
	}
	if t.held == nil && t.used+1 <= float64(k.cfg.Burst) {
		t.used++
		return true
	}
	if k.closed {
		return false
	}
	if t.held != nil {
		t.more++
	}
	t.held = &line{to, r.Clone()}
	if t.timer == nil {
		k.pending.Add(1)
		t.timer = time.AfterFunc(time.Duration((t.used+1-float64(k.cfg.Burst))*float64(k.cfg.Every)), func() {
			defer k.pending.Done()
			k.release(t, time.Now())
		})
	}
	return false
}

// release writes what is held of a kind.
func (k *kinds) release(t *tempo, now time.Time) {
	k.mu.Lock()
	held, more := t.held, t.more
	t.held, t.more, t.timer = nil, 0, nil
	t.used, t.at = float64(k.cfg.Burst), now
	k.mu.Unlock()
	r := k.clipped(held.record)
	if more > 0 {
		r.AddAttrs(slog.Int(k.cfg.More, more))
	}
	_ = held.to.Handle(context.Background(), r) // there is nobody to tell
}

func (k *kinds) kindOf(r slog.Record) kind {
	of := kind{level: r.Level, text: r.Message}
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == k.cfg.Key && a.Value.Kind() == slog.KindString {
			of.of = k.cfg.Clip(a.Value.String())
		}
		return true
	})
	return of
}

// tempoLocked returns the tempo of a kind. Where there are too many those are forgotten that have all of
// their burst again.
func (k *kinds) tempoLocked(of kind, now time.Time) *tempo {
	t := k.tempos[of]
	if t == nil && len(k.tempos) >= k.cfg.Kinds {
		for old, t := range k.tempos {
			if t.held == nil && now.Sub(t.at) >= time.Duration(t.used*float64(k.cfg.Every)) {
				delete(k.tempos, old)
			}
		}
		if len(k.tempos) >= k.cfg.Kinds {
			of = kind{}
			t = k.tempos[of]
		}
	}
	if t == nil {
		t = &tempo{at: now}
		k.tempos[of] = t
	}
	return t
}

// clipped returns a record whose texts are bounded. An error that is short and clean stays one.
func (k *kinds) clipped(r slog.Record) slog.Record {
	out := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		said, text := "", false
		if err, ok := a.Value.Any().(error); ok {
			said, text = err.Error(), true
		} else if a.Value.Kind() == slog.KindString {
			said, text = a.Value.String(), true
		}
		if short := k.cfg.Clip(said); text && short != said {
			a.Value = slog.StringValue(short)
		}
		out.AddAttrs(a)
		return true
	})
	return out
}
