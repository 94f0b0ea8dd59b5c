// Package guest calls code of the user's, such as a callback: a panic of it ends no process, and
// code that does not return holds up nobody for longer than a context lasts.
package guest

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/masegraye/connect-plugin-go/internal/glyphs"
)

// ErrRuns is wrapped where code has not returned.
var ErrRuns = errors.New("has not returned")

// PanicError is a panic of code of the user's.
type PanicError struct {
	What  string // whose, as the user knows it
	Value any    // nil where it ended its goroutine with runtime.Goexit
	Stack []byte // nil there, too

	where string
}

const maxText = 512

// Error says whose code panicked, with what, and where.
func (e *PanicError) Error() string {
	if e.Value == nil {
		return e.What + " ended its goroutine (runtime.Goexit)"
	}
	text := strings.Map(func(r rune) rune {
		if glyphs.Seen(r) {
			return r
		}
		return unicode.ReplacementChar
	}, fmt.Sprintf("%.*s", maxText, fmt.Sprint(e.Value)))
	return fmt.Sprintf("%s panicked: %s%s", e.What, text, e.where)
}

// Contain calls f in this goroutine and returns a panic of it as a [PanicError]. What is whose code
// it is.
func Contain(what string, f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{What: what, Value: v, Stack: debug.Stack(), where: place()}
		}
	}()
	return f()
}

// place says where the panic began from which a deferred function, its caller, recovered.
func place() string {
	const deep = 64
	var pcs [deep]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs[:])])
	for panicking := false; ; {
		f, more := frames.Next()
		if panicking && !strings.HasPrefix(f.Function, "runtime.") {
			return fmt.Sprintf(" (at %s:%d)", filepath.Base(f.File), f.Line)
		}
		panicking = panicking || f.Function == "runtime.gopanic"
		if !more {
			return ""
		}
	}
}

type outcome[T any] struct {
	value T
	err   error
}

// heeding is how long code that heeds its context has to return after that ended: what it returns then says more.
const heeding = 250 * time.Millisecond

// Within calls f in a goroutine of its own and returns what it does, a panic as a [PanicError], or a moment after
// the end of ctx an error that wraps [ErrRuns] and the cause of that: the goroutine is left to
// f then. Unless it is nil, late gets what f returns without an error when nobody waits any more.
func Within[T any](ctx context.Context, what string, f func() (T, error), late func(T)) (T, error) {
	var over atomic.Bool // set by the end of f or of ctx, whichever comes first
	came := make(chan outcome[T], 1)
	go func() {
		o := outcome[T]{err: &PanicError{What: what}} // after a Goexit only what is deferred runs
		defer func() {
			switch {
			case over.CompareAndSwap(false, true):
				came <- o
			case o.err == nil && late != nil:
				_ = Contain(what, func() error { late(o.value); return nil }) // nobody hears of it
			}
		}()
		o.err = Contain(what, func() (err error) {
			o.value, err = f()
			return err
		})
	}()
	select {
	case o := <-came:
		return o.value, o.err
	case <-ctx.Done():
	}
	last := time.NewTimer(heeding)
	defer last.Stop()
	select {
	case o := <-came:
		return o.value, o.err
	case <-last.C:
	}
	if !over.CompareAndSwap(false, true) {
		o := <-came
		return o.value, o.err
	}
	var none T
	return none, &runsError{what: what, cause: context.Cause(ctx)}
}

// runsError says that code has not returned, and until when it was waited for.
type runsError struct {
	what  string
	cause error
}

// Error names the code.
func (e *runsError) Error() string {
	return fmt.Sprintf("%s has not returned: %v", e.what, e.cause)
}

// Unwrap returns both reasons.
func (e *runsError) Unwrap() []error { return []error{ErrRuns, e.cause} }
