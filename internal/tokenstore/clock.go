package tokenstore

import (
	"math"
	"time"
)

// instant is a moment as nanoseconds since its clock started.
type instant int64

// never is later than every moment at which a program looks.
const never instant = math.MaxInt64

// after returns the moment that lies d later, or never where that cannot be expressed.
func (i instant) after(d time.Duration) instant {
	if d > 0 && i > never-instant(d) {
		return never
	}
	return i + instant(d)
}

// clock turns times into instants and back. It is fixed at creation.
type clock struct {
	start time.Time
	read  func() time.Time // nil: time.Now
}

func newClock(read func() time.Time) clock {
	if read == nil {
		return clock{start: time.Now()}
	}
	return clock{start: read(), read: read}
}

// now is never negative, whatever the source of time does.
func (c *clock) now() instant {
	if c.read == nil {
		return max(0, instant(time.Since(c.start))) // twice as fast as time.Now
	}
	return max(0, c.at(c.read()))
}

// at returns the instant of a time, by the monotonic clock if both that and the start know it.
func (c *clock) at(t time.Time) instant { return instant(t.Sub(c.start)) }

// set is by how much somebody must have set the wall's clock for it to count: less than that it drifts.
const set = time.Second

// time returns the time of an instant, by the wall's clock as it is now where that was set since the start.
func (c *clock) time(i instant) time.Time {
	now := time.Now()
	if c.read != nil {
		now = c.read()
	}
	then := c.start.Add(time.Duration(i))
	left := time.Duration(i - c.at(now))
	if moved := now.Add(left).Round(0).Sub(then.Round(0)); moved.Abs() < set {
		return then
	}
	return now.Add(left)
}
