package recount_test

import (
	"maps"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/recount"
)

func TestWhatGoesOnIsCounted(t *testing.T) {
	t.Parallel()
	c := recount.Counter[string, string]{MaxKeys: 2}
	firsts := 0
	note := func(keys ...string) {
		for _, k := range keys {
			if c.Note(k, k) {
				firsts++
			}
		}
	}
	take := func(want map[string]int) {
		t.Helper()
		got := map[string]int{}
		for k, n := range c.Take() {
			if got[k] = n.N; k != "" && n.Last != k || k == "" && n.Last != "d" {
				t.Errorf("%q was last noted with %q", k, n.Last)
			}
		}
		if !maps.Equal(got, want) {
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
