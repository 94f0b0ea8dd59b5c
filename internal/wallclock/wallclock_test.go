package wallclock

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestClock(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		var c Clock
		for _, step := range []time.Duration{0, time.Microsecond, 400 * time.Millisecond, 700 * time.Millisecond, time.Second, time.Hour} {
			time.Sleep(step)

			if got, want := c.Now(), time.Now(); !got.Equal(want) || got.Sub(want) != 0 || time.Since(got) != 0 {
				t.Errorf("after %v: %v, want %v", step, got, want)
			}
		}
	})
}

// A clock that only ever added would miss that somebody set the wall's, and one that always looked
// would be no quicker.
func TestClock_LooksAgain(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		var c Clock

		c.Now()
		seen := c.at.Load()

		time.Sleep(look - 1)
		c.Now()

		if c.at.Load() != seen {
			t.Error("it looks too often")
		}

		time.Sleep(time.Nanosecond)
		c.Now()

		if c.at.Load() == seen {
			t.Error("it never looks again")
		}
	})
}
