// Package surplus bounds how much all strangers together make a program record: so much at once and so much a second,
// and of the rest once in a while how much there was, of what and of how many.
package surplus

import (
	"sync"
	"time"
)

// Config is what a [Budget] keeps to.
type Config struct {
	PerSecond float64
	Burst     int
	Every     time.Duration // how often the rest is told
	Sources   int           // how many are told apart among the rest
	Kinds     int           // how many kinds are; what is beyond them counts as the zero value of K
}

// Rest is what there was no room for.
type Rest[K comparable] struct {
	N       int // altogether, zero for nothing
	Kinds   map[K]int
	Sources int  // how many it was of
	More    bool // it was of more than that: no more were told apart
}

// Budget is one that all have in common. Make it with [New]; it is safe for concurrent use.
type Budget[K comparable] struct {
	// Fixed at creation.
	cfg  Config
	over chan struct{}

	mu      sync.Mutex
	used    float64 // of the burst
	at      time.Time
	since   time.Time // when the rest began
	rest    Rest[K]
	sources map[string]struct{}
}

// New returns a budget that nobody used.
func New[K comparable](cfg Config) *Budget[K] {
	return &Budget[K]{cfg: cfg, over: make(chan struct{}, 1)}
}

// Spend reports whether there is room for one of a kind, of a source. Where there is not, it counts as the rest, and
// where that is due it is returned: whoever gets it tells it.
func (b *Budget[K]) Spend(kind K, source string, now time.Time) (ok bool, due Rest[K]) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.After(b.at) {
		b.used = max(b.used-now.Sub(b.at).Seconds()*b.cfg.PerSecond, 0)
		b.at = now
	}
	if ok = b.used <= float64(b.cfg.Burst-1); ok {
		b.used++
	} else {
		b.countLocked(kind, source, now)
	}
	return ok, b.dueLocked(now)
}

// Over has a value when there is a rest, and nobody may come by any more who would tell it: [Config].Every later it is due.
func (b *Budget[K]) Over() <-chan struct{} { return b.over }

// Due returns the rest where it is due.
func (b *Budget[K]) Due(now time.Time) Rest[K] {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dueLocked(now)
}

// Take returns the rest at once.
func (b *Budget[K]) Take() Rest[K] {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.takeLocked()
}

func (b *Budget[K]) dueLocked(now time.Time) Rest[K] {
	if b.rest.N == 0 || now.Sub(b.since) < b.cfg.Every {
		return Rest[K]{}
	}
	return b.takeLocked()
}

func (b *Budget[K]) takeLocked() Rest[K] {
	rest := b.rest
	rest.Sources = len(b.sources)
	b.rest, b.sources = Rest[K]{}, nil
	return rest
}

func (b *Budget[K]) countLocked(kind K, source string, now time.Time) {
	if b.rest.N == 0 {
		b.rest.Kinds, b.sources, b.since = map[K]int{}, map[string]struct{}{}, now
		select {
		case b.over <- struct{}{}:
		default:
		}
	}
	b.rest.N++
	if _, known := b.rest.Kinds[kind]; !known && len(b.rest.Kinds) >= b.cfg.Kinds {
		var others K
		kind = others
	}
	b.rest.Kinds[kind]++
	if _, known := b.sources[source]; known {
		return
	}
	if len(b.sources) >= b.cfg.Sources {
		b.rest.More = true
		return
	}
	b.sources[source] = struct{}{}
}
