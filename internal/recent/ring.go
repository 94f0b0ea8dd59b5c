// Package recent keeps the last of what happened, in order, for whoever asks later.
package recent

import "sync"

// Ring holds the last values that were added, each under a sequence number from 1 on. A nil Ring takes
// everything and holds nothing. It is safe for concurrent use.
type Ring[T any] struct {
	mu     sync.Mutex
	values []T    // the one of sequence n at (n-1) modulo its length
	last   uint64 // sequence of the latest, zero for none
}

// New returns a ring of size values.
func New[T any](size int) *Ring[T] { return &Ring[T]{values: make([]T, size)} }

// Add adds a value, in the place of the oldest where there is no room.
func (r *Ring[T]) Add(v T) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.values[r.last%uint64(len(r.values))] = v
	r.last++
}

// After returns at most limit values after a sequence number, oldest first, the sequence of the first
// of them, and how many after it were there and are not any more. A sequence that is still to come, as
// one of another ring may be, counts as zero.
func (r *Ring[T]) After(sequence uint64, limit int) (values []T, first, missed uint64) {
	if r == nil {
		return nil, 0, 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if sequence > r.last {
		sequence = 0
	}
	size := uint64(len(r.values))
	oldest := uint64(0) // what precedes the oldest that is kept
	if r.last > size {
		oldest = r.last - size
	}
	if sequence < oldest {
		missed, sequence = oldest-sequence, oldest
	}
	first = sequence + 1
	for n := sequence; n < r.last && len(values) < limit; n++ {
		values = append(values, r.values[n%size])
	}
	return values, first, missed
}
