// Package backoff says how long to wait before something that failed is tried
// again. Waits grow and are jittered, so that those who failed together do not come
// back together
// (https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter).
package backoff

import (
	"context"
	"math"
	"math/rand/v2"
	"time"
)

// Waits grow from Initial by Factor to Max.
type Waits struct {
	Initial, Max time.Duration
	Factor       float64 // at least 1
	// Jitter leaves a random part of each wait, at least half of it.
	Jitter bool
}

const (
	reconnectFirst = 100 * time.Millisecond
	reconnectMost  = 5 * time.Second
)

// Reconnect are the waits between attempts to reach a host again: doubling from
// 100 ms to 5 s.
var Reconnect = Waits{Initial: reconnectFirst, Max: reconnectMost, Factor: 2, Jitter: true}

// After returns the wait after so many failures in a row, 1 or more.
func (w Waits) After(failures int) time.Duration {
	wait := min(float64(w.Initial)*math.Pow(w.Factor, float64(max(failures, 1)-1)), float64(w.Max))
	if w.Jitter {
		const half = 0.5
		wait *= half + half*rand.Float64() //nolint:gosec // spreads load, protects nothing
	}
	return time.Duration(wait)
}

// Attempts counts the attempts at one thing.
type Attempts struct {
	Waits

	Most int // attempts altogether
	made int
}

// Failed counts one that failed and reports whether there may be another.
func (a *Attempts) Failed() bool {
	a.made++
	return a.made < a.Most
}

// Pause returns the wait before the next attempt. It reports false where until,
// zero for never, is over by then.
func (a *Attempts) Pause(now, until time.Time) (time.Duration, bool) {
	wait := a.After(a.made)
	return wait, until.IsZero() || until.Sub(now) > wait
}

// Wait waits and reports whether ctx was still alive then.
func Wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Sparing says whether it is time for another attempt at what is asked for again and again: the first at once, and the
// next ones after waits that grow with the failures in a row. The zero value of its own fields is ready.
type Sparing struct {
	Waits

	// Free is how many attempts that succeeded have no wait behind them, until none was made for Max.
	Free int

	last            time.Time
	failures, spent int
}

// Due reports whether it is time for an attempt, which is made then.
func (s *Sparing) Due(now time.Time) bool {
	switch passed := now.Sub(s.last); {
	case s.last.IsZero():
	case passed < s.Next():
		return false
	case passed >= s.Max:
		s.spent = 0
	}
	s.last = now
	return true
}

// Next returns the wait after the last attempt.
func (s *Sparing) Next() time.Duration {
	if s.failures == 0 && s.spent <= s.Free {
		return 0
	}
	return s.After(s.failures)
}

// Failed counts an attempt that failed.
func (s *Sparing) Failed() { s.failures++ }

// Succeeded counts one that did not.
func (s *Sparing) Succeeded() {
	s.failures = 0
	s.spent++
}
