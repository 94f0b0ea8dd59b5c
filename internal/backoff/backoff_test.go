package backoff_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/backoff"
)

// Waits to reach a host double from 100 ms to 5 s, and of each a random half is
// left, so that those who lost a host together do not come back together.
func TestReconnect(t *testing.T) {
	t.Parallel()
	for failures, most := range map[int]time.Duration{
		-1: 100 * time.Millisecond, 0: 100 * time.Millisecond, 1: 100 * time.Millisecond, 2: 200 * time.Millisecond,
		3: 400 * time.Millisecond, 6: 3200 * time.Millisecond,
		7: 5 * time.Second, 8: 5 * time.Second, 1000: 5 * time.Second, 1 << 30: 5 * time.Second,
	} {
		seen := map[time.Duration]bool{}
		for range 200 {
			d := backoff.Reconnect.After(failures)
			if d < most/2 || d >= most {
				t.Fatalf("after %d failures: %v, want from %v to %v", failures, d, most/2, most)
			}
			seen[d] = true
		}
		if len(seen) < 100 {
			t.Errorf("after %d failures: %d different waits of 200", failures, len(seen))
		}
	}
}

func TestWaits_WithoutJitter(t *testing.T) {
	t.Parallel()
	w := backoff.Waits{Initial: time.Second, Max: 10 * time.Second, Factor: 3}
	for failures, want := range map[int]time.Duration{1: time.Second, 2: 3 * time.Second, 3: 9 * time.Second, 4: 10 * time.Second} {
		if got := w.After(failures); got != want {
			t.Errorf("after %d failures: %v, want %v", failures, got, want)
		}
	}
}

func TestAttempts(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	waits := backoff.Waits{Initial: time.Second, Max: time.Minute, Factor: 2}
	for name, tt := range map[string]struct {
		most  int
		until time.Time
		want  []time.Duration // then there is none
	}{
		"three":            {3, time.Time{}, []time.Duration{time.Second, 2 * time.Second}},
		"one":              {1, time.Time{}, nil},
		"none":             {0, time.Time{}, nil},
		"time for one":     {9, now.Add(1500 * time.Millisecond), []time.Duration{time.Second}},
		"just not in time": {9, now.Add(time.Second), nil},
		"over":             {9, now.Add(-time.Second), nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := &backoff.Attempts{Waits: waits, Most: tt.most}
			var got []time.Duration
			for a.Failed() {
				wait, ok := a.Pause(now, tt.until)
				if !ok {
					break
				}
				got = append(got, wait)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("waits %v, want %v", got, tt.want)
			}
		})
	}
}

func TestWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		if !backoff.Wait(t.Context(), time.Hour) || time.Since(begun) != time.Hour {
			t.Errorf("waited %v of an hour", time.Since(begun))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begun = time.Now()
		if backoff.Wait(ctx, time.Hour) || time.Since(begun) != time.Minute {
			t.Errorf("waited %v though the context ended after a minute", time.Since(begun))
		}
	})
}

func TestSparing(t *testing.T) {
	t.Parallel()
	s := backoff.Sparing{Waits: backoff.Waits{Initial: time.Minute, Max: 5 * time.Minute, Factor: 2}}
	now := time.Unix(0, 0)
	var tried []time.Duration
	for passed := time.Duration(0); passed < 20*time.Minute; passed += 10 * time.Second {
		if s.Due(now.Add(passed)) {
			tried = append(tried, passed)
			s.Failed()
		}
	}
	want := []time.Duration{0, time.Minute, 3 * time.Minute, 7 * time.Minute, 12 * time.Minute, 17 * time.Minute}
	if !slices.Equal(tried, want) {
		t.Errorf("tried after %v, want %v", tried, want)
	}
	// Of those that succeed two have no wait behind them, and again when none was made for long.
	s.Free = 2
	for _, from := range []time.Duration{time.Hour, 2 * time.Hour} {
		tried = nil
		for passed := time.Duration(0); passed < 3*time.Minute; passed += 10 * time.Second {
			if s.Due(now.Add(from + passed)) {
				tried = append(tried, passed)
				s.Succeeded()
			}
		}
		want := []time.Duration{0, 10 * time.Second, 20 * time.Second, 80 * time.Second, 140 * time.Second}
		if !slices.Equal(tried, want) {
			t.Errorf("successes after %v, want %v", tried, want)
		}
	}
}
