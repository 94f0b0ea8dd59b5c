// Package held keeps what is to be told to code of the user's until no lock is held any more.
package held

import "sync"

// Queue holds values while somebody has a lock. The zero value holds nothing.
type Queue[T any] struct {
	mu      sync.Mutex
	holding bool
	telling bool
	values  []T
}

// Hold keeps from now on what comes. The caller has the lock that there is one of.
func (q *Queue[T]) Hold() { q.hold(true) }

// Release keeps nothing from now on. What is kept waits for Tell.
func (q *Queue[T]) Release() { q.hold(false) }

func (q *Queue[T]) hold(holding bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.holding = holding
}

// Keep keeps a value, or reports that it may be told.
func (q *Queue[T]) Keep(value T) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.holding {
		q.values = append(q.values, value)
	}
	return q.holding
}

// Tell tells what was kept, in its order and without a lock. Where it is being told already, as
// to code that makes something to tell, that goes on with it.
func (q *Queue[T]) Tell(tell func(T)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.telling {
		return
	}
	q.telling = true
	defer func() { q.telling = false }()
	for len(q.values) > 0 {
		value := q.values[0]
		q.values = q.values[1:]
		func() {
			q.mu.Unlock()
			defer q.mu.Lock()
			tell(value)
		}()
	}
}
