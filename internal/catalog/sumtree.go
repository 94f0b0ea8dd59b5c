package catalog

import "slices"

// fanout is how many sums one sum of the next level holds: a few cache lines, so
// that finding costs few misses.
const fanout = 32

// sumTree adds up the masses of numbered slots. Adding and finding cost the
// logarithm of the number of slots. The zero value is empty.
type sumTree struct {
	// The first level is the masses; each further one sums up fanout of the one before, the
	// last one has at most fanout.
	levels [][]uint64
	sum    uint64
}

// total is the mass of all slots.
func (t *sumTree) total() uint64 { return t.sum }

// add puts mass on a slot; the tree grows as needed.
func (t *sumTree) add(slot int, mass uint64) {
	t.reserve(slot + 1)
	t.sum += mass

	for _, level := range t.levels {
		level[slot] += mass
		slot /= fanout
	}
}

// sub takes mass from a slot that has at least that much.
func (t *sumTree) sub(slot int, mass uint64) {
	t.sum -= mass

	for _, level := range t.levels {
		level[slot] -= mass
		slot /= fanout
	}
}

// find returns the slot that holds point k, counted through the masses of the
// slots in order, and how far into its mass the point is. k is below the total.
func (t *sumTree) find(k uint64) (slot int, into uint64) {
	for _, level := range slices.Backward(t.levels) {
		slot *= fanout

		for _, sum := range level[slot:] {
			if k < sum {
				break
			}

			k -= sum
			slot++
		}
	}

	return slot, k
}

// reserve makes every level long enough for a number of slots.
func (t *sumTree) reserve(slots int) {
	for i := 0; ; i++ {
		if i == len(t.levels) {
			t.levels = append(t.levels, t.summary(slots))
		}

		for len(t.levels[i]) < slots {
			t.levels[i] = append(t.levels[i], 0)
		}

		if slots <= fanout {
			return
		}

		slots = (slots + fanout - 1) / fanout
	}
}

// summary makes the next level from the last one.
func (t *sumTree) summary(length int) []uint64 {
	next := make([]uint64, length)
	if len(t.levels) == 0 {
		return next
	}

	for i, sum := range t.levels[len(t.levels)-1] {
		next[i/fanout] += sum
	}

	return next
}
