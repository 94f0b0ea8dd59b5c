package crowd_test

import (
	"slices"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/crowd"
)

func TestNewcomersTakeThePlaceOfTheFirst(t *testing.T) {
	t.Parallel()
	var gone []string
	c := crowd.New(4, 2)
	enter := func(key, name string) func() bool { return c.Enter(key, func(bool) { gone = append(gone, name) }) }
	want := func(names ...string) {
		t.Helper()
		if !slices.Equal(gone, names) {
			t.Fatalf("displaced %q, want %q", gone, names)
		}
	}
	leaveA1 := enter("a", "a1")
	leaveA2 := enter("a", "a2")
	enter("b", "b1")
	want()
	enter("a", "a3") // a has its share
	want("a1")
	if leaveA1() {
		t.Error("who was displaced was still there")
	}
	if !leaveA2() || leaveA2() {
		t.Error("who was there left not once")
	}
	enter("c", "c1")
	want("a1")
	enter("d", "d1")
	enter("e", "e1") // all are too many: the first of all goes
	want("a1", "b1")
	if n := c.Len(); n != 4 {
		t.Errorf("%d members", n)
	}
}

func TestAShareOfOne(t *testing.T) {
	t.Parallel()
	n := 0
	c := crowd.New(1, 1)
	for range 3 {
		c.Enter("a", func(bool) { n++ })
	}
	if n != 2 || c.Len() != 1 {
		t.Errorf("%d displaced, %d left", n, c.Len())
	}
}
