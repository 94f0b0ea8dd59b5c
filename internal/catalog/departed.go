package catalog

// maxDeparted bounds how many providers are remembered that left.
const maxDeparted = 4096

// departed remembers the providers that left last, so that a call to one whose caller
// does not know yet is told from a call to one that never was. It is guarded by the
// catalogue's lock.
type departed struct {
	known map[providerKey]struct{}
	ring  []providerKey
	next  int
}

func newDeparted() departed { return departed{known: make(map[providerKey]struct{})} }

func (d *departed) add(key providerKey) {
	if _, known := d.known[key]; known {
		return
	}

	if len(d.ring) < maxDeparted {
		d.ring = append(d.ring, key)
	} else {
		delete(d.known, d.ring[d.next])
		d.ring[d.next] = key
		d.next = (d.next + 1) % maxDeparted
	}

	d.known[key] = struct{}{}
}

// Absence says why a type cannot be had from a provider, or at all.
type Absence uint8

// The reasons.
const (
	// AbsentForNow: nobody provides the type now, or nobody who is well, or the provider
	// has left.
	AbsentForNow Absence = iota
	// AbsentVersion: others provide the type, in versions that the constraint excludes.
	AbsentVersion
	// AbsentProvider: others provide the type, and the one that was named never did.
	AbsentProvider
)

// WhyNone says why [Catalog.Select] finds nobody.
func (c *Catalog) WhyNone(serviceType string, constraint Constraint) Absence {
	c.mu.RLock()
	defer c.mu.RUnlock()

	s := c.services[serviceType]
	if s == nil || s.roster.live == 0 {
		return AbsentForNow
	}

	for _, r := range s.releases {
		if constraint.IsAny() || r.roster.live > 0 && constraint.AllowsVersion(r.parsed) {
			return AbsentForNow
		}
	}

	return AbsentVersion
}

// WhyNot says why [Catalog.Provider] finds nothing.
func (c *Catalog) WhyNot(serviceType, runtimeID string) Absence {
	c.mu.RLock()
	defer c.mu.RUnlock()

	s := c.services[serviceType]
	if s == nil || s.roster.live == 0 {
		return AbsentForNow
	}

	if _, left := c.departed.known[providerKey{serviceType, runtimeID}]; left {
		return AbsentForNow
	}

	return AbsentProvider
}
