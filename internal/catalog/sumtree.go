package catalog

// sumTree is a Fenwick tree (Fenwick, 1994) over the masses of numbered slots.
// Adding and finding cost the logarithm of its size, which is a power of two.
// The zero value is empty.
type sumTree struct {
	sums []uint64
}

// total is the mass of all slots.
func (t *sumTree) total() uint64 {
	if len(t.sums) == 0 {
		return 0
	}

	return t.sums[len(t.sums)-1]
}

// add puts mass on a slot; the tree grows as needed.
func (t *sumTree) add(slot int, mass uint64) {
	t.reserve(slot + 1)

	for i := slot + 1; i <= len(t.sums); i += i & -i {
		t.sums[i-1] += mass
	}
}

// sub takes mass from a slot that has at least that much.
func (t *sumTree) sub(slot int, mass uint64) {
	for i := slot + 1; i <= len(t.sums); i += i & -i {
		t.sums[i-1] -= mass
	}
}

// find returns the slot that holds point k, counted through the masses of the
// slots in order. k is below the total.
func (t *sumTree) find(k uint64) int {
	slot := 0

	for step := len(t.sums) / 2; step > 0; step /= 2 {
		if sum := t.sums[slot+step-1]; sum <= k {
			slot += step
			k -= sum
		}
	}

	return slot
}

func (t *sumTree) reserve(slots int) {
	size := max(len(t.sums), 1)
	for size < slots {
		size *= 2
	}

	if size == len(t.sums) {
		return
	}

	total := t.total()
	grown := make([]uint64, size)
	copy(grown, t.sums)

	for i := 2 * len(t.sums); i > 0 && i <= size; i *= 2 {
		grown[i-1] = total
	}

	t.sums = grown
}
