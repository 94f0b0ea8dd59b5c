package catalog

import (
	"container/heap"
	"time"
)

// A provider that fails maxFailures times in a row is set aside, as Envoy's
// outlier detection does: for baseAside the first time and twice as long each
// further time, up to maxAside; one that then works for maxAside starts afresh.
// Never more than half of the providers of a class (healthy or degraded) are set
// aside, so doing so never changes the state of a type.
const (
	maxFailures = 5
	baseAside   = 10 * time.Second
	maxAside    = 5 * time.Minute
)

// How results turn into weight. A mean follows the newest result by its share; a
// provider counts with its success rate, at least minSuccess so that it can
// prove itself, and by how much faster than the mean it is, up to maxSpeed times
// either way.
const (
	maxWeight    = 1000
	massUnit     = 100
	successShare = 0.125
	latencyShare = 0.125
	minSuccess   = 0.05
	maxSpeed     = 4
)

// record is how routing to a provider went.
type record struct {
	failures uint32    // in a row
	ejected  uint32    // times in a row that it was set aside
	until    time.Time // when it returns or returned, by the monotonic clock; somebody may set the wall's
	aside    bool      // whether it is in a heap now
	class    tier      // of which heap
	index    int       // where in it
	failing  float64   // mean rate of failures
	latency  float64   // mean of the successes in seconds; zero without one
}

// note takes in one result.
func (r *record) note(ok bool, latency time.Duration) {
	if !ok {
		r.failures++
		r.failing += (1 - r.failing) * successShare

		return
	}

	r.failures = 0
	r.failing -= r.failing * successShare
	r.latency = follow(r.latency, latency)
}

// follow moves a mean towards a latency.
func follow(mean float64, latency time.Duration) float64 {
	value := max(latency, time.Microsecond).Seconds()
	if mean == 0 {
		return value
	}

	return mean + (value-mean)*latencyShare
}

// massOf is the entry's share under the strategy of its type.
func (s *service) massOf(e *entry) uint64 {
	if s.strategy != StrategyWeighted {
		return 1
	}

	weight := float64(min(max(e.reg.Weight, 1), maxWeight)) * massUnit
	weight *= max(1-e.record.failing, minSuccess)

	if e.record.latency > 0 && s.latency > 0 {
		weight *= min(max(s.latency/e.record.latency, 1.0/maxSpeed), maxSpeed)
	}

	return max(uint64(weight), 1)
}

// mayEject reports whether one more of a class may be set aside.
func (s *service) mayEject(class tier) bool {
	aside := s.aside[class].Len()

	return 2*(aside+1) <= aside+s.roster.counts[class]
}

// eject sets an entry aside that is in its class's tier.
func (s *service) eject(e *entry, now time.Time) {
	r := &e.record
	if now.Sub(r.until) >= maxAside {
		r.ejected = 0
	}

	r.ejected++
	r.failures = 0
	r.until = now.Add(asideFor(r.ejected))
	s.putAside(e, e.tier)
	s.set(e, tierAside)
}

// asideFor is how long the nth time in a row lasts.
func asideFor(n uint32) time.Duration {
	d := baseAside
	for ; n > 1 && d < maxAside; n-- {
		d *= 2
	}

	return min(d, maxAside)
}

// seat gives an entry, which may stand anywhere or nowhere, the tier that its
// health and its record call for. Changing its health does not bring a provider
// back before its time.
func (s *service) seat(e *entry, now time.Time) {
	s.takeBack(e)

	class := e.class()
	if class != tierOut && e.record.until.After(now) {
		s.putAside(e, class)
		s.set(e, tierAside)

		return
	}

	s.set(e, class)
}

func (s *service) putAside(e *entry, class tier) {
	e.record.aside, e.record.class = true, class
	heap.Push(&s.aside[class], e)
}

// takeBack ends that an entry is set aside, whatever it becomes next.
func (s *service) takeBack(e *entry) {
	if e.record.aside {
		heap.Remove(&s.aside[e.record.class], e.record.index)
		e.record.aside = false
	}
}

// settle takes back whose time is over, and those that would make more than half
// of their class. It returns whom it took back.
func (s *service) settle(now time.Time) []*entry {
	var back []*entry

	s.returns = time.Time{}

	for class := range tierAside {
		aside := &s.aside[class]
		for aside.Len() > 0 && (!aside.first().record.until.After(now) || aside.Len() > s.roster.counts[class]) {
			e := aside.first()
			if e.record.until.After(now) {
				e.record.until = now
			}

			e.record.failures = 0
			s.takeBack(e)
			s.set(e, class)
			back = append(back, e)
		}

		if aside.Len() > 0 && (s.returns.IsZero() || aside.first().record.until.Before(s.returns)) {
			s.returns = aside.first().record.until
		}
	}

	return back
}
