package held_test

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/held"
)

func TestQueue_TellsInOrderWithoutALock(t *testing.T) {
	t.Parallel()
	var q held.Queue[int]
	var told []int
	var tell func(int)
	tell = func(n int) {
		told = append(told, n)
		if n == 1 { // code that is told does what is told of, in either way
			q.Hold()
			q.Pass(3, tell)
			q.Release()
			q.Tell(tell)
			q.Pass(4, tell)
		}
	}
	q.Pass(0, tell)
	if len(told) != 1 {
		t.Error("what nobody holds is kept")
	}
	q.Hold()
	q.Pass(1, tell)
	q.Pass(2, tell)
	if len(told) != 1 {
		t.Error("what is held is not kept")
	}
	q.Release()
	q.Tell(tell)
	q.Tell(tell)
	if !slices.Equal(told, []int{0, 1, 2, 3, 4}) {
		t.Errorf("told %v", told)
	}
}

// What comes while others are told of what was kept is told after that, and whoever brings it waits; so does whoever has more to tell.
func TestQueue_OrderWhileItIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var q held.Queue[int]
		var mu sync.Mutex
		var told []int
		tell := func(n int) {
			time.Sleep(2 * time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			told = append(told, n)
		}
		now := func() []int {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(told)
		}
		var others sync.WaitGroup
		others.Go(func() {
			q.Hold()
			for n := range 10 {
				q.Pass(n, tell)
			}
			q.Release()
			q.Tell(tell)
			if got := now(); len(got) < 10 {
				t.Errorf("the first returns when %v was told", got)
			}
		})
		time.Sleep(5 * time.Millisecond) // two are told
		others.Go(func() {
			q.Pass(10, tell)
			if got := now(); !slices.Contains(got, 10) {
				t.Errorf("whoever brings something returns when %v was told", got)
			}
		})
		synctest.Wait()
		others.Go(func() {
			q.Hold()
			q.Pass(11, tell)
			q.Pass(12, tell)
			q.Release()
			q.Tell(tell)
			if got := now(); !slices.Contains(got, 12) {
				t.Errorf("the second returns when %v was told", got)
			}
		})
		others.Wait()
		if want := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}; !slices.Equal(told, want) {
			t.Errorf("told %v", told)
		}
	})
}

// Code that is told may wait for somebody who has something to tell: that is told, too, if later.
func TestQueue_CodeThatWaitsForOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var q held.Queue[int]
		var told []int
		var tell func(int)
		tell = func(n int) {
			told = append(told, n)
			if n == 1 {
				var other sync.WaitGroup
				other.Go(func() {
					q.Hold()
					q.Pass(2, tell)
					q.Release()
					q.Tell(tell)
				})
				other.Wait()
			}
		}
		q.Hold()
		q.Pass(1, tell)
		q.Release()
		q.Tell(tell)
		if !slices.Equal(told, []int{1, 2}) {
			t.Errorf("told %v", told)
		}
	})
}

func TestQueue_SurvivesAPanic(t *testing.T) {
	t.Parallel()
	var q held.Queue[int]
	none := func(int) {}
	q.Hold()
	q.Pass(1, none)
	q.Pass(2, none)
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
