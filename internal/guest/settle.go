package guest

import (
	"encoding/json"
	"log/slog"
	"slices"
)

// settled returns a record that stays as it is, whatever becomes of the values that it was made with: a handler may write it long
// after whoever logged has gone on. What a value is to say is asked for now. Of an error the text stays, and what it wraps can be
// asked for; what else is behind a pointer, which nothing here logs, is its owner's to leave as it is.
func settled(r slog.Record) slog.Record {
	passing := false
	r.Attrs(func(a slog.Attr) bool {
		passing = a.Value.Kind() == slog.KindLogValuer || a.Value.Kind() == slog.KindAny || a.Value.Kind() == slog.KindGroup
		return !passing
	})
	if !passing {
		return r
	}
	out := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		out.AddAttrs(settledAttr(a))
		return true
	})
	return out
}

func settledAttrs(attrs []slog.Attr) []slog.Attr {
	out := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		out[i] = settledAttr(a)
	}
	return out
}

func settledAttr(a slog.Attr) slog.Attr {
	a.Value = a.Value.Resolve()
	switch a.Value.Kind() {
	case slog.KindGroup:
		a.Value = slog.GroupValue(settledAttrs(a.Value.Group())...)
	case slog.KindAny:
		switch v := a.Value.Any().(type) {
		case json.Marshaler: // says more than its text to some handlers
		case error:
			a.Value = slog.AnyValue(&saidError{v.Error(), v})
		case []string:
			a.Value = slog.AnyValue(slices.Clone(v))
		}
	default: // a copy by itself
	}
	return a
}

// saidError is an error whose text was asked for.
type saidError struct {
	text string
	err  error
}

// Error implements error.
func (e *saidError) Error() string { return e.text }

// Unwrap returns the error itself.
func (e *saidError) Unwrap() error { return e.err }
