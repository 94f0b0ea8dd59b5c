package catalog

import (
	"cmp"
	"errors"
	"maps"
	"slices"
)

// Withhold takes out every registration that match says, as [Catalog.RemoveWhere] does, and
// keeps it aside for [Catalog.Restore]: until its runtime is removed, registers the type
// again or takes it back. Meanwhile it claims nothing, neither its type nor its path nor room
// among those that are offered. It returns what was taken out.
func (c *Catalog) Withhold(match func(Registration) bool) []Registration {
	return c.takeOut(match, true, false)
}

// SetAside keeps a registration that was not offered yet as Withhold keeps one that was, unless its
// runtime offers the type by now.
func (c *Catalog) SetAside(reg Registration) {
	reg = reg.clone()

	_ = c.transition(func(t *transition) error {
		if reg.RegisteredAt.IsZero() {
			reg.RegisteredAt = t.now
		}

		if c.providers[providerKey{reg.Type, reg.RuntimeID}] == nil && c.standbys.find(reg.Type, reg.RuntimeID) == nil {
			t.shelve(&reg)
		}

		return nil
	})
}

// Restore offers again what was withheld and is allowed now, in the order in which it was
// registered, and returns that. What finds no room, or its type with another owner, stays
// aside. allowed runs outside the locks; whoever restores looks afterwards whether it still is.
func (c *Catalog) Restore(allowed func(Registration) bool) []Registration {
	var restored []Registration

	for _, reg := range c.shelved(allowed) {
		multiple := c.cfg.Load().AllowMultiple(reg.Type)

		_ = c.transition(func(t *transition) error {
			if c.withheld.byID[reg.ID] == reg && t.readmit(reg, multiple) {
				restored = append(restored, reg.clone())
			}

			return nil
		})
	}

	return restored
}

// Withheld returns the types that are withheld of a runtime, sorted.
func (c *Catalog) Withheld(runtimeID string) []string {
	c.mu.RLock()
	defer c.mu.RUnlock()

	types := make([]string, 0, len(c.withheld.byRuntime[runtimeID]))
	for _, reg := range c.withheld.byRuntime[runtimeID] {
		types = append(types, reg.Type)
	}

	slices.Sort(types)

	return types
}

// Shelved returns the registrations that are withheld and wanted, the earliest first.
func (c *Catalog) Shelved(wanted func(Registration) bool) []Registration {
	all := c.shelved(wanted)
	regs := make([]Registration, 0, len(all))

	for _, reg := range all {
		regs = append(regs, reg.clone())
	}

	return regs
}

// Offers reports whether a runtime has a registration, be it that it provides something, stands
// by, or is withheld.
func (c *Catalog) Offers(runtimeID string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()

	rt := c.runtimes[runtimeID]

	return rt != nil && len(rt.entries) > 0 || len(c.standbys.byRuntime[runtimeID]) > 0 || len(c.withheld.byRuntime[runtimeID]) > 0
}

// shelved are the registrations that are withheld and wanted, the earliest first.
func (c *Catalog) shelved(wanted func(Registration) bool) []*Registration {
	c.mu.RLock()
	all := slices.Collect(maps.Values(c.withheld.byID))
	c.mu.RUnlock()

	all = slices.DeleteFunc(all, func(reg *Registration) bool { return !wanted(*reg) })
	byAge(all)

	return all
}

// byAge sorts registrations, the earliest first.
func byAge(all []*Registration) {
	slices.SortFunc(all, func(a, b *Registration) int {
		return cmp.Or(a.RegisteredAt.Compare(b.RegisteredAt), cmp.Compare(a.ID, b.ID))
	})
}

// shelve keeps a registration that was taken out, as many of a runtime as it may have.
func (t *transition) shelve(reg *Registration) {
	c := t.c
	if c.withheld.find(reg.Type, reg.RuntimeID) == nil &&
		exceeds(len(c.withheld.byRuntime[reg.RuntimeID])+1, c.cfg.Load().MaxPerRuntime) {
		return
	}

	c.withheld.add(reg)
}

// unshelve forgets what is withheld of a runtime for a type, because there is something newer.
func (t *transition) unshelve(serviceType, runtimeID string) {
	if reg := t.c.withheld.find(serviceType, runtimeID); reg != nil {
		t.c.withheld.remove(reg)
	}
}

// readmit offers a registration again that is withheld, and reports whether that could be.
func (t *transition) readmit(reg *Registration, multiple bool) bool {
	c := t.c

	if waits, err := t.standBy(reg, nil); waits || err != nil {
		if waits {
			c.withheld.remove(reg)
		}

		return waits
	}

	s := c.services[reg.Type]
	if s != nil && s.owned > 0 && s.owner != reg.SelfID && !multiple && !reg.ByHost {
		return false
	}

	if err := t.fits(reg, nil, false); err != nil {
		c.cramped = c.cramped || errors.Is(err, ErrLimit)

		return false
	}

	c.withheld.remove(reg)
	t.register(reg, nil)

	return true
}
