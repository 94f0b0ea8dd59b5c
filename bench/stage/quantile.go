package stage

import (
	"slices"
	"time"
)

// Percentile99 is the quantile that says how slow the slow ones are.
const Percentile99 = 0.99

// Times are how long things took.
type Times []time.Duration

// At returns the time at a quantile, zero where there are none.
func (t Times) At(quantile float64) time.Duration {
	if len(t) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(t))
	return sorted[min(int(float64(len(sorted))*quantile), len(sorted)-1)]
}
