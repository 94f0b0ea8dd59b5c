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
	take := func(key string, want bool) func() {
		t.Helper()
		leave, ok := s.Take(key, b)
		if ok != want {
			t.Errorf("%s: %t, want %t", key, ok, want)
		}
		return leave
	}
	first := take("a", true)
	take("a", true)
	take("a", false)
	take("b", true)
	take("b", false) // in all
	first()
	first() // is left once
	take("b", true)
	take("a", false)
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
				if leave, ok := s.Take("a", seats.Bound{Most: 4, Each: 4}); ok {
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
