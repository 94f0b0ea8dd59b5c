package limiter

import (
	"container/heap"
	"math"
	"time"

	"golang.org/x/time/rate"
)

// bucket is the token bucket of one key. Whoever holds it guards it. What was taken
// stays taken when the burst changes: a larger one has its room at once, and none is
// gained by going to and fro.
type bucket struct {
	// Fixed at creation.
	key string

	tokens *rate.Limiter // of the largest burst so far
	limit  rate.Limit
	burst  int
	most   int       // the largest burst so far
	fullAt time.Time // it is not full before
	index  int       // in the heap
}

func newBucket(key string, limit rate.Limit, burst int) *bucket {
	return &bucket{key: key, tokens: rate.NewLimiter(limit, burst), limit: limit, burst: burst, most: burst}
}

func (b *bucket) allow(now time.Time) bool {
	if b.burst < b.most && b.tokens.TokensAt(now) < float64(b.most-b.burst)+1 {
		return false
	}
	return b.tokens.AllowN(now, 1)
}

// set changes the limit from now on.
func (b *bucket) set(limit rate.Limit, burst int, now time.Time) {
	if burst > b.most {
		taken := int(math.Ceil(float64(b.most) - b.tokens.TokensAt(now)))
		b.tokens = rate.NewLimiter(limit, burst)
		b.tokens.AllowN(now, taken)
		b.most = burst
	} else {
		b.tokens.SetLimitAt(now, limit)
	}
	b.limit, b.burst = limit, burst
}

// nextFull returns when the bucket will be full if it is not used until then:
// now if it is, otherwise a time after now.
func (b *bucket) nextFull(now time.Time) time.Time {
	missing := float64(b.most) - b.tokens.TokensAt(now)
	if missing <= 0 {
		return now
	}
	wait := missing / float64(b.limit) * float64(time.Second)
	if !(wait < math.MaxInt64) { // a limit of zero too
		return now.Add(math.MaxInt64)
	}
	return now.Add(time.Duration(math.Ceil(wait)))
}

// fullHeap orders buckets by fullAt.
type fullHeap []*bucket

func (h fullHeap) Len() int           { return len(h) }
func (h fullHeap) Less(i, j int) bool { return h[i].fullAt.Before(h[j].fullAt) }

func (h fullHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements [heap.Interface].
func (h *fullHeap) Push(x any) {
	if b, ok := x.(*bucket); ok {
		b.index = len(*h)
		*h = append(*h, b)
	}
}

// Pop implements [heap.Interface].
func (h *fullHeap) Pop() any {
	last := len(*h) - 1
	b := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return b
}

func (h *fullHeap) push(b *bucket)   { heap.Push(h, b) }
func (h *fullHeap) fix(b *bucket)    { heap.Fix(h, b.index) }
func (h *fullHeap) remove(b *bucket) { heap.Remove(h, b.index) }
