package herald_test

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/masegraye/connect-plugin-go/internal/herald"
)

// chore is one that a test looks at.
type chore struct {
	errand herald.Errand
	do     func()
	busy   atomic.Int32
	times  atomic.Int32
	beside atomic.Bool // it was done by two at a time
}

func (c *chore) Do() {
	if c.busy.Add(1) > 1 {
		c.beside.Store(true)
	}
	c.times.Add(1)
	if c.do != nil {
		c.do()
	}
	c.busy.Add(-1)
}

// A chore is done when it begins and when it is woken, not before, and once for any number of
// times that it was woken meanwhile.
func TestHerald_DoesWhatThereIsToDo(t *testing.T) {
	t.Parallel()
	var h herald.Herald
	begun, goOn := make(chan struct{}), make(chan struct{})
	c := &chore{do: func() {
		begun <- struct{}{}
		<-goOn
	}}
	h.Wake(&c.errand)
	h.Wait(t.Context())
	if n := c.times.Load(); n != 0 {
		t.Fatalf("done %d times before it began", n)
	}
	h.Begin(&c.errand, c)
	<-begun
	for range 3 {
		h.Wake(&c.errand)
	}
	goOn <- struct{}{}
	<-begun
	goOn <- struct{}{}
	h.Wait(t.Context())
	if n := c.times.Load(); n != 2 {
		t.Fatalf("done %d times, want 2", n)
	}
	h.Wake(&c.errand)
	<-begun
	goOn <- struct{}{}
	h.Wait(t.Context())
}

// Many chores, woken by many, are done by a few: none by two at a time, each after it was woken last.
func TestHerald_HasFewGoroutines(t *testing.T) {
	t.Parallel()
	const chores, wakes = 50, 200
	var (
		h             herald.Herald
		working, most atomic.Int32
		seen          [chores]atomic.Int32
		wanted        [chores]atomic.Int32
		group         sync.WaitGroup
		all           [chores]chore
	)
	for i := range all {
		all[i].do = func() {
			if n := working.Add(1); n > most.Load() {
				most.Store(n)
			}
			seen[i].Store(wanted[i].Load())
			runtime.Gosched()
			working.Add(-1)
		}
		h.Begin(&all[i].errand, &all[i])
	}
	for range 4 {
		group.Go(func() {
			for n := range wakes {
				wanted[n%chores].Add(1)
				h.Wake(&all[n%chores].errand)
			}
		})
	}
	group.Wait()
	h.Wait(t.Context())
	for i := range all {
		if all[i].beside.Load() || seen[i].Load() != wanted[i].Load() {
			t.Errorf("chore %d: beside itself %t, saw %d of %d", i, all[i].beside.Load(), seen[i].Load(), wanted[i].Load())
		}
	}
	if n := int(most.Load()); n > runtime.GOMAXPROCS(0) {
		t.Errorf("%d at a time", n)
	}
}

// A chore that does not end holds up nobody who waits for a time.
func TestHerald_WaitsNoLongerThanAsked(t *testing.T) {
	t.Parallel()
	var h herald.Herald
	begun, goOn := make(chan struct{}), make(chan struct{})
	c := &chore{do: func() {
		begun <- struct{}{}
		<-goOn
	}}
	h.Begin(&c.errand, c)
	<-begun
	over, cancel := context.WithCancel(t.Context())
	cancel()
	h.Wait(over)
	close(goOn)
	h.Wait(t.Context())
	if c.busy.Load() != 0 {
		t.Error("it is still being done")
	}
}

// Who waits until nothing is left to do waits for everything that is being done, not for the first of it.
func TestHerald_WaitsForAll(t *testing.T) {
	t.Parallel()
	if runtime.GOMAXPROCS(0) < 2 {
		t.Skip("one thing at a time is done here")
	}
	synctest.Test(t, func(t *testing.T) {
		var h herald.Herald
		var ends [2]chan struct{}
		for i := range ends {
			ends[i] = make(chan struct{})
			c := &chore{do: func() { <-ends[i] }}
			h.Begin(&c.errand, c)
		}
		waited := make(chan struct{})
		go func() {
			defer close(waited)
			h.Wait(t.Context())
		}()
		synctest.Wait()
		close(ends[0])
		synctest.Wait()
		select {
		case <-waited:
			t.Error("something is still being done")
		default:
		}
		close(ends[1])
		<-waited
	})
}
