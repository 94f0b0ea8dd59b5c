// Package seats counts what is open at a time, by whom and in all.
package seats

import (
	"sync"

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
	if met = s.Enter(key, b); met != None {
		return nil, met
	}
	return sync.OnceFunc(func() { s.Leave(key) }), None
}

// Enter takes a seat as Take does. Whoever took it calls Leave, and just once.
func (s *Seats) Enter(key string, b Bound) Met {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.of[key] >= b.Each:
		return OfKey
	case s.all >= b.Most:
		return InAll
	}
	if s.of == nil {
		s.of = map[string]int{}
	}
	s.all++
	s.of[key]++
	return None
}

// Leave leaves a seat that Enter took.
func (s *Seats) Leave(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.of[key]--; s.of[key] == 0 {
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
