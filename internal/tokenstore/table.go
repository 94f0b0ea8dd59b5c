package tokenstore

import (
	"hash/maphash"
	"iter"
	"sync/atomic"
)

const (
	tableShards = 256 // a power of two
	minSlots    = 8   // a power of two
)

// entry is what a table holds: a pointer to something with a fixed key.
type entry[V any] interface {
	*V
	key() string
}

// table finds entries by key. Any number of goroutines may read it while one changes it: get and all
// take no lock and see every entry whose put returned before they were called, and whose removal did
// not begin. Callers make sure that there is one writer at a time.
//
// It is a hash table with open addressing, sharded so that growing copies little at a time. A slot is
// empty, holds an entry, or the tombstone of one that was removed; an entry never moves within an array
// of slots, and a rebuilt shard becomes visible as a whole.
type table[V any, P entry[V]] struct {
	seed      maphash.Seed
	tombstone *V
	shards    [tableShards]shard[V]
}

type shard[V any] struct {
	slots atomic.Pointer[[]atomic.Pointer[V]] // nil: empty

	// For the writer only.
	live int
	used int // live ones and tombstones
}

func newTable[V any, P entry[V]]() *table[V, P] {
	return &table[V, P]{seed: maphash.MakeSeed(), tombstone: new(V)}
}

// get returns the entry with the key, or nil.
func (t *table[V, P]) get(key string) *V {
	hash := maphash.String(t.seed, key)
	slots := t.shards[hash%tableShards].slots.Load()
	if slots == nil {
		return nil
	}
	for i := home(hash, *slots); ; i = next(i, *slots) {
		switch v := (*slots)[i].Load(); {
		case v == nil:
			return nil
		case v != t.tombstone && P(v).key() == key:
			return v
		}
	}
}

// put adds an entry. The caller knows that its key is not in the table.
func (t *table[V, P]) put(v *V) {
	hash := maphash.String(t.seed, P(v).key())
	sh := &t.shards[hash%tableShards]
	if slots := sh.slots.Load(); slots == nil || 4*(sh.used+1) > 3*len(*slots) {
		t.rebuild(sh, sh.live+1)
	}
	slots := *sh.slots.Load()
	i := home(hash, slots)
	for ; ; i = next(i, slots) {
		if old := slots[i].Load(); old == nil {
			sh.used++
			break
		} else if old == t.tombstone {
			break
		}
	}
	slots[i].Store(v)
	sh.live++
}

// remove takes out an entry that is in the table.
func (t *table[V, P]) remove(v *V) {
	hash := maphash.String(t.seed, P(v).key())
	sh := &t.shards[hash%tableShards]
	slots := *sh.slots.Load()
	i := home(hash, slots)
	for slots[i].Load() != v {
		i = next(i, slots)
	}
	slots[i].Store(t.tombstone)
	sh.live--
	if sh.live == 0 {
		sh.slots.Store(nil)
		sh.used = 0
	} else if len(slots) > minSlots && 8*sh.live < len(slots) {
		t.rebuild(sh, sh.live)
	}
}

// all yields the entries. It may miss those added and yield those removed while it runs.
func (t *table[V, P]) all() iter.Seq[*V] {
	return func(yield func(*V) bool) {
		for s := range t.shards {
			slots := t.shards[s].slots.Load()
			if slots == nil {
				continue
			}
			for i := range *slots {
				if v := (*slots)[i].Load(); v != nil && v != t.tombstone && !yield(v) {
					return
				}
			}
		}
	}
}

// rebuild replaces the slots of a shard by ones without tombstones, with room for n entries, at most
// half full.
func (t *table[V, P]) rebuild(sh *shard[V], n int) {
	size := minSlots
	for size < 2*n {
		size *= 2
	}
	slots := make([]atomic.Pointer[V], size)
	if old := sh.slots.Load(); old != nil {
		for i := range *old {
			v := (*old)[i].Load()
			if v == nil || v == t.tombstone {
				continue
			}
			j := home(maphash.String(t.seed, P(v).key()), slots)
			for slots[j].Load() != nil {
				j = next(j, slots)
			}
			slots[j].Store(v)
		}
	}
	sh.used = sh.live
	sh.slots.Store(&slots)
}

// home returns where the search for a hash begins, by the bits that did not choose the shard.
func home[V any](hash uint64, slots []atomic.Pointer[V]) int {
	return int(hash/tableShards) & (len(slots) - 1) //nolint:gosec // 56 bits fit an int.
}

func next[V any](i int, slots []atomic.Pointer[V]) int { return (i + 1) & (len(slots) - 1) }
