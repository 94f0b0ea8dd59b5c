package stage

import (
	"context"
	"runtime"
	"sync"
	"time"
)

// slice is the time of which a burner burns its share.
const slice = 10 * time.Millisecond

// Burn uses so many cores for so long, and does nothing with them.
func Burn(ctx context.Context, cores float64, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	n := runtime.NumCPU()
	busy := time.Duration(min(cores/float64(n), 1) * float64(slice))
	var burning sync.WaitGroup
	for range n {
		burning.Go(func() {
			tick := time.NewTicker(slice)
			defer tick.Stop()
			for ctx.Err() == nil {
				for end, now := time.Now().Add(busy), time.Now(); now.Before(end); {
					now = time.Now()
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
		})
	}
	burning.Wait()
}
