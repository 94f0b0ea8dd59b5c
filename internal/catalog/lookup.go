package catalog

import (
	"cmp"
	"slices"
)

// Get returns a registration by its id.
func (c *Catalog) Get(id string) (Registration, bool) {
	c.mu.RLock()
	e := c.entries[id]

	return c.unlockCopy(e)
}

// Provider returns what a runtime registered for a type, whatever its health.
func (c *Catalog) Provider(serviceType, runtimeID string) (Registration, bool) {
	c.mu.RLock()
	e := c.providers[providerKey{serviceType, runtimeID}]

	return c.unlockCopy(e)
}

// Registered does what Provider does without a copy, and returns nil where there is none. What
// it returns is shared and must not be changed.
func (c *Catalog) Registered(serviceType, runtimeID string) *Registration {
	c.mu.RLock()
	defer c.mu.RUnlock()

	if e := c.providers[providerKey{serviceType, runtimeID}]; e != nil {
		return e.reg
	}

	return nil
}

// unlockCopy ends a read and copies what it found outside the lock.
func (c *Catalog) unlockCopy(e *entry) (Registration, bool) {
	var reg *Registration
	if e != nil {
		reg = e.reg
	}

	c.mu.RUnlock()

	if reg == nil {
		return Registration{}, false
	}

	return reg.clone(), true
}

// ByRuntime returns what a runtime registered, in the order in which it did.
func (c *Catalog) ByRuntime(runtimeID string) []Registration {
	c.mu.RLock()

	rt := c.runtimes[runtimeID]
	if rt == nil {
		c.mu.RUnlock()

		return nil
	}

	entries := slices.Clone(rt.entries)
	slices.SortFunc(entries, func(a, b *entry) int { return cmp.Compare(a.order, b.order) })

	found := make([]*Registration, 0, len(entries))
	for _, e := range entries {
		found = append(found, e.reg)
	}

	c.mu.RUnlock()

	return cloneAll(found)
}

// ByType returns every registration of a type, of whatever health, in the order
// in which they were made.
func (c *Catalog) ByType(serviceType string) []Registration {
	c.mu.RLock()

	s := c.services[serviceType]
	if s == nil {
		c.mu.RUnlock()

		return nil
	}

	found := make([]*Registration, 0, s.roster.live)

	for _, e := range s.roster.entries {
		if e != nil {
			found = append(found, e.reg)
		}
	}

	c.mu.RUnlock()

	return cloneAll(found)
}

func cloneAll(found []*Registration) []Registration {
	if len(found) == 0 {
		return nil
	}

	all := make([]Registration, 0, len(found))
	for _, reg := range found {
		all = append(all, reg.clone())
	}

	return all
}

// Providers returns the number of registrations of a type, of whatever health.
func (c *Catalog) Providers(serviceType string) int {
	c.mu.RLock()
	defer c.mu.RUnlock()

	if s := c.services[serviceType]; s != nil {
		return s.roster.live
	}

	return 0
}

// Has reports whether [Catalog.Select] would find a provider. Unlike it, asking
// changes nothing: no turn is taken.
func (c *Catalog) Has(serviceType string, constraint Constraint) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()

	s := c.services[serviceType]

	return s != nil && s.has(constraint)
}
