package h2serve

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// What is put into a queue is taken from it in the same order, however it is cut.
func TestQueueKeepsTheOrder(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for range 5 {
		var q queue
		var put, taken []byte
		for range 200 {
			piece := make([]byte, random.IntN(1+random.IntN(20<<10)))
			for i := 0; i < len(piece); i += 100 {
				piece[i] = byte(random.Uint32())
			}
			q.put(piece)
			put = append(put, piece...)
			wanted := make([]byte, random.IntN(24<<10))
			taken = append(taken, wanted[:q.take(wanted)]...)
			if q.length != len(put)-len(taken) {
				t.Fatalf("%d in the queue, want %d", q.length, len(put)-len(taken))
			}
		}
		rest := make([]byte, q.length)
		taken = append(taken, rest[:q.take(rest)]...)
		if !bytes.Equal(put, taken) || q.first != nil || q.last != nil || q.length != 0 {
			t.Fatalf("%d bytes put, %d taken, equal: %t", len(put), len(taken), bytes.Equal(put, taken))
		}
	}
}

// A cleared queue is as a new one, and the parts that others use now are not its.
func TestQueueIsCleared(t *testing.T) {
	t.Parallel()
	var q queue
	q.put(make([]byte, 40<<10))
	if n := q.clear(); n != 40<<10 || q.first != nil || q.last != nil || q.length != 0 {
		t.Fatalf("cleared %d bytes, left %+v", n, q)
	}
	q.put([]byte("again"))
	got := make([]byte, 10)
	if n := q.take(got); string(got[:n]) != "again" {
		t.Fatalf("took %q, want again", got[:n])
	}
}
