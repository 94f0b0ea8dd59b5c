package backoff

import (
	"context"
	"sync"
	"time"
)

// Spaced runs what others ask for as often as they like: once for all who ask before it begins, in one goroutine, and
// the longer it takes, the less often.
type Spaced struct {
	// Least is the wait before each run.
	Least time.Duration
	// Times is how many times as long as a run took is between its end and the next one.
	Times int

	mu      sync.Mutex
	asked   bool
	running bool
	took    time.Duration
}

// Ask asks for a run. It reports whether the caller has to call Run; else somebody does.
func (s *Spaced) Ask() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = true
	if s.running {
		return false
	}
	s.running = true
	return true
}

// Run runs f until nobody asks for it any more, or ctx ends.
func (s *Spaced) Run(ctx context.Context, f func()) {
	for Wait(ctx, s.pause()) {
		s.mu.Lock()
		s.asked = false
		s.mu.Unlock()
		begun := time.Now()
		f()
		if s.rested(time.Since(begun)) {
			return
		}
	}
}

func (s *Spaced) pause() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(s.Least, time.Duration(s.Times)*s.took)
}

// rested notes how long a run took, and reports whether nobody asks for another one.
func (s *Spaced) rested(took time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took, s.running = took, s.asked
	return !s.asked
}
