package guest_test

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/guest"
)

var errOwn = errors.New("own")

func panics() error { panic("boom\n\x1b[31m") }

func derefs() error { return deref(nil) }

func deref(p *struct{ err error }) error { return p.err }

// A panic is an error that says whose it is, what it said, and where.
func TestContain(t *testing.T) {
	t.Parallel()

	for name, f := range map[string]func() error{"boom": panics, "nil pointer": derefs} {
		err := guest.Contain("Config.Field", f)

		var p *guest.PanicError
		if !errors.As(err, &p) || !strings.Contains(string(p.Stack), "guest_test.") {
			t.Fatalf("%s: %v", name, err)
		}

		text := err.Error()
		if !strings.HasPrefix(text, "Config.Field panicked: ") || !strings.Contains(text, name) || !strings.Contains(text, "(at guest_test.go:") {
			t.Errorf("%s: %q", name, text)
		}

		if strings.ContainsAny(text, "\n\x1b") {
			t.Errorf("%s: the text has control characters: %q", name, text)
		}
	}

	if err := guest.Contain("x", func() error { return errOwn }); !errors.Is(err, errOwn) {
		t.Error(err)
	}
}

// Code in a goroutine of its own gives its outcome, its panic, or that it ended its goroutine.
func TestWithinOutcome(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	if v, err := guest.Within(ctx, "x", func() (int, error) { return 7, nil }, nil); v != 7 || err != nil {
		t.Error(v, err)
	}

	if _, err := guest.Within(ctx, "x", func() (int, error) { return 7, errOwn }, nil); !errors.Is(err, errOwn) {
		t.Error(err)
	}

	if _, err := guest.Within(ctx, "x", func() (int, error) { return 0, panics() }, nil); err == nil || !strings.Contains(err.Error(), "x panicked: boom") {
		t.Error(err)
	}

	goexit := func() (int, error) { runtime.Goexit(); return 0, nil }
	if _, err := guest.Within(ctx, "x", goexit, nil); err == nil || !strings.Contains(err.Error(), "Goexit") {
		t.Error(err)
	}
}

// Code that does not return is left alone when the context ends, and what it makes later is not lost.
func TestWithinLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()

		block, late := make(chan struct{}), make(chan int, 1)
		_, err := guest.Within(ctx, "Config.Field", func() (int, error) { <-block; return 7, nil }, func(v int) { late <- v; panic("late") })

		if !errors.Is(err, guest.ErrRuns) || !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), "Config.Field has not returned") {
			t.Fatal(err)
		}

		close(block)

		if v := <-late; v != 7 {
			t.Error(v)
		}
	})
}

// Code that heeds its context says itself how it ended.
func TestWithinHeeded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()

		_, err := guest.Within(ctx, "x", func() (int, error) {
			<-ctx.Done()
			time.Sleep(time.Millisecond)

			return 0, errOwn
		}, nil)
		if !errors.Is(err, errOwn) {
			t.Error(err)
		}
	})
}

// logOf is a handler of functions.
type logOf struct {
	handle func() error
	with   func() slog.Handler
	level  func() bool
}

func (l logOf) Enabled(context.Context, slog.Level) bool      { return l.level() }
func (l logOf) Handle(_ context.Context, _ slog.Record) error { return l.handle() }
func (l logOf) WithAttrs([]slog.Attr) slog.Handler            { return l.with() }
func (l logOf) WithGroup(string) slog.Handler                 { return l.with() }

// A log that panics loses its lines, whichever of its methods does; the default log says so once, unless that is the same.
func TestLog(t *testing.T) {
	before := slog.Default()
	defer slog.SetDefault(before)
	yes := func() bool { return true }
	for name, broken := range map[string]*logOf{
		"handle": {level: yes, handle: func() error { panic("broken") }, with: func() slog.Handler { return slog.DiscardHandler }},
		"level":  {level: func() bool { panic("broken") }},
		"with":   {level: yes, handle: func() error { return nil }, with: func() slog.Handler { panic("broken") }},
	} {
		var said strings.Builder
		slog.SetDefault(slog.New(slog.NewTextHandler(&said, nil)))
		l := guest.Log("Config.Logger", slog.New(broken))
		for range 3 {
			l.Info("x")
			l.With("a", 1).WithGroup("g").With("b", 2).Info("y")
		}
		if strings.Count(said.String(), "\n") != 1 || !strings.Contains(said.String(), "Config.Logger panicked: broken") {
			t.Errorf("%s: the default log says %q", name, said.String())
		}
		slog.SetDefault(slog.New(broken))
		guest.Log("Config.Logger", slog.New(broken)).With("a", 1).Info("x")
		if again := guest.Log("another", l); again != l {
			t.Errorf("%s: it is guarded twice", name)
		}
	}
	if guest.Log("Config.Logger", nil) != nil {
		t.Error("nil is something")
	}
	failed := errors.New("full")
	l := guest.Log("Config.Logger", slog.New(logOf{level: yes, handle: func() error { return failed }}))
	if err := l.Handler().Handle(t.Context(), slog.Record{}); !errors.Is(err, failed) {
		t.Errorf("its own error is %v", err)
	}
}
