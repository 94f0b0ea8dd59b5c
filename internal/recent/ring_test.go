package recent_test

import (
	"slices"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/recent"
)

func TestAfter(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name          string
		added         int
		after         uint64
		limit         int
		want          []int
		first, missed uint64
	}{
		{"empty", 0, 0, 10, nil, 1, 0},
		{"all", 3, 0, 10, []int{1, 2, 3}, 1, 0},
		{"the rest", 3, 2, 10, []int{3}, 3, 0},
		{"nothing new", 3, 3, 10, nil, 4, 0},
		{"as many as asked", 4, 1, 2, []int{2, 3}, 2, 0},
		{"full", 4, 0, 10, []int{1, 2, 3, 4}, 1, 0},
		{"one lost", 5, 0, 10, []int{2, 3, 4, 5}, 2, 1},
		{"lost and asked from before", 10, 3, 10, []int{7, 8, 9, 10}, 7, 3},
		{"from another ring", 3, 99, 10, []int{1, 2, 3}, 1, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := recent.New[int](4)
			for i := range test.added {
				r.Add(i + 1)
			}
			values, first, missed := r.After(test.after, test.limit)
			if !slices.Equal(values, test.want) || first != test.first || missed != test.missed {
				t.Errorf("After(%d) = %v from %d, missed %d; want %v from %d, missed %d",
					test.after, values, first, missed, test.want, test.first, test.missed)
			}
		})
	}
}

func TestNilHoldsNothing(t *testing.T) {
	t.Parallel()
	var r *recent.Ring[int]
	r.Add(1)
	if values, first, missed := r.After(0, 10); values != nil || first != 0 || missed != 0 {
		t.Errorf("a nil ring has %v, %d, %d", values, first, missed)
	}
}
