package jury_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/jury"
)

const (
	seats    = 8
	patience = 5 * time.Second
)

// However many ask at once, all get a seat, and no more than there are at a time, as long as somebody is answered: also where each is
// asked for many times, and so keeps its seat for longer than anybody waits.
func TestBox_Many(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		box := &jury.Box{Seats: seats, Patience: patience}
		var at, most, refused atomic.Int32
		var all sync.WaitGroup
		for range 10 * seats {
			all.Go(func() {
				if !box.Sit() {
					refused.Add(1)
					return
				}
				for n := at.Add(1); n > most.Load(); {
					most.Store(n)
				}
				for range 20 {
					time.Sleep(patience - time.Second)
					box.Answered()
				}
				at.Add(-1)
				box.Rise()
			})
		}
		all.Wait()
		if refused.Load() > 0 || most.Load() > seats {
			t.Errorf("%d got no seat, and %d had one at a time", refused.Load(), most.Load())
		}
	})
}

// Those that wait for each other are told so, in a time that is bounded, however often each of them asks again; afterwards there are
// seats again.
func TestBox_WaitingForEachOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		box := &jury.Box{Seats: seats, Patience: patience}
		var asked, told int
		var ask func() // one that is answered once another has asked, in a goroutine of its own
		ask = func() {
			asked++
			if !box.Sit() {
				told++
				return
			}
			for range 3 {
				over := make(chan struct{})
				go func() { defer close(over); ask() }()
				<-over
				box.Answered()
			}
			box.Rise()
		}
		began := time.Now()
		ask()
		if took := time.Since(began); took != patience || told != asked-seats || told != 2*seats+1 {
			t.Errorf("after %v %d of %d were told", took, told, asked)
		}
		if !box.Sit() {
			t.Error("no seat afterwards")
		}
	})
}
