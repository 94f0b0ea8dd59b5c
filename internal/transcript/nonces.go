package transcript

import (
	"container/heap"
	"strings"
	"time"
)

// nonces is a bounded set of the nonces of handshakes, each with the time by which it
// expires. It is guarded by whoever has it.
type nonces struct {
	seen  map[nonceKey]struct{}
	count map[string]int // by self id, never zero
	times timeHeap       // of what is in seen, the earliest first
}

type nonceKey struct {
	selfID string
	nonce  [NonceSize]byte
}

func newNonceKey(selfID string, nonce []byte) (nonceKey, error) {
	if len(nonce) != NonceSize {
		return nonceKey{}, ErrNonce
	}
	return nonceKey{selfID: strings.Clone(selfID), nonce: [NonceSize]byte(nonce)}, nil
}

func newNonces() nonces {
	return nonces{seen: make(map[nonceKey]struct{}), count: make(map[string]int)}
}

func (n *nonces) len() int { return len(n.seen) }

func (n *nonces) has(key nonceKey) bool {
	_, ok := n.seen[key]
	return ok
}

// add remembers a nonce, or returns [ErrFull].
func (n *nonces) add(key nonceKey, at time.Time, cfg *ReplayConfig) error {
	if len(n.seen) >= cfg.MaxTotal || n.count[key.selfID] >= cfg.MaxPerSelf {
		return ErrFull
	}
	n.seen[key] = struct{}{}
	n.count[key.selfID]++
	heap.Push(&n.times, timed{key: key, at: at})
	return nil
}

// expire forgets what is earlier than a time and returns the latest of them.
func (n *nonces) expire(before time.Time) (last time.Time, some bool) {
	for len(n.times) > 0 && n.times[0].at.Before(before) {
		t, _ := heap.Pop(&n.times).(timed)
		delete(n.seen, t.key)
		if n.count[t.key.selfID]--; n.count[t.key.selfID] == 0 {
			delete(n.count, t.key.selfID)
		}
		last, some = t.at, true
	}
	return last, some
}

type timed struct {
	key nonceKey
	at  time.Time
}

// timeHeap is a heap by time.
type timeHeap []timed

func (h timeHeap) Len() int           { return len(h) }
func (h timeHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h timeHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements [heap.Interface].
func (h *timeHeap) Push(x any) {
	if t, ok := x.(timed); ok {
		*h = append(*h, t)
	}
}

// Pop implements [heap.Interface].
func (h *timeHeap) Pop() any {
	last := len(*h) - 1
	t := (*h)[last]
	(*h)[last] = timed{}
	*h = (*h)[:last]
	return t
}
