package late_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/late"
)

var (
	errParent = errors.New("parent")
	errOwn    = errors.New("own")
)

type valueKey struct{}

// pair is a late context and one of the package context that has to be like it.
type pair struct {
	endParent context.CancelCauseFunc
	late      *late.Context
	like      context.Context
	endLike   context.CancelCauseFunc
}

func newPair(t *testing.T, alone bool) *pair {
	t.Helper()
	p := &pair{late: new(late.Context)}
	parent, cancel := context.WithCancelCause(context.WithValue(t.Context(), valueKey{}, "value"))
	t.Cleanup(func() { cancel(nil) })
	p.endParent = cancel
	if alone {
		p.late.InitAlone(parent)
		parent = context.WithoutCancel(parent)
	} else {
		p.late.Init(parent)
	}
	p.like, p.endLike = context.WithCancelCause(parent)
	t.Cleanup(func() { p.endLike(nil) })
	return p
}

// ask is what anybody sees of a context.
func ask(ctx context.Context) string {
	_, deadline := ctx.Deadline()
	return fmt.Sprint(ctx.Err(), context.Cause(ctx), ctx.Value(valueKey{}), deadline)
}

// wait is what somebody sees who waits, or makes a context of it.
func wait(ctx context.Context) string {
	done := false
	select {
	case <-ctx.Done():
		done = true
	default:
	}
	child, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	return fmt.Sprint(done, child.Err(), context.Cause(child))
}

var steps = map[byte]func(p *pair){
	'p': func(p *pair) { p.endParent(errParent) },
	'e': func(p *pair) { p.late.End(errOwn); p.endLike(errOwn) },
	'n': func(p *pair) { p.late.End(nil); p.endLike(nil) },
	'w': func(*pair) {},
}

// sequences are all of so many steps.
func sequences(length int) []string {
	if length == 0 {
		return []string{""}
	}
	var out []string
	for _, s := range sequences(length - 1) {
		for step := range steps {
			out = append(out, s+string(step))
		}
	}
	return out
}

// Whatever happens in whatever order, nobody can tell it from a context of the package context.
func TestContext_IsLikeAnyOther(t *testing.T) {
	t.Parallel()
	for _, alone := range []bool{false, true} {
		for _, sequence := range sequences(4) {
			p := newPair(t, alone)
			for i := range len(sequence) {
				steps[sequence[i]](p)
				if sequence[i] == 'w' || i == len(sequence)-1 {
					if got, want := wait(p.late), wait(p.like); got != want {
						t.Errorf("%s, alone %t: who waits sees %q, want %q", sequence[:i+1], alone, got, want)
					}
				}
				if got, want := ask(p.late), ask(p.like); got != want {
					t.Errorf("%s, alone %t: %q, want %q", sequence[:i+1], alone, got, want)
				}
			}
		}
	}
}

// listener is told of ends.
type listener chan error

func (l listener) Ended(cause error) { l <- cause }

func TestOnEnd_TellsOnce(t *testing.T) {
	t.Parallel()
	for sequence, want := range map[string]error{
		"": nil, "p": errParent, "e": errOwn, "pe": errParent, "ep": errOwn, "wp": errParent, "we": errOwn, "ee": errOwn,
	} {
		for _, first := range []bool{true, false} { // another one is there already
			p, heard := newPair(t, false), make(listener, len(sequence)+1)
			if !first {
				t.Cleanup(late.OnEnd(p.late, make(listener, 1)).Loose)
			}
			before, after, _ := strings.Cut(sequence, "w")
			if after != "" {
				_ = wait(p.late)
				before = after
			}
			tie := late.OnEnd(p.late, heard)
			for i := range len(before) {
				steps[before[i]](p)
			}
			if want == nil {
				tie.Loose()
				p.late.End(errOwn)
				p.endParent(errParent)
				if len(heard) > 0 {
					t.Errorf("told of %v, and is loose", <-heard)
				}
				continue
			}
			if got := <-heard; !errors.Is(got, want) {
				t.Errorf("%s: told of %v, want %v", sequence, got, want)
			}
			tie.Loose()
			if len(heard) > 0 {
				t.Errorf("%s: told twice", sequence)
			}
		}
	}
}

func TestOnEnd_TellsOfWhatHasEnded(t *testing.T) {
	t.Parallel()
	for step, want := range map[byte]error{'p': errParent, 'e': errOwn} {
		p, heard := newPair(t, false), make(listener, 1)
		steps[step](p)
		t.Cleanup(late.OnEnd(p.late, heard).Loose)
		if got := <-heard; !errors.Is(got, want) {
			t.Errorf("told of %v, want %v", got, want)
		}
	}
}

// One that nobody waits for is an ordinary value in its owner.
func TestContext_CostsNothingUnasked(t *testing.T) {
	parent, cancel := context.WithCancel(t.Context())
	defer cancel()
	all := make([]late.Context, 128)
	if n := testing.AllocsPerRun(100, func() {
		c := &all[0]
		all = all[1:]
		c.Init(parent)
		if c.Err() != nil || c.Value(valueKey{}) != nil {
			t.Error("it has ended, or a value")
		}
		c.End(nil)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
