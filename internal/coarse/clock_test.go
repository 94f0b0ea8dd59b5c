package coarse_test

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/coarse"
)

const period = 16 * time.Second

// Each fires once, never before its time and at most a sixteenth of the period after it, and all of a
// thousand wake the clock no more often than that.
func TestClock_FiresInTime(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		var (
			clock coarse.Clock
			fired atomic.Int32
			mu    sync.Mutex
			at    = map[time.Time]bool{}
		)

		for range 1000 {
			time.Sleep(rand.N(30 * time.Millisecond))

			set := time.Now()
			clock.AfterFunc(period, func() {
				fired.Add(1)
				mu.Lock()
				defer mu.Unlock()

				at[time.Now()] = true
				if took := time.Since(set); took < period || took > period+period/16 {
					t.Errorf("fired after %v", took)
				}
			})
		}

		time.Sleep(4 * period)

		mu.Lock()
		defer mu.Unlock()

		if fired.Load() != 1000 || len(at) > 17 {
			t.Errorf("%d fired, at %d moments", fired.Load(), len(at))
		}
	})
}

// A function that asks for it is called again and again, and one that was stopped never.
func TestTimer_ResetAndStop(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		var (
			clock       coarse.Clock
			again, late atomic.Int32
			timer       *coarse.Timer
		)

		timer = clock.AfterFunc(period, func() {
			again.Add(1)
			timer.Reset()
		})
		stopped := clock.AfterFunc(period, func() { t.Error("a stopped timer fired") })
		moved := clock.AfterFunc(period, func() { late.Add(1) })
		other := clock.AfterFunc(period/4, func() { late.Add(100) })

		time.Sleep(period / 2)

		if !stopped.Stop() || stopped.Stop() || other.Stop() {
			t.Error("Stop does not say what it did")
		}

		moved.Reset()
		time.Sleep(3 * period / 4)

		if again.Load() != 1 || late.Load() != 100 {
			t.Errorf("%d and %d calls", again.Load(), late.Load())
		}

		time.Sleep(4 * period)

		if n := again.Load(); n < 4 || n > 5 || late.Load() != 101 {
			t.Errorf("%d and %d calls", n, late.Load())
		}

		if !timer.Stop() {
			t.Error("a timer that was set again does not stop")
		}

		time.Sleep(4 * period) // the bubble ends with nothing left that could fire
	})
}

// Whoever sets, stops and resets from everywhere at once loses and repeats nothing.
func TestClock_Crowd(t *testing.T) {
	t.Parallel()

	var (
		clock         coarse.Clock
		fired, wanted atomic.Int32
		crowd         sync.WaitGroup
	)

	for range 8 {
		crowd.Go(func() {
			for i := range 500 {
				timer := clock.AfterFunc(time.Millisecond*time.Duration(1+i%3), func() { fired.Add(1) })
				if i%5 != 0 || !timer.Stop() {
					wanted.Add(1)
				}

				if i%50 == 0 {
					runtime.Gosched()
				}
			}
		})
	}

	crowd.Wait()

	for fired.Load() < wanted.Load() {
		runtime.Gosched()
	}

	if fired.Load() != wanted.Load() {
		t.Errorf("%d fired, want %d", fired.Load(), wanted.Load())
	}
}
