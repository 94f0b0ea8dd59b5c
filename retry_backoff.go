package connectplugin

import (
	"context"
	"math/rand/v2"
	"time"
)

// Delays between attempts to reach a host.
const (
	backoffBase = 100 * time.Millisecond
	backoffMax  = 5 * time.Second
	// doublings is after how many failures the delay is at its most.
	doublings = 6
)

// backoffDelay returns how long to wait after so many failures in a row (1 or
// more): doubling from 100 ms to 5 s, of which a random half ("equal jitter").
func backoffDelay(failures int) time.Duration {
	d := backoffMax
	if shift := failures - 1; shift < doublings {
		d = min(backoffBase<<max(shift, 0), backoffMax)
	}
	return d/2 + rand.N(d/2) //nolint:gosec // jitter is no secret
}

// waitFor waits for d and reports whether ctx was still alive then.
func waitFor(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
