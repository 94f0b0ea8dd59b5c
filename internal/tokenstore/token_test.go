package tokenstore

import "testing"

// Every bit of a digest counts.
func TestDigestEqual(t *testing.T) {
	t.Parallel()
	const bits = 8
	same, other := digest{1, 2, 3}, digest{1, 2, 3}
	if !same.equal(&other) {
		t.Error("the same differ")
	}
	for i := range len(same) * bits {
		other = same
		other[i/bits] ^= 1 << (i % bits)
		if same.equal(&other) {
			t.Errorf("bit %d does not count", i)
		}
	}
}
