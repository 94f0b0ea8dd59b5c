package tally

import (
	"sync"
	"sync/atomic"
)

// Bounds of a feed.
const (
	maxFollowers = 64
	feedRoom     = 256
)

// Feed shows events to whoever follows, as they happen. Who does not keep up misses some and
// can tell how many; nobody holds up whoever publishes. The zero value has no followers. It is
// safe for concurrent use.
type Feed[E any] struct {
	followed atomic.Int32 // how many follow, so that nobody costs next to nothing

	mu        sync.Mutex
	followers map[*Follower[E]]struct{}
}

// Follower gets the events of a feed from C until it is closed.
type Follower[E any] struct {
	// C has the events. It is closed by Close.
	C <-chan E

	feed   *Feed[E]
	send   chan E
	missed atomic.Uint64
}

// Followed reports whether anybody follows.
func (f *Feed[E]) Followed() bool { return f.followed.Load() > 0 }

// Publish shows an event to all that follow.
func (f *Feed[E]) Publish(e E) {
	if !f.Followed() {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.followers {
		select {
		case w.send <- e:
		default:
			w.missed.Add(1)
		}
	}
}

// Follow returns a follower, or nil where there are too many. It has to be closed.
func (f *Feed[E]) Follow() *Follower[E] {
	send := make(chan E, feedRoom)
	w := &Follower[E]{C: send, feed: f, send: send}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.followers) >= maxFollowers {
		return nil
	}
	if f.followers == nil {
		f.followers = map[*Follower[E]]struct{}{}
	}
	f.followers[w] = struct{}{}
	f.followed.Add(1)
	return w
}

// Missed returns how many events the follower did not get since it asked last.
func (w *Follower[E]) Missed() uint64 { return w.missed.Swap(0) }

// Close ends the following. It may be called more than once.
func (w *Follower[E]) Close() {
	w.feed.mu.Lock()
	defer w.feed.mu.Unlock()
	if _, ok := w.feed.followers[w]; !ok {
		return
	}
	delete(w.feed.followers, w)
	w.feed.followed.Add(-1)
	close(w.send)
}
