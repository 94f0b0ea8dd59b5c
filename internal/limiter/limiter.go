// Package limiter keeps one token bucket per key in bounded memory.
package limiter

import (
	"crypto/sha256"
	"hash/maphash"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// shardCount is how many shards a limiter has that has room for at least
	// minSharded keys. A smaller one has a single shard and an exact bound.
	shardCount = 16
	minSharded = 1024
	// maxKeyBytes is the longest key that is kept as it is; of a longer one its
	// digest is kept.
	maxKeyBytes  = 128
	digestPrefix = "sha256\x00"
	// dropAtOnce is how many buckets are dropped at most for a new one: more than
	// one, so that those that were never used again become fewer.
	dropAtOnce = 2
)

// Limiter limits calls by key, each key with a token bucket of its own. The
// number of buckets is bounded. With each new key two buckets that are full again
// are dropped, which forgets nothing, as a new bucket is full: keys that are not
// used any more are soon gone. A new key that finds no place after that shares one
// bucket with all others of its kind. So a flood of keys costs bounded memory, and
// neither resets nor uses up the budget of a key that has a bucket.
//
// It is safe for concurrent use; make it with [New].
type Limiter struct {
	// Fixed at creation.
	seed   maphash.Seed
	shards []shard

	overflow overflow
}

type overflow struct {
	mu     sync.Mutex
	bucket *bucket
	latest time.Time
}

type shard struct {
	// Fixed at creation.
	maxKeys int

	mu      sync.Mutex
	buckets map[string]*bucket
	order   fullHeap
	latest  time.Time
}

// New returns a limiter with room for maxKeys buckets. With zero or less all
// keys share one.
func New(maxKeys int) *Limiter {
	maxKeys = max(maxKeys, 0)
	count := 1
	if maxKeys >= minSharded {
		count = shardCount
	}
	l := &Limiter{seed: maphash.MakeSeed(), shards: make([]shard, count)}
	for i := range l.shards {
		s := &l.shards[i]
		s.maxKeys = maxKeys / count
		if i < maxKeys%count {
			s.maxKeys++
		}
		s.buckets = make(map[string]*bucket)
	}
	return l
}

// Allow takes a token from the bucket of key and reports whether there was one.
// The bucket holds burst tokens and gains perSecond of them each second; a new
// one is full. Zero, negative or NaN perSecond adds none; +Inf allows every
// call; zero or negative burst allows none. A limit that differs from that of
// the last call takes effect at once: what was taken stays taken, and a larger
// burst has room for the difference.
//
// Time does not run backwards: a now before one already seen counts as that one.
func (l *Limiter) Allow(key string, perSecond float64, burst int, now time.Time) bool {
	limit := rate.Limit(perSecond)
	switch {
	case limit >= rate.Inf:
		return true
	case burst <= 0:
		return false
	case !(limit > 0): // NaN too
		limit = 0
	}
	if len(key) > maxKeyBytes {
		sum := sha256.Sum256([]byte(key))
		key = digestPrefix + string(sum[:])
	}
	if ok, found := l.shard(key).allow(key, limit, burst, now); found {
		return ok
	}
	return l.overflow.allow(limit, burst, now)
}

// Len returns the number of keys that have a bucket. It never exceeds what [New]
// was given.
func (l *Limiter) Len() int {
	n := 0
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		n += len(s.buckets)
		s.mu.Unlock()
	}
	return n
}

func (l *Limiter) shard(key string) *shard {
	if len(l.shards) == 1 {
		return &l.shards[0]
	}
	return &l.shards[maphash.String(l.seed, key)%uint64(len(l.shards))]
}

// allow reports false for found if key has no bucket and there is no place for
// one.
func (s *shard) allow(key string, limit rate.Limit, burst int, now time.Time) (ok, found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latest = later(s.latest, now)
	now = s.latest

	b := s.buckets[key]
	if b == nil {
		s.dropLocked(now)
		if len(s.buckets) >= s.maxKeys {
			return false, false
		}
		b = newBucket(strings.Clone(key), limit, burst)
		ok = b.allow(now)
		b.fullAt = b.nextFull(now)
		s.buckets[b.key] = b
		s.order.push(b)
		return ok, true
	}
	if b.limit != limit || b.burst != burst {
		b.set(limit, burst, now)
		b.fullAt = b.nextFull(now)
		s.order.fix(b)
	}
	return b.allow(now), true
}

// dropLocked drops buckets that are full.
//
// A recorded time is never later than the true one, so where the first of the
// heap is not due, none is. Each round of the loop drops a bucket or puts one back
// that was used since its time was recorded: that use pays for the round.
func (s *shard) dropLocked(now time.Time) {
	for dropped := 0; dropped < dropAtOnce && len(s.order) > 0 && !s.order[0].fullAt.After(now); {
		b := s.order[0]
		if b.fullAt = b.nextFull(now); b.fullAt.After(now) {
			s.order.fix(b)
			continue
		}
		delete(s.buckets, b.key)
		s.order.remove(b)
		dropped++
	}
}

func (o *overflow) allow(limit rate.Limit, burst int, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.latest = later(o.latest, now)
	switch {
	case o.bucket == nil:
		o.bucket = newBucket("", limit, burst)
	case o.bucket.limit != limit || o.bucket.burst != burst:
		o.bucket.set(limit, burst, o.latest)
	}
	return o.bucket.allow(o.latest)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
