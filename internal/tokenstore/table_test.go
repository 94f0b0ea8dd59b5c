package tokenstore

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

type word struct{ text string }

func (w *word) key() string { return w.text }

// oneShard returns the first n words that a table puts into its first shard, to fill it on purpose.
func oneShard(table *table[word, *word], n int) []*word {
	words := make([]*word, 0, n)
	for i := 0; len(words) < n; i++ {
		w := &word{text: fmt.Sprint(i)}
		table.put(w)
		if table.shards[0].live > len(words) {
			words = append(words, w)
		}
	}
	for w := range table.all() {
		table.remove(w)
	}
	return words
}

// The table does what a map does.
func TestTableAgainstMap(t *testing.T) {
	t.Parallel()
	table := newTable[word]()
	words := oneShard(table, 100)
	reference := make(map[string]*word)
	random := rand.New(rand.NewPCG(1, 2))
	for step := range 100_000 {
		// Waves of growing and shrinking.
		w := words[random.IntN(len(words))]
		if present := reference[w.text] != nil; !present && random.IntN(len(words)) < step/50%len(words) {
			reference[w.text] = w
			table.put(w)
		} else if present && random.IntN(len(words)) >= step/50%len(words) {
			delete(reference, w.text)
			table.remove(w)
		}
		if got := table.get(w.text); got != reference[w.text] {
			t.Fatalf("step %d: get %s: %v, want %v", step, w.text, got, reference[w.text])
		}
		if step%100 != 0 {
			continue
		}
		all := slices.Collect(table.all())
		if len(all) != len(reference) || len(all) != table.shards[0].live {
			t.Fatalf("step %d: %d of %d", step, len(all), len(reference))
		}
		if slots := table.shards[0].slots.Load(); slots != nil && len(*slots) > max(minSlots, 8*len(reference)) {
			t.Fatalf("step %d: %d slots for %d words", step, len(*slots), len(reference))
		}
	}
	for w := range maps.Values(reference) {
		table.remove(w)
	}
	if table.get("") != nil || table.shards[0].slots.Load() != nil {
		t.Error("not empty")
	}
}

// While a writer changes a shard all the time, readers find exactly what is in it all the time.
func TestTableReadersBesideAWriter(t *testing.T) {
	t.Parallel()
	table := newTable[word]()
	words := oneShard(table, 200)
	stays, comes := words[:20], words[20:]
	for _, w := range stays {
		table.put(w)
	}
	var over atomic.Bool
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			for !over.Load() {
				for _, w := range stays {
					if table.get(w.text) != w {
						t.Error("lost", w.text)
						return
					}
				}
				seen := make(map[*word]int)
				for w := range table.all() {
					seen[w]++
				}
				for _, w := range stays {
					if seen[w] != 1 {
						t.Error("seen", seen[w], "times")
						return
					}
				}
				if w := table.get("absent"); w != nil {
					t.Error("found", w.text)
					return
				}
			}
		})
	}
	for range 60 {
		for _, w := range comes {
			table.put(w)
		}
		for _, w := range comes {
			table.remove(w)
		}
	}
	over.Store(true)
	group.Wait()
}

type task struct {
	at    instant
	index int
}

func (k *task) position() *int { return &k.index }

// The heap always yields what a search through all would.
func TestDeadlinesAgainstSearch(t *testing.T) {
	t.Parallel()
	var heap deadlines[task, *task]
	var reference []*task
	random := rand.New(rand.NewPCG(3, 4))
	const moments = 500
	for step := range 10_000 {
		switch n := len(reference); {
		case n == 0 || random.IntN(1000) < (step/1000%2)*200+400:
			added := &task{at: instant(random.IntN(moments))}
			reference = append(reference, added)
			heap.add(added, added.at)
		case random.IntN(2) == 0:
			moved := reference[random.IntN(n)]
			moved.at = instant(random.IntN(moments))
			heap.move(moved, moved.at)
		default:
			i := random.IntN(n)
			heap.remove(reference[i])
			reference = slices.Delete(reference, i, i+1)
		}
		soonest := never
		for _, one := range reference {
			soonest = min(soonest, one.at)
		}
		if _, at := heap.first(); at != soonest || heap.len() != len(reference) {
			t.Fatalf("step %d: first at %d of %d, want %d of %d", step, at, heap.len(), soonest, len(reference))
		}
	}
	for _, one := range reference {
		heap.remove(one)
	}
	if heap.len() != 0 || cap(heap.heap) > minHeapRoom {
		t.Errorf("len %d, cap %d", heap.len(), cap(heap.heap))
	}
}
