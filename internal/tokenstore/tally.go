package tokenstore

import (
	"math/bits"
	"sync/atomic"
)

// wordBits is how many bits a word has.
const wordBits = 64

// tallies count the live identities by a name. They hold as many names as there are live identities at
// most. There is one writer at a time, and count may be called meanwhile.
type tallies struct {
	table *table[tally, *tally]
}

// tally is one count. Identities share its name.
type tally struct {
	name   string
	count  atomic.Int32
	taken  []uint64 // numbers of those that have one, a bit each
	grants int      // of all of them
}

// number takes the least number that nobody has.
func (t *tally) number() int {
	for i, some := range t.taken {
		if free := bits.TrailingZeros64(^some); free < wordBits {
			t.taken[i] |= 1 << free
			return i*wordBits + free
		}
	}
	t.taken = append(t.taken, 1)
	return (len(t.taken) - 1) * wordBits
}

// giveBack gives a number back.
func (t *tally) giveBack(number int) { t.taken[number/wordBits] &^= 1 << (number % wordBits) }

func (t *tally) key() string { return t.name }

func newTallies() tallies { return tallies{table: newTable[tally]()} }

func (t tallies) count(name string) int {
	if one := t.table.get(name); one != nil {
		return int(one.count.Load())
	}
	return 0
}

// increment counts one more and returns the tally to decrement one day.
func (t tallies) increment(name string) *tally {
	one := t.table.get(name)
	if one == nil {
		one = &tally{name: name}
		t.table.put(one)
	}
	one.count.Add(1)
	return one
}

func (t tallies) decrement(one *tally) {
	if one.count.Add(-1) == 0 {
		t.table.remove(one)
	}
}
