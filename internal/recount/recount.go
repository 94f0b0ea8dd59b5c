// Package recount counts what happens again and again, so that a log has one line of it in
// a while instead of one each time.
package recount

import (
	"maps"
	"sync"
)

// Counter counts by key, in bounded memory. The zero value counts under one key only; it is
// safe for concurrent use.
type Counter[K comparable] struct {
	// MaxKeys bounds the keys; what is beyond them counts as the zero key. Set it before use.
	MaxKeys int

	mu     sync.Mutex
	counts map[K]int
}

// Note takes note of one more, and reports whether it is the first since [Counter.Take]: that
// one is not counted, as its caller tells of it at once.
func (c *Counter[K]) Note(k K) (first bool) {
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
			c.counts = make(map[K]int)
		}
		c.counts[k] = 0
		return true
	}
	c.counts[k] = n + 1
	return false
}

// Take returns what was counted and begins anew. A key that was only told of at once is not
// among it; one that was counted stays known, so that what goes on is only counted.
func (c *Counter[K]) Take() map[K]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.counts, func(_ K, n int) bool { return n == 0 })
	out := maps.Clone(c.counts)
	for k := range c.counts {
		c.counts[k] = 0
	}
	return out
}
