// Package recount counts what happens again and again, so that a log has one line of it in
// a while instead of one each time.
package recount

import (
	"maps"
	"sync"
)

// Counter counts by key, in bounded memory, and keeps what was last noted of each. The zero value
// counts under one key only; it is safe for concurrent use.
type Counter[K comparable, V any] struct {
	// MaxKeys bounds the keys; what is beyond them counts as the zero key. Set it before use.
	MaxKeys int

	mu     sync.Mutex
	counts map[K]Count[V]
}

// Count is how often something happened, and what was noted of it last.
type Count[V any] struct {
	N    int
	Last V
}

// Note takes note of one more, and reports whether it is the first since [Counter.Take]: that
// one is not counted, as its caller tells of it at once.
func (c *Counter[K, V]) Note(k K, v V) (first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var rest K
	room := c.MaxKeys
	if _, known := c.counts[rest]; known {
		room++
	}
	if _, known := c.counts[k]; !known && len(c.counts) >= room {
		k = rest
	}
	n, known := c.counts[k]
	if !known {
		if c.counts == nil {
			c.counts = make(map[K]Count[V])
		}
		c.counts[k] = Count[V]{0, v}
		return true
	}
	c.counts[k] = Count[V]{n.N + 1, v}
	return false
}

// Take returns what was counted and begins anew. A key that was only told of at once is not
// among it; one that was counted stays known, so that what goes on is only counted.
func (c *Counter[K, V]) Take() map[K]Count[V] {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.counts, func(_ K, n Count[V]) bool { return n.N == 0 })
	out := maps.Clone(c.counts)
	for k, n := range c.counts {
		c.counts[k] = Count[V]{0, n.Last}
	}
	return out
}
