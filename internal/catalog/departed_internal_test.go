package catalog

import (
	"strconv"
	"testing"
)

// Who left last is known, whoever left, and what is known is bounded.
func TestDepartedKnowsTheLast(t *testing.T) {
	t.Parallel()

	const leave = 3 * maxDeparted

	d := newDeparted()
	key := func(n int) providerKey { return providerKey{"type", strconv.Itoa(n)} }

	for n := range leave {
		d.add(key(n))
		d.add(key(n)) // twice is once

		if kept := len(d.last) + len(d.before); kept > 2*maxDeparted {
			t.Fatalf("%d are kept after %d left", kept, n)
		}
	}

	for n := leave - maxDeparted; n < leave; n++ {
		if !d.has(key(n)) {
			t.Errorf("%d is forgotten", n)
		}
	}

	if d.has(key(0)) || d.has(providerKey{"other", strconv.Itoa(leave - 1)}) || d.has(key(leave)) {
		t.Error("somebody is known who never left, or left long ago")
	}
}
