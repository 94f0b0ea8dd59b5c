package inflight

import (
	"maps"
	"slices"
	"sync"
)

// Set is a set of calls in flight. The zero value is empty. It is safe for
// concurrent use.
type Set struct {
	mu  sync.Mutex
	all map[*Call]struct{}
}

// Add adds a call until it is removed.
func (s *Set) Add(c *Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[*Call]struct{}{}
	}
	s.all[c] = struct{}{}
}

// Remove removes a call.
func (s *Set) Remove(c *Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, c)
}

// CutOffSoon cuts off the calls of the set whose answers nobody reads.
func (s *Set) CutOffSoon() {
	s.mu.Lock()
	calls := slices.Collect(maps.Keys(s.all))
	s.mu.Unlock()
	for _, c := range calls {
		c.CutOffSoon()
	}
}
