package limiter

import (
	"math/rand/v2"
	"strconv"
	"testing"
	"time"
)

// Eviction relies on this: a recorded time is never later than the true one, and
// the heap is one.
func TestShard_RecordedTimesAreNeverLate(t *testing.T) {
	t.Parallel()
	rates := []float64{0, 0.3, 1, 7, 1000}
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		l, now := New(8), time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
		for range 500 {
			now = now.Add(time.Duration(rng.Int64N(int64(2 * time.Second))))
			l.Allow(strconv.Itoa(rng.IntN(20)), rates[rng.IntN(len(rates))], 1+rng.IntN(9), now)
			s := &l.shards[0]
			if len(s.order) != len(s.buckets) || len(s.order) > 8 {
				t.Fatalf("seed %d: %d in the heap, %d in the map", seed, len(s.order), len(s.buckets))
			}
			for i, b := range s.order {
				if b.index != i || s.buckets[b.key] != b {
					t.Fatalf("seed %d: bucket %q is out of place", seed, b.key)
				}
				if full := b.nextFull(now); full.After(now) && b.fullAt.After(full.Add(time.Microsecond)) {
					t.Fatalf("seed %d: %q is recorded full at %s, is at %s", seed, b.key, b.fullAt, full)
				}
				if parent := s.order[max(i-1, 0)/2]; b.fullAt.Before(parent.fullAt) {
					t.Fatalf("seed %d: %q is before its parent", seed, b.key)
				}
			}
		}
	}
}

// A newcomer gets a place exactly if some bucket is full.
func TestShard_PlaceIfAndOnlyIfOneIsFull(t *testing.T) {
	t.Parallel()
	const step = int64(150 * time.Millisecond)
	given, refused := 0, 0
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 2))
		l, now := New(8), time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
		s := &l.shards[0]
		for i := range 500 {
			now = now.Add(time.Duration(rng.Int64N(step)))
			key := strconv.Itoa(rng.IntN(16))
			if _, ok := s.buckets[key]; !ok && len(s.buckets) == s.maxKeys {
				full := false
				for _, b := range s.order {
					full = full || !b.nextFull(now).After(now)
				}
				l.Allow(key, 1, 4, now)
				if _, placed := s.buckets[key]; placed != full {
					t.Fatalf("seed %d, step %d: placed is %v, a full bucket exists is %v", seed, i, placed, full)
				}
				if full {
					given++
				} else {
					refused++
				}
				continue
			}
			l.Allow(key, 1, 4, now)
		}
	}
	if given < 100 || refused < 100 {
		t.Errorf("places were given %d times and refused %d times: too few to tell", given, refused)
	}
}
