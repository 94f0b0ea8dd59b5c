// Package heirs keeps what those that ended leave to who comes in their place.
package heirs

import (
	"slices"
	"sync"
)

// least is how many are kept before anybody looks which of them may go.
const least = 256

// Book keeps values by key. It is safe for concurrent use, and the zero value is ready.
type Book[V any] struct {
	mu   sync.Mutex
	of   map[string]*left[V]
	next int // how many there may be until somebody looks
}

type left[V any] struct {
	value V
	owned []func() bool // whether one of those who have it ended
	next  int           // how many there may be until somebody looks
}

// endedLocked forgets those who ended, and reports whether all did.
func (l *left[V]) endedLocked() bool {
	l.owned = slices.DeleteFunc(l.owned, func(ended func() bool) bool { return ended() })
	return len(l.owned) == 0
}

// Inherit returns the value of a key, which is from now on also that of who says when it ended: the one that others
// with the key have or had, or else a fresh one. Values are forgotten some time after all of their owners ended and
// nothing of them is missing. The functions must not block.
func (b *Book[V]) Inherit(key string, ended func() bool, fresh func() V, whole func(V) bool) V {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.of[key]; l != nil {
		if len(l.owned) >= l.next {
			l.endedLocked()
			l.next = 2 * max(len(l.owned), 1)
		}
		l.owned = append(l.owned, ended)
		return l.value
	}
	if len(b.of) >= max(b.next, least) {
		for key, l := range b.of {
			if l.endedLocked() && whole(l.value) {
				delete(b.of, key)
			}
		}
		b.next = 2 * len(b.of)
	}
	if b.of == nil {
		b.of = make(map[string]*left[V])
	}
	l := &left[V]{value: fresh(), owned: []func() bool{ended}}
	b.of[key] = l
	return l.value
}

// Len returns how many are kept.
func (b *Book[V]) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.of)
}
