package fullest_test

import (
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/fullest"
)

func TestCount(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		counts map[string]int
		want   string
		most   int
	}{
		"nobody":            {nil, "", 0},
		"nothing":           {map[string]int{"a": 0}, "", 0},
		"one has most":      {map[string]int{"a": 1, "b": 3, "c": 2}, "b", 3},
		"the first of many": {map[string]int{"d": 3, "b": 3, "c": 3, "a": 1}, "b", 3},
		"no name":           {map[string]int{"": 3, "a": 3}, "", 3},
	} {
		if got, most := fullest.Count(c.counts); got != c.want || most != c.most {
			t.Errorf("%s: %q has %d, want %q with %d", name, got, most, c.want, c.most)
		}
	}
}
