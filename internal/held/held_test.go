package held_test

import (
	"slices"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/held"
)

func TestQueue_TellsInOrderWithoutALock(t *testing.T) {
	t.Parallel()
	var q held.Queue[int]
	if q.Keep(0) {
		t.Error("what nobody holds is kept")
	}
	q.Hold()
	if !q.Keep(1) || !q.Keep(2) {
		t.Error("what is held is not kept")
	}
	q.Release()
	var told []int
	var tell func(int)
	tell = func(n int) {
		told = append(told, n)
		if n == 1 { // code that is told does what is told of
			q.Hold()
			q.Keep(3)
			q.Release()
			q.Tell(tell)
		}
	}
	q.Tell(tell)
	q.Tell(tell)
	if !slices.Equal(told, []int{1, 2, 3}) {
		t.Errorf("told %v", told)
	}
}

func TestQueue_SurvivesAPanic(t *testing.T) {
	t.Parallel()
	var q held.Queue[int]
	q.Hold()
	q.Keep(1)
	q.Keep(2)
	q.Release()
	func() {
		defer func() { _ = recover() }()
		q.Tell(func(int) { panic("mine") })
	}()
	var told []int
	q.Tell(func(n int) { told = append(told, n) })
	if !slices.Equal(told, []int{2}) {
		t.Errorf("told %v", told)
	}
}
