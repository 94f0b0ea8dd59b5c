package catalog

import "github.com/masegraye/connect-plugin-go/internal/semrange"

// entry is a registration with what the catalogue knows beside it. It is guarded
// by the catalogue's lock; what reg points to never changes.
type entry struct {
	reg     *Registration
	health  Health // of the runtime
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

// class is the tier that health gives, and doubt whether the runtime lives.
func (e *entry) class() tier {
	if e.runtime.doubted && e.health != HealthUnhealthy {
		return tierDoubted
	}

	switch e.health {
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
	doubted     bool // it may be dead
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
