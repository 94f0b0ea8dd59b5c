package guest_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/masegraye/connect-plugin-go/internal/guest"
)

// moving is a value, and an error, that goes on to change.
type moving struct{ text string }

func (m *moving) LogValue() slog.Value { return slog.StringValue(m.text) }

type movingError struct{ text string }

func (m *movingError) Error() string { return m.text }

type brokenError struct{}

func (*brokenError) Error() string { panic("broken error") }

// What a handler writes long after whoever logged has gone on is what was logged, however the values changed since.
func TestLog_ValuesOfThatMoment(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		to := &standing{freed: make(chan struct{})}
		l := guest.Log("Config.Logger", slog.New(to))
		value, failed, list := &moving{"as then"}, &movingError{"as then"}, []string{"as", "then"}
		l.Info("stands", "value", value, "error", failed, "list", list, slog.Group("group", "value", value, slog.Group("inner", "error", failed)))
		value.text, failed.text, list[1] = "as now", "as now", "now"
		close(to.freed)
		synctest.Wait()
		if got := to.written(); strings.Contains(got, "now") || strings.Count(got, "as then") != 5 {
			t.Errorf("the handler wrote %q", got)
		}
	})
}

// An error is to a handler what it was, and one that panics costs its line alone.
func TestLog_Errors(t *testing.T) {
	t.Parallel()
	failed := &movingError{"own"}
	to := &keeping{}
	l := guest.Log("Config.Logger", slog.New(to))
	l.Info("x", "error", errors.Join(failed))
	if got, ok := errors.AsType[*movingError](to.last); !ok || got != failed || to.last.Error() != "own" {
		t.Errorf("the handler has %v", to.last)
	}
	l.Info("x", "error", &brokenError{})
	l.Info("x", "error", failed)
	if to.lines != 2 {
		t.Errorf("%d lines were written", to.lines)
	}
}

// keeping is a handler that keeps the last error.
type keeping struct {
	lines int
	last  error
}

func (k *keeping) Enabled(context.Context, slog.Level) bool { return true }
func (k *keeping) WithAttrs([]slog.Attr) slog.Handler       { return k }
func (k *keeping) WithGroup(string) slog.Handler            { return k }

func (k *keeping) Handle(_ context.Context, r slog.Record) error {
	k.lines++
	r.Attrs(func(a slog.Attr) bool {
		k.last, _ = a.Value.Any().(error)
		return true
	})
	return nil
}
