package catalog

import (
	"slices"
	"time"
)

// MaxCandidates is how many providers [Catalog.Candidates] finds at most, and
// maxLooked how many it looks at for that.
const (
	MaxCandidates = 8
	maxLooked     = 64
)

// Candidate is a provider that a call could go to, with what routing measured.
type Candidate struct {
	// Registration is that of the provider, which is shared and must not be changed.
	*Registration

	// Latency is the mean of its successes, zero without one.
	Latency time.Duration
	// Failing is the mean rate of its failures, from 0 to 1.
	Failing float64
}

// Candidates appends to found the providers of a type that a call could go to, for who
// chooses among them by what it knows: of those that are healthy, else of those that are
// degraded, else of those that were set aside. They have an endpoint, satisfy the
// constraint and are not among the runtimes in without. Each time they begin with another
// one. There are at most [MaxCandidates], however many would do, and the cost is bounded
// like that.
func (c *Catalog) Candidates(serviceType string, constraint Constraint, without []string, found []Candidate) []Candidate {
	c.mu.RLock()

	s := c.services[serviceType]
	if s != nil && !s.returns.IsZero() {
		c.mu.RUnlock()
		c.settle(serviceType)
		c.mu.RLock()

		s = c.services[serviceType]
	}
	defer c.mu.RUnlock()

	if s == nil {
		return found
	}

	turn := s.cursor.Add(1) - 1

	for t := range tiers {
		if some := s.candidates(t, constraint, turn, without, found); len(some) > len(found) {
			return some
		}
	}

	return found
}

// candidates is Candidates for one tier: one provider after the other from the turn's on, whatever mass each has, so that
// nobody who would do is passed over.
func (s *service) candidates(t tier, c Constraint, turn uint64, without []string, found []Candidate) []Candidate {
	total, count := s.massFor(t, c)
	if total == 0 {
		return found
	}

	begun, mean := len(found), max(total/count, 1)
	point := turn * mean % total

	for range min(count, maxLooked) {
		e, rest := s.entryAt(t, c, point)
		point = (point + rest) % total

		if e.runtime.endpoint == "" || slices.Contains(without, e.reg.RuntimeID) {
			continue
		}

		found = append(found, Candidate{
			Registration: e.reg, Failing: e.record.failing,
			Latency: time.Duration(e.record.latency * float64(time.Second)),
		})
		if len(found)-begun == MaxCandidates {
			break
		}
	}

	return found
}

// massFor returns the mass and the number of the providers in a tier that c allows.
func (s *service) massFor(t tier, c Constraint) (total, count uint64) {
	if c.IsAny() {
		return s.roster.total(t), uint64(s.roster.counts[t]) //nolint:gosec // counts are not negative
	}

	for _, r := range s.releases {
		if r.roster.counts[t] > 0 && c.AllowsVersion(r.parsed) {
			total += r.roster.total(t)
			count += uint64(r.roster.counts[t])
		}
	}

	return total, count
}

// entryAt returns the provider at point k of those that massFor counts, and how much of its mass there is from there on.
func (s *service) entryAt(t tier, c Constraint, k uint64) (e *entry, rest uint64) {
	if c.IsAny() {
		return s.roster.from(t, k)
	}

	for _, r := range s.releases {
		mass := r.roster.total(t)
		if mass == 0 || !c.AllowsVersion(r.parsed) {
			continue
		}

		if k < mass {
			return r.roster.from(t, k)
		}

		k -= mass
	}

	return nil, 1 // not reached: k is below their mass
}
