package seats_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/seats"
)

func TestSeats_AreBoundedByKeyAndInAll(t *testing.T) {
	t.Parallel()
	var s seats.Seats
	b := seats.Bound{Most: 3, Each: 2}
	take := func(key string, want seats.Met) func() {
		t.Helper()
		leave, met := s.Take(key, b)
		if met != want {
			t.Errorf("%s: %d, want %d", key, met, want)
		}
		return leave
	}
	first := take("a", seats.None)
	take("a", seats.None)
	take("a", seats.OfKey)
	take("b", seats.None)
	take("b", seats.InAll)
	first()
	first() // is left once
	take("b", seats.None)
	take("a", seats.InAll)
	if n := s.Len(); n != 3 {
		t.Errorf("%d are taken", n)
	}
}

func TestSeats_NothingStays(t *testing.T) {
	t.Parallel()
	var (
		s  seats.Seats
		wg sync.WaitGroup
	)
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if leave, met := s.Take("a", seats.Bound{Most: 4, Each: 4}); met == seats.None {
					leave()
				}
			}
		})
	}
	wg.Wait()
	if n := s.Len(); n != 0 {
		t.Errorf("%d are taken", n)
	}
}

func TestSeats_SeveralAtOnce(t *testing.T) {
	t.Parallel()
	var s seats.Seats
	b := seats.Bound{Most: 6, Each: 4}
	for i, tt := range []struct {
		key     string
		n, want int
	}{{"a", 3, 3}, {"a", 2, 0}, {"a", 1, 1}, {"b", 9, 0}, {"b", 2, 2}, {"b", 1, 0}} {
		if took, _ := s.Enter(tt.key, tt.n, b); took != tt.want {
			t.Errorf("%d: %s took %d of %d, want %d", i, tt.key, took, tt.n, tt.want)
		}
	}
	s.Leave("a", 3)
	s.Leave("a", 1)
	if took, _ := s.Enter("c", 9, b); took != b.Each { // more than a key may have is all of that
		t.Errorf("took %d", took)
	}
	s.Leave("b", 2)
	s.Leave("c", b.Each)
	if n := s.Len(); n != 0 {
		t.Errorf("%d are taken", n)
	}
}

// However many take seats of one total, there are no more than there may be.
func TestSeats_TotalIsExact(t *testing.T) {
	t.Parallel()
	const most, each, all = 10, 3, 50
	var (
		s    seats.Total
		took atomic.Int64
		wg   sync.WaitGroup
	)
	for range all {
		wg.Go(func() {
			if s.Enter(each, most) {
				took.Add(1)
			}
		})
	}
	wg.Wait()
	if took.Load() != most/each || s.Len() != most/each*each {
		t.Errorf("%d took %d seats, want %d", took.Load(), s.Len(), most/each)
	}
	if !s.Enter(1, most) || s.Enter(1, most) {
		t.Error("the last one is not exactly one")
	}
	s.Leave(most)
	if s.Len() != 0 {
		t.Errorf("%d are taken", s.Len())
	}
}
