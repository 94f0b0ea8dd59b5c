package certs

import (
	"testing"
	"time"
)

// Whoever has nothing to do for long looks at the clock all the same: timers stand still while a machine
// sleeps.
func TestKeeper_LooksAtTheClock(t *testing.T) {
	t.Parallel()

	now := time.Now()
	k := &Keeper{}

	if wait := k.wait(now); wait != time.Minute {
		t.Errorf("without a job it looks in %v", wait)
	}

	k.Add("far", now.Add(16*time.Hour), func(time.Time) time.Time { return time.Time{} })

	if wait := k.wait(now); wait != time.Minute {
		t.Errorf("long before a job it looks in %v", wait)
	}

	if wait := k.wait(now.Add(25 * time.Hour)); wait != 0 {
		t.Errorf("it is late, and looks in %v", wait)
	}
}
