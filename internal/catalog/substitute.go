package catalog

import "math/rand/v2"

// maxSubstitutes bounds how many providers are looked at to find a substitute.
const maxSubstitutes = 64

// Substitute returns a provider that can take over a call which was meant for
// another: of the same type, version and path, with an endpoint, healthy or else
// degraded. Which one of several is left to chance. The cost is bounded, however
// many there are.
func (c *Catalog) Substitute(serviceType, runtimeID string) (Registration, bool) {
	c.mu.RLock()

	var found *entry
	if e := c.providers[providerKey{serviceType, runtimeID}]; e != nil {
		found = e.substitute()
	}

	return c.unlockCopy(found)
}

// substitute returns an entry that can stand in for e; nil if there is none.
func (e *entry) substitute() *entry {
	var best *entry

	all := e.release.roster.entries
	start := rand.IntN(len(all)) //nolint:gosec // a choice is no secret

	for i := range min(len(all), maxSubstitutes) {
		other := all[(start+i)%len(all)]
		if other == nil || other == e || other.tier >= tierAside ||
			other.reg.Path != e.reg.Path || other.runtime.endpoint == "" {
			continue
		}

		if best == nil || other.tier < best.tier {
			best = other
		}

		if best.tier == tierHealthy {
			break
		}
	}

	return best
}
