package recount_test

import (
	"maps"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/recount"
)

func TestWhatGoesOnIsCounted(t *testing.T) {
	t.Parallel()
	c := recount.Counter[string]{MaxKeys: 2}
	firsts := 0
	note := func(keys ...string) {
		for _, k := range keys {
			if c.Note(k) {
				firsts++
			}
		}
	}
	take := func(want map[string]int) {
		t.Helper()
		if got := c.Take(); !maps.Equal(got, want) {
			t.Errorf("took %v, want %v", got, want)
		}
	}
	note("a", "a", "a", "b")
	if firsts != 2 {
		t.Errorf("%d firsts", firsts)
	}
	note("c", "c", "d") // there is no room: one key stands for all of them
	take(map[string]int{"a": 2, "": 2})
	note("a", "b")
	if firsts != 4 {
		t.Errorf("%d firsts: a goes on, b begins anew", firsts)
	}
	take(map[string]int{"a": 1})
	take(map[string]int{})
	note("a")
	if firsts != 5 {
		t.Error("what had ended does not begin anew")
	}
}
