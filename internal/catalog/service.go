package catalog

import (
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
)

// Strategy says which of several providers is selected.
type Strategy uint8

// The strategies. First takes the one that was registered first, round robin
// each in turn, random any with the same chance, and weighted any with a chance
// by its declared weight and by the success and the latency that were measured.
const (
	StrategyFirst Strategy = iota
	StrategyRoundRobin
	StrategyRandom
	StrategyWeighted
)

// service is a type: who provides it, who owns it and how to choose. It is
// guarded by the catalogue's lock; the feed has its own.
type service struct {
	name string
	feed *feed

	roster   roster
	releases []*release
	owner    string
	owned    int            // registrations of the owner
	others   map[string]int // registrations of every other self id
	strategy Strategy
	cursor   atomic.Uint64 // of round robin
	latency  float64       // mean of all providers, in seconds

	// Providers set aside, by the class that they came from, and when the first of
	// them returns, by the monotonic clock; zero if there is none.
	aside   [tierAside]asideHeap
	returns time.Time

	// Of the transition that is under way: whether it is in its list and whether the
	// routable providers changed.
	touched, changed bool
}

func newService(name string, f *feed, strategy Strategy) *service {
	return &service{name: name, feed: f, strategy: strategy, roster: roster{slot: slotService}}
}

// set moves an entry, which may be in no tier yet, to a tier and a mass.
func (s *service) set(e *entry, to tier) {
	mass := s.massOf(e)
	if e.tier == to && e.mass == mass {
		return
	}

	s.roster.exit(e)
	e.release.roster.exit(e)

	e.tier, e.mass = to, mass

	s.roster.enter(e)
	e.release.roster.enter(e)
}

// chosen returns the provider that a consumer should use and what that makes of
// the type.
func (s *service) chosen() (State, *Registration) {
	switch {
	case s.roster.counts[tierHealthy] > 0:
		return StateAvailable, s.roster.at(tierHealthy, 0).reg
	case s.roster.counts[tierDegraded] > 0:
		return StateDegraded, s.roster.at(tierDegraded, 0).reg
	case s.roster.counts[tierDoubted] > 0:
		e := s.roster.at(tierDoubted, 0)
		if e.health == HealthDegraded {
			return StateDegraded, e.reg
		}

		return StateAvailable, e.reg
	default:
		return StateUnavailable, nil
	}
}

// pick selects a provider; nil if none will do. The catalogue's lock is held at
// least for reading.
func (s *service) pick(c Constraint) *entry {
	for t := range tiers {
		if s.roster.counts[t] == 0 {
			continue
		}

		if c.IsAny() {
			return s.roster.at(t, s.draw(s.roster.total(t)))
		}

		if e := s.pickRelease(c, t); e != nil {
			return e
		}
	}

	return nil
}

// pickRelease selects among the versions that c allows. Its cost grows with the
// number of versions, not of providers.
func (s *service) pickRelease(c Constraint, t tier) *entry {
	var (
		first *entry
		total uint64
	)

	for _, r := range s.releases {
		mass := r.roster.total(t)
		if mass == 0 || !c.AllowsVersion(r.parsed) {
			continue
		}

		total += mass

		if s.strategy == StrategyFirst {
			if e := r.roster.at(t, 0); first == nil || e.order < first.order {
				first = e
			}
		}
	}

	if total == 0 || s.strategy == StrategyFirst {
		return first
	}

	k := s.draw(total)

	for _, r := range s.releases {
		mass := r.roster.total(t)
		if mass == 0 || !c.AllowsVersion(r.parsed) {
			continue
		}

		if k < mass {
			return r.roster.at(t, k)
		}

		k -= mass
	}

	return nil
}

// draw chooses a point below total as the strategy says.
func (s *service) draw(total uint64) uint64 {
	switch s.strategy {
	case StrategyFirst:
		return 0
	case StrategyRoundRobin:
		return (s.cursor.Add(1) - 1) % total
	case StrategyRandom, StrategyWeighted:
		return rand.Uint64N(total) //nolint:gosec // spreads load, protects nothing
	default:
		return 0
	}
}

// has reports whether somebody provides what c allows, in whatever tier.
func (s *service) has(c Constraint) bool {
	if c.IsAny() {
		return s.roster.counts != [tiers]int{}
	}

	return slices.ContainsFunc(s.releases, func(r *release) bool {
		return r.roster.counts != [tiers]int{} && c.AllowsVersion(r.parsed)
	})
}
