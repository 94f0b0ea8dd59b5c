package stage

import (
	"context"
	"runtime"
	"sync"
	"time"
)

const (
	drawing = 5 * time.Millisecond   // between two samples of what processes burn
	spin    = 2_000                  // rounds of nothing, some microseconds
	nap     = 500 * time.Microsecond // of a burner that is not behind
)

// Burnt is how much processor time was used until a moment, since a common beginning.
type Burnt struct {
	At, CPU time.Duration
}

// Curve is what was burnt when, in the order of time.
type Curve []Burnt

// due is how much was burnt at the end of the stretch that holds a moment.
func (c Curve) due(at time.Duration) time.Duration {
	for _, b := range c {
		if b.At > at {
			return b.CPU
		}
	}
	if len(c) == 0 {
		return 0
	}
	return c[len(c)-1].CPU
}

// Draw notes what processes burn, beyond a rate that is not to count (seconds of processor time a second), until
// the function that it returns is called, which returns the curve.
func Draw(ctx context.Context, apart float64, processes ...*Process) (end func() Curve) {
	ctx, cancel := context.WithCancel(ctx)
	begun, first := time.Now(), burntBy(processes)
	var curve Curve
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(drawing)
		defer tick.Stop()
		for ctx.Err() == nil {
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
			at := time.Since(begun)
			curve = append(curve, Burnt{At: at, CPU: max(0, burntBy(processes)-first-time.Duration(apart*float64(at)))})
		}
	}()
	return func() Curve {
		cancel()
		<-done
		return curve
	}
}

// burntBy is what processes used so far. One that has ended uses nothing more.
func burntBy(processes []*Process) (sum time.Duration) {
	for _, p := range processes {
		sum += processorTime(p.cmd.Process.Pid)
	}
	return sum
}

// Burn burns processor time along a curve, for as long as it lasts, with as many threads as there are processors.
func Burn(ctx context.Context, c Curve) {
	if len(c) == 0 {
		return
	}
	begun, threads := time.Now(), runtime.NumCPU()
	var working sync.WaitGroup
	for range threads {
		working.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			first := threadTime()
			for at := time.Duration(0); at < c[len(c)-1].At && ctx.Err() == nil; at = time.Since(begun) {
				if threadTime()-first >= c.due(at)/time.Duration(threads) {
					time.Sleep(nap)
					continue
				}
				for i := range spin {
					runtime.KeepAlive(i)
				}
			}
		})
	}
	working.Wait()
}
