package supervise_test

import (
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/supervise"
)

// begin is when the tests begin.
var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestBackoffDoublesUpToItsBound(t *testing.T) {
	t.Parallel()
	for _, random := range []float64{0, 0.5, 0.999} {
		s := supervise.New(supervise.Config{
			MinBackoff: 100 * time.Millisecond, MaxBackoff: time.Second, MaxFailures: 100, Random: func() float64 { return random },
		})
		now := begin
		for i, millis := range []int{100, 200, 400, 800, 1000, 1000} {
			top := time.Duration(millis) * time.Millisecond
			next := s.Failed(now, 0)
			if wait := next.At.Sub(now); wait < top/2 || wait > top || next.Broken || next.Failures != i+1 {
				t.Errorf("random %v, failure %d: %+v after %v, want %v", random, i+1, next, wait, top)
			}
			now = next.At
		}
	}
}

func TestStableRunForgets(t *testing.T) {
	t.Parallel()
	s := supervise.New(supervise.Config{StableAfter: time.Minute, MaxFailures: 3})
	now := begin
	s.Failed(now, 0)
	s.Failed(now, 0)
	if next := s.Failed(now.Add(time.Minute), time.Minute); next.Broken || next.Failures != 1 {
		t.Errorf("after a stable run: %+v", next)
	}
	if next := s.Failed(now.Add(time.Minute+time.Second), time.Minute-1); next.Failures != 2 {
		t.Errorf("after a run that was not stable: %+v", next)
	}
}

func TestBreaker(t *testing.T) {
	t.Parallel()
	s := supervise.New(supervise.Config{MaxFailures: 3, Window: 10 * time.Second, Cooldown: time.Hour, StableAfter: time.Minute})
	now := begin
	for i, seconds := range []int{0, 6, 12} { // never three within ten seconds
		if next := s.Failed(now.Add(time.Duration(seconds)*time.Second), 0); next.Broken {
			t.Fatalf("failure %d breaks", i+1)
		}
	}
	next := s.Failed(now.Add(13*time.Second), 0)
	if !next.Broken || next.At != now.Add(13*time.Second+time.Hour) {
		t.Fatalf("the third failure within ten seconds: %+v", next)
	}
	// The breaker stays open for one that fails again after its rest.
	if next = s.Failed(next.At.Add(time.Second), time.Second); !next.Broken {
		t.Errorf("after the rest: %+v", next)
	}
	if next = s.Failed(next.At.Add(time.Hour), time.Hour); next.Broken || next.Failures != 1 {
		t.Errorf("after a stable run: %+v", next)
	}
	s.Failed(now, 0)
	s.Reset()
	if next = s.Failed(now, 0); next.Failures != 1 {
		t.Errorf("after a reset: %+v", next)
	}
}

// Another configuration counts what failed before it.
func TestConfigureCountsOn(t *testing.T) {
	t.Parallel()
	s := supervise.New(supervise.Config{MaxFailures: 9})
	s.Failed(begin, 0)
	s.Configure(supervise.Config{MaxFailures: 2, Cooldown: time.Hour})
	if next := s.Failed(begin, 0); !next.Broken || next.Failures != 2 || next.At != begin.Add(time.Hour) {
		t.Errorf("%+v", next)
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	s := supervise.New(supervise.Config{})
	for i := range supervise.DefaultMaxFailures {
		next := s.Failed(begin, 0)
		if wait := next.At.Sub(begin); next.Broken != (i == supervise.DefaultMaxFailures-1) || wait <= 0 {
			t.Errorf("failure %d: %+v", i+1, next)
		}
	}
}
