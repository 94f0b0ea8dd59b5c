package seats_test

import (
	"sync"
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
