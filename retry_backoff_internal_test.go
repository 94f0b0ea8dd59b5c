package connectplugin

import (
	"testing"
	"time"
)

// Delays double from 100 ms to 5 s, and of each a random half is left, so that
// those who lost a host together do not come back together.
func TestBackoffDelay(t *testing.T) {
	t.Parallel()
	for failures, most := range map[int]time.Duration{
		1: 100 * time.Millisecond, 2: 200 * time.Millisecond, 3: 400 * time.Millisecond, 6: 3200 * time.Millisecond,
		7: 5 * time.Second, 8: 5 * time.Second, 1000: 5 * time.Second, 1 << 30: 5 * time.Second,
	} {
		seen := map[time.Duration]bool{}
		for range 200 {
			d := backoffDelay(failures)
			if d < most/2 || d >= most {
				t.Fatalf("after %d failures: %v, want from %v to %v", failures, d, most/2, most)
			}
			seen[d] = true
		}
		if len(seen) < 100 {
			t.Errorf("after %d failures: %d different delays of 200", failures, len(seen))
		}
	}
}
