package catalog

import (
	"maps"
	"slices"
	"time"
)

// Registration is one service type that one runtime offers.
type Registration struct {
	// ID names the registration; the caller makes it and it is unique in the catalogue.
	ID string
	// RuntimeID is the instance that provides the service, SelfID what kind of plugin it is.
	// An empty RuntimeID is the host itself.
	RuntimeID, SelfID string
	// Type is the service type, Version its semantic version, Path where the provider serves it.
	Type, Version, Path string
	// Metadata is passed through and steers nothing.
	Metadata map[string]string
	// Weight is the declared share under [StrategyWeighted], 1 to 1000. Values outside are
	// brought inside, so zero is 1.
	Weight int
	// Standby says that the registration waits while another runtime provides the type.
	Standby bool
	// RegisteredAt is when it was registered; zero means now.
	RegisteredAt time.Time
	// ByHost says that the host itself registered it: whose the type is does not matter.
	ByHost bool
	// Fleet is what its runtime holds it with; nil is for one that shares with nobody.
	Fleet *Fleet
}

// clone returns a copy that shares nothing.
func (r Registration) clone() Registration {
	r.Metadata = maps.Clone(r.Metadata)

	return r
}

// Health is what is known of a runtime.
type Health uint8

// The states of a runtime. One that never reported is unknown and is used like a
// healthy one. A degraded one is used when no better one is there, an unhealthy
// one never.
const (
	HealthUnknown Health = iota
	HealthHealthy
	HealthDegraded
	HealthUnhealthy
)

// String returns the name in lower case.
func (h Health) String() string {
	switch h {
	case HealthUnknown:
		return "unknown"
	case HealthHealthy:
		return "healthy"
	case HealthDegraded:
		return "degraded"
	case HealthUnhealthy:
		return "unhealthy"
	default:
		return "invalid"
	}
}

// HealthReport is what a runtime, or whoever probes it, says of its health.
type HealthReport struct {
	Health Health
	// Reason and Unavailable, the types that it misses, are for people.
	Reason      string
	Unavailable []string
	// At is when it was reported; zero means now.
	At time.Time
}

func (r HealthReport) clone() HealthReport {
	r.Unavailable = slices.Clone(r.Unavailable)

	return r
}

// State is what a consumer of a service type can expect.
type State uint8

// The states of a type: nobody to call, somebody healthy (or not known to be
// otherwise), or only degraded providers.
const (
	StateUnavailable State = iota
	StateAvailable
	StateDegraded
)

// String returns the name in lower case.
func (s State) String() string {
	switch s {
	case StateUnavailable:
		return "unavailable"
	case StateAvailable:
		return "available"
	case StateDegraded:
		return "degraded"
	default:
		return "invalid"
	}
}
