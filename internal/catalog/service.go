package catalog

import (
	"math/rand/v2"
	"slices"
	"sync/atomic"

	"github.com/masegraye/connect-plugin-go/internal/semrange"
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

// entry is a registration with what the catalogue knows beside it. It is guarded
// by the catalogue's lock; what reg points to never changes.
type entry struct {
	reg     *Registration
	order   uint64
	service *service
	release *release
	runtime *runtime
	slots   [slotCount]int // in the rosters of the service and of the release
	place   int            // in the runtime's entries

	tier   tier
	mass   uint64
	record record
}

// class is the tier that health alone gives.
func (e *entry) class() tier {
	switch e.runtime.currentHealth() {
	case HealthUnknown, HealthHealthy:
		return tierHealthy
	case HealthDegraded:
		return tierDegraded
	case HealthUnhealthy:
		return tierOut
	default:
		return tierOut
	}
}

// runtime is what is known of an instance.
type runtime struct {
	id          string
	health      *HealthReport
	endpoint    string
	hasEndpoint bool
	entries     []*entry
	watchers    []*Watcher
	touched     bool // in the list of the transition that is under way
}

func (rt *runtime) empty() bool {
	return rt.health == nil && !rt.hasEndpoint && len(rt.entries) == 0 && len(rt.watchers) == 0
}

func (rt *runtime) currentHealth() Health {
	if rt.health == nil {
		return HealthUnknown
	}

	return rt.health.Health
}

func (rt *runtime) add(e *entry) {
	e.place = len(rt.entries)
	rt.entries = append(rt.entries, e)
}

func (rt *runtime) remove(e *entry) {
	last := len(rt.entries) - 1
	moved := rt.entries[last]
	rt.entries[e.place], moved.place = moved, e.place
	rt.entries[last] = nil
	rt.entries = rt.entries[:last]
}

// release is one version of a type and those who provide it.
type release struct {
	version string
	parsed  semrange.Version
	roster  roster
	place   int // in the service's releases
}

func newRelease(version string) *release {
	parsed, _ := semrange.ParseVersion(version) // what is no version is only allowed by any

	return &release{version: version, parsed: parsed, roster: roster{slot: slotRelease}}
}

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
	// them returns, in nanoseconds since 1970; zero if there is none.
	aside   [tierAside]asideHeap
	returns int64

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

// count takes note of one registration more of a self id.
func (s *service) count(selfID string) {
	switch {
	case s.owned == 0:
		s.owner, s.owned = selfID, 1
	case s.owner == selfID:
		s.owned++
	default:
		if s.others == nil {
			s.others = make(map[string]int)
		}

		s.others[selfID]++
	}
}

// discount takes note of one registration less, which is on the roster no more.
// When the owner's last one goes, the type falls to the self id of the earliest
// registration that is left.
func (s *service) discount(selfID string) {
	if s.owner != selfID {
		if s.others[selfID]--; s.others[selfID] == 0 {
			delete(s.others, selfID)
		}

		return
	}

	if s.owned--; s.owned > 0 {
		return
	}

	s.owner = ""

	if heir := s.roster.first(); heir != nil {
		s.owner = heir.reg.SelfID
		s.owned = s.others[s.owner]
		delete(s.others, s.owner)
	}
}
