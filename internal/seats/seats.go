// Package seats counts what is open at a time, by whom and in all.
package seats

import (
	"sync"
	"sync/atomic"

	"github.com/masegraye/connect-plugin-go/internal/fullest"
)

// Seats are those that are taken. The zero value is empty. It is safe for concurrent use.
type Seats struct {
	mu  sync.Mutex
	all int
	of  map[string]int // by key
}

// Bound is how many seats there are in all and for each key.
type Bound struct{ Most, Each int }

// Met is which bound somebody met.
type Met int

// The bounds that there are.
const (
	None  Met = iota // there was a seat
	OfKey            // the key has as many as it may
	InAll            // all of them are taken
)

// Take takes a seat for a key, unless as many are taken as there are. It is left once,
// however often leave is called.
func (s *Seats) Take(key string, b Bound) (leave func(), met Met) {
	took, met := s.Enter(key, 1, b)
	if met != None {
		return nil, met
	}
	return sync.OnceFunc(func() { s.Leave(key, took) }), None
}

// Enter takes n seats for a key, or as many as a key may have where those are fewer, and returns how many it
// took: none, unless there is room for all of them. Whoever took some calls Leave with that number, and just once.
func (s *Seats) Enter(key string, n int, b Bound) (took int, met Met) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = max(min(n, b.Each, b.Most), 1)
	switch {
	case s.of[key] > b.Each-n:
		return 0, OfKey
	case s.all > b.Most-n:
		return 0, InAll
	}
	if s.of == nil {
		s.of = map[string]int{}
	}
	s.all += n
	s.of[key] += n
	return n, None
}

// Leave leaves the seats that Enter took.
func (s *Seats) Leave(key string, took int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all -= took
	if s.of[key] -= took; s.of[key] == 0 {
		delete(s.of, key)
	}
}

// Len returns how many seats are taken.
func (s *Seats) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all
}

// Fullest returns which key has most seats, and how many.
func (s *Seats) Fullest() (key string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fullest.Count(s.of)
}

// quarter is the part of all seats that keys have together which belong together.
const quarter = 4

// Together is how many seats keys have together which belong together: a quarter of all, or a few for each of them
// where those are more, and never less than one of them may have.
func Together(b Bound, few, keys int) int { return max(b.Each, b.Most/quarter, few*keys) }

// Total counts seats of several keys together. The zero value is empty. It is safe for concurrent use.
type Total struct{ n atomic.Int64 }

// Enter takes n seats more, and reports whether there was room for them among so many.
func (t *Total) Enter(n, most int) bool {
	for {
		taken := t.n.Load()
		if taken > int64(most-n) {
			return false
		}
		if t.n.CompareAndSwap(taken, taken+int64(n)) {
			return true
		}
	}
}

// Leave leaves them.
func (t *Total) Leave(n int) { t.n.Add(int64(-n)) }

// Len returns how many are taken.
func (t *Total) Len() int { return int(t.n.Load()) }
