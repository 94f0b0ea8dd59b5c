package catalog

import "hash/maphash"

// maxDeparted is how many providers are remembered at least that left, once so many did.
const maxDeparted = 4096

// departed remembers the providers that left last, so that a call to one whose caller
// does not know yet is told from a call to one that never was. It keeps a hash of each, in
// two generations: the names of what is gone take no memory. It is guarded by the
// catalogue's lock.
type departed struct {
	seed         maphash.Seed
	last, before map[uint64]struct{}
}

func newDeparted() departed {
	return departed{seed: maphash.MakeSeed(), last: make(map[uint64]struct{})}
}

func (d *departed) add(key providerKey) {
	if len(d.last) >= maxDeparted {
		d.before, d.last = d.last, make(map[uint64]struct{})
	}

	d.last[maphash.Comparable(d.seed, key)] = struct{}{}
}

func (d *departed) has(key providerKey) bool {
	hash := maphash.Comparable(d.seed, key)
	_, last := d.last[hash]
	_, before := d.before[hash]

	return last || before
}

// end notes that a registration is gone. It is called with the catalogue's lock.
func (c *Catalog) end(reg *Registration) { c.ended.add(providerKey{reg.ID, reg.RuntimeID}) }

// Ended reports whether a runtime had a registration that is gone, whoever took it out, as far as is remembered.
func (c *Catalog) Ended(id, runtimeID string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()

	return c.ended.has(providerKey{id, runtimeID})
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

	if c.departed.has(providerKey{serviceType, runtimeID}) {
		return AbsentForNow
	}

	return AbsentProvider
}
