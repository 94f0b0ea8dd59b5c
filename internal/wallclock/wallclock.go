// Package wallclock tells the time for less than time.Now takes.
package wallclock

import (
	"sync/atomic"
	"time"
)

// look is how often a clock looks at the wall's: so long it does not notice that somebody set it.
const look = time.Second

// Clock adds to a time what has passed since by the monotonic clock, which is quicker to read.
// The zero value is ready. It is safe for concurrent use.
type Clock struct{ at atomic.Pointer[time.Time] }

// Now is time.Now, with a monotonic reading.
func (c *Clock) Now() time.Time {
	if at := c.at.Load(); at != nil {
		if d := time.Since(*at); d < look {
			return at.Add(d)
		}
	}
	now := time.Now()
	c.at.Store(&now)
	return now
}
