package late_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/late"
)

var (
	errParent = errors.New("parent")
	errOwn    = errors.New("own")
)

type valueKey struct{}

type otherKey struct{}

// pair is a late context and one of the package context that has to be like it.
type pair struct {
	endParent context.CancelCauseFunc
	late      *late.Context
	like      context.Context
	endLike   context.CancelCauseFunc
}

// How a context is made.
const (
	simply = iota
	alone
	kept
	underKept
	underOther // a root of the package context
	kinds
)

func newPair(t *testing.T, kind int) *pair {
	t.Helper()
	p := &pair{late: new(late.Context)}
	parent, cancel := context.WithCancelCause(context.WithValue(t.Context(), valueKey{}, "value"))
	t.Cleanup(func() { cancel(nil) })
	p.endParent = cancel
	switch kind {
	case simply:
		p.late.Init(parent)
	case alone:
		p.late.InitAlone(parent)
		parent = context.WithoutCancel(parent)
	case kept:
		p.late.InitKept(parent)
		p.endParent = endBoth(cancel, p.late)
	case underKept:
		root := new(late.Context)
		root.InitKept(parent)
		p.late.InitUnder(context.WithValue(root, otherKey{}, ""), root)
		p.endParent = endBoth(cancel, root)
	case underOther:
		p.late.InitUnder(context.WithValue(parent, otherKey{}, ""), parent)
	}
	p.like, p.endLike = context.WithCancelCause(parent)
	t.Cleanup(func() { p.endLike(nil) })
	return p
}

// endBoth ends a parent, and then what is kept, as its maker promised.
func endBoth(parent context.CancelCauseFunc, c *late.Context) context.CancelCauseFunc {
	return func(cause error) {
		parent(cause)
		c.End(nil)
	}
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

// Whatever happens in whatever order, nobody can tell it from a context of the package
// context: neither who asks at each step nor who asks at the end alone.
func TestContext_IsLikeAnyOther(t *testing.T) {
	t.Parallel()
	for kind := range kinds {
		for _, sequence := range sequences(4) {
			for _, always := range []bool{false, true} {
				p := newPair(t, kind)
				for i := range len(sequence) {
					steps[sequence[i]](p)
					last := i == len(sequence)-1
					if sequence[i] == 'w' || last {
						compare(t, fmt.Sprintf("%s, kind %d: who waits", sequence[:i+1], kind), wait(p.late), wait(p.like))
					}
					if always || last {
						compare(t, fmt.Sprintf("%s, kind %d: who asks", sequence[:i+1], kind), ask(p.late), ask(p.like))
					}
				}
			}
		}
	}
}

func compare(t *testing.T, who, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s sees %q, want %q", who, got, want)
	}
}

// listener is told of ends.
type listener chan error

func (l listener) Ended(cause error) { l <- cause }

func TestOnEnd_TellsOnce(t *testing.T) {
	t.Parallel()
	for _, kind := range []int{simply, kept, underKept, underOther} {
		for sequence, want := range map[string]error{
			"": nil, "p": errParent, "e": errOwn, "pe": errParent, "ep": errOwn, "wp": errParent, "we": errOwn, "ee": errOwn, "n": context.Canceled,
		} {
			for _, first := range []bool{true, false} { // another one is there already
				tellOnce(t, kind, sequence, first, want)
			}
		}
	}
}

func tellOnce(t *testing.T, kind int, sequence string, first bool, want error) {
	t.Helper()
	p, heard := newPair(t, kind), make(listener, len(sequence)+1)
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
			t.Errorf("kind %d: told of %v, and is loose", kind, <-heard)
		}
		return
	}
	if got := <-heard; !errors.Is(got, want) {
		t.Errorf("kind %d, %s: told of %v, want %v", kind, sequence, got, want)
	}
	tie.Loose()
	if len(heard) > 0 {
		t.Errorf("kind %d, %s: told twice", kind, sequence)
	}
}

func TestOnEnd_TellsOfWhatHasEnded(t *testing.T) {
	t.Parallel()
	for _, kind := range []int{simply, kept, underKept, underOther} {
		for step, want := range map[byte]error{'p': errParent, 'e': errOwn} {
			p, heard := newPair(t, kind), make(listener, 1)
			steps[step](p)
			t.Cleanup(late.OnEnd(p.late, heard).Loose)
			if got := <-heard; !errors.Is(got, want) {
				t.Errorf("kind %d: told of %v, want %v", kind, got, want)
			}
		}
	}
}

// Whoever ends a context that it keeps may hold what is asked for by whoever is told.
func TestOnEnd_IsToldByAnotherGoroutineOfWhatIsKept(t *testing.T) {
	t.Parallel()
	p, busy := newPair(t, underKept), new(sync.Mutex)
	heard := make(listener, 1)
	late.OnEnd(p.late, waiting{busy, heard})
	busy.Lock()
	p.endParent(errParent)
	busy.Unlock()
	if got := <-heard; !errors.Is(got, errParent) {
		t.Errorf("told of %v", got)
	}
}

// waiting takes a lock before it notes that it was told.
type waiting struct {
	mu *sync.Mutex
	to listener
}

func (w waiting) Ended(cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.to.Ended(cause)
}

// Whoever is told by a root costs no memory: neither the root nor what is above it has to hear of others.
func TestOnEnd_CostsNothingUnderARoot(t *testing.T) {
	parent, cancel := context.WithCancel(t.Context())
	defer cancel()
	all, heard := make([]late.Context, 256), make(listener, 1)
	if n := testing.AllocsPerRun(100, func() {
		root, c := &all[0], &all[1]
		all = all[2:]
		root.InitKept(parent)
		c.InitUnder(root, root)
		late.OnEnd(c, heard).Loose()
		c.End(nil)
		root.End(nil)
	}); n > 0 {
		t.Errorf("%v allocations", n)
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
