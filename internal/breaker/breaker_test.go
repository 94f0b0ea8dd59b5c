package breaker_test

import (
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/breaker"
)

var (
	begun  = time.Unix(1_000_000, 0)
	config = breaker.Config{Failures: 3, Successes: 2, Timeout: 10 * time.Second}
)

// script runs steps: 's', 'f' and 'n' are calls that succeed, fail or say nothing,
// 'r' is a call that has to be refused, '(' begins a call, ')' ends the oldest that
// was begun with success, ']' with failure, '+' lets the timeout pass.
func script(t *testing.T, b *breaker.Breaker, steps string) {
	t.Helper()
	now := begun
	var open []uint64
	admit := func(i int) uint64 {
		era, ok := b.Admit(now)
		if !ok {
			t.Fatalf("step %d of %q is refused in state %d", i, steps, b.State())
		}
		return era
	}
	outcomes := map[rune]breaker.Outcome{'s': breaker.Success, 'f': breaker.Failure, 'n': breaker.Neither}
	for i, step := range steps {
		switch step {
		case '+':
			now = now.Add(config.Timeout)
		case 'r':
			if _, ok := b.Admit(now.Add(-time.Nanosecond)); ok {
				t.Fatalf("step %d of %q is let through in state %d", i, steps, b.State())
			}
		case '(':
			open = append(open, admit(i))
		case ')', ']':
			outcome := breaker.Success
			if step == ']' {
				outcome = breaker.Failure
			}
			b.Record(open[0], outcome, now)
			open = open[1:]
		default:
			b.Record(admit(i), outcomes[step], now)
		}
	}
}

func TestBreaker(t *testing.T) {
	t.Parallel()
	for steps, want := range map[string]breaker.State{
		"":             breaker.Closed,
		"ff":           breaker.Closed,
		"ffsff":        breaker.Closed, // in a row
		"ffnf":         breaker.Open,   // what says nothing interrupts no row
		"fff":          breaker.Open,
		"fffr":         breaker.Open,
		"fff+s":        breaker.HalfOpen,
		"fff+ss":       breaker.Closed,
		"fff+sf":       breaker.Open,
		"fff+f+ss":     breaker.Closed,
		"fff+nnnss":    breaker.Closed,   // what says nothing gives its place back
		"fff+((r":      breaker.HalfOpen, // no more at a time than have to succeed
		"fff+((r))":    breaker.Closed,
		"fff+(s)":      breaker.Closed,
		"fff+(f)":      breaker.Open, // the one that was begun before counts for nothing
		"(fff+)ss":     breaker.Closed,
		"(fff+ss]ff":   breaker.Closed, // a failure of another era
		"(((]]]":       breaker.Open,
		"((((]]]+]ss":  breaker.Closed,
		"fff+sf+sf+ss": breaker.Closed,
	} {
		t.Run(steps, func(t *testing.T) {
			t.Parallel()
			b := breaker.New(config, false)
			script(t, b, steps)
			if got := b.State(); got != want {
				t.Errorf("state %d, want %d", got, want)
			}
			if _, _, ok := b.Next(); ok {
				t.Error("changes are kept that nobody asked for")
			}
		})
	}
}

func TestBreaker_HandsOutChangesInOrderAndOneAtATime(t *testing.T) {
	t.Parallel()
	b := breaker.New(config, true)
	script(t, b, "fff+ss")
	for _, want := range []breaker.Change{
		{breaker.Closed, breaker.Open}, {breaker.Open, breaker.HalfOpen}, {breaker.HalfOpen, breaker.Closed},
	} {
		got, told, ok := b.Next()
		if !ok || got != want {
			t.Fatalf("change %v, %t; want %v", got, ok, want)
		}
		if _, _, ok := b.Next(); ok {
			t.Error("two changes are handed out at a time")
		}
		told()
	}
	if c, _, ok := b.Next(); ok {
		t.Errorf("change %v that did not happen", c)
	}
}

// FuzzBreaker holds whatever the order of calls and outcomes is: nothing passes
// while it is open, no more than the bound while half-open, and changes join up.
func FuzzBreaker(f *testing.F) {
	f.Add([]byte("fff+((sfn"))
	f.Add([]byte{0, 1, 2, 3, 4, 5, 250, 100})
	f.Fuzz(func(t *testing.T, steps []byte) {
		b := breaker.New(config, true)
		now, at := begun, breaker.Closed
		eras := map[uint64]int{}
		var running []uint64
		for _, step := range steps {
			switch {
			case step%4 == 0:
				now = now.Add(time.Duration(step) * time.Second)
			case step%4 == 1 && len(running) > 0:
				b.Record(running[0], breaker.Outcome(step/4%3), now)
				eras[running[0]]--
				running = running[1:]
			default:
				era, ok := b.Admit(now)
				state := b.State()
				if ok != (state == breaker.Closed) && state != breaker.HalfOpen {
					t.Fatalf("let through: %t, in state %d", ok, state)
				}
				if ok {
					running = append(running, era)
					if eras[era]++; state == breaker.HalfOpen && eras[era] > config.Successes {
						t.Fatalf("%d calls at a time, half-open", eras[era])
					}
				}
			}
			for {
				c, told, ok := b.Next()
				if !ok {
					break
				}
				if c.From != at || c.To == at {
					t.Fatalf("change %v after state %d", c, at)
				}
				at = c.To
				told()
			}
			if at != b.State() {
				t.Fatalf("state %d, and the changes say %d", b.State(), at)
			}
		}
	})
}
