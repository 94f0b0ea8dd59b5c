package catalog

import "math/rand/v2"

// maxSubstitutes bounds how many providers are looked at to find a substitute, of those that are as well as each other.
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
	roster := &e.release.roster

	for t := range tierAside {
		total := roster.total(t)
		if total == 0 {
			continue
		}

		point := rand.Uint64N(total) //nolint:gosec // a choice is no secret

		for range min(roster.counts[t], maxSubstitutes) {
			other, rest := roster.from(t, point)
			if other != e && other.reg.Path == e.reg.Path && other.runtime.endpoint != "" {
				return other
			}

			point = (point + rest) % total
		}
	}

	return nil
}
