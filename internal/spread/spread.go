// Package spread chooses one of several providers for a call, by the work that they have
// and by how they did.
package spread

import "time"

// Load is what is known of a provider.
type Load struct {
	// InFlight are the calls that it has not answered yet.
	InFlight int
	// Latency is how long it took of late, zero where that is not known.
	Latency time.Duration
	// Failing is the rate of calls that failed of late, from 0 to 1.
	Failing float64
	// Down says that it could not be reached a moment ago.
	Down bool
}

// A provider counts as slow against the fastest, from a latency on that people notice, and
// as failing from a rate on that is no accident. The worst of all is handicap times worse
// than one with the same work.
const (
	noticed  = 20 * time.Millisecond
	slower   = 4
	failing  = 0.25
	handicap = 8
)

// Least returns the index of the provider with the least work, the first of those that are
// alike: who asks with the providers in turn spreads evenly what comes one by one. One that
// is slow or fails counts as if its work were a multiple, but not always: it gets a smaller
// share of the calls, and so can show that it has recovered. chance returns a number from 0
// up to 1. Where there is none to choose from, Least returns -1.
func Least(loads []Load, chance func() float64) int {
	fastest := fastestOf(loads)
	best, least := -1, 0

	for i, load := range loads {
		work := load.InFlight + 1
		if n := load.handicap(fastest); n > 1 && chance() >= 1/float64(n) {
			work *= n
		}

		switch {
		case best < 0,
			loads[best].Down && !load.Down,
			loads[best].Down == load.Down && work < least:
			best, least = i, work
		}
	}

	return best
}

// handicap is by how much a provider's work counts as more.
func (l *Load) handicap(fastest time.Duration) int {
	n := 1
	if l.Latency >= noticed {
		for limit := slower * fastest; n < handicap && l.Latency >= limit; limit *= 2 {
			n *= 2
		}
	}

	for rate := failing; n < handicap && l.Failing >= rate; rate += failing {
		n *= 2
	}

	return n
}

// fastestOf returns the least latency that is known.
func fastestOf(loads []Load) time.Duration {
	fastest := time.Duration(0)

	for _, load := range loads {
		if load.Latency > 0 && (fastest == 0 || load.Latency < fastest) {
			fastest = load.Latency
		}
	}

	return max(fastest, time.Millisecond)
}
