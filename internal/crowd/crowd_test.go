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
	enter := func(key, name string) func() bool { return c.Enter(key, 1, func(bool) { gone = append(gone, name) }) }
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
		c.Enter("a", 1, func(bool) { n++ })
	}
	if n != 2 || c.Len() != 1 {
		t.Errorf("%d displaced, %d left", n, c.Len())
	}
}

func TestLargeMembersTakeThePlaceOfSeveral(t *testing.T) {
	t.Parallel()
	var gone []string
	c := crowd.New(6, 4)
	enter := func(key, name string, size int) func() bool {
		return c.Enter(key, size, func(bool) { gone = append(gone, name) })
	}
	enter("b", "b1", 2)
	enter("a", "a1", 2)
	enter("a", "a2", 1)
	leave := enter("a", "a3", 3) // beside a2
	enter("b", "b2", 1)          // beside those of a
	if want := []string{"a1", "b1"}; !slices.Equal(gone, want) || c.Len() != 5 {
		t.Errorf("displaced %q, want %q; %d are left", gone, want, c.Len())
	}
	if key, n := c.Fullest(); key != "a" || n != 4 {
		t.Errorf("%s has %d", key, n)
	}
	leave()
	enter("a", "a4", 1)
	enter("a", "a5", 4)                        // in the place of two
	if enter("c", "c1", 100); c.Len() != 100 { // more than there may be has it alone
		t.Errorf("%d are left", c.Len())
	}
	if want := []string{"a1", "b1", "a2", "a4", "b2", "a5"}; !slices.Equal(gone, want) {
		t.Errorf("displaced %q, want %q", gone, want)
	}
}
