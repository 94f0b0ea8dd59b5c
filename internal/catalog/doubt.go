package catalog

// maxSiblings bounds how many providers are looked at for siblings of one.
const maxSiblings = 64

// Siblings returns other runtimes of the same self id that provide a type, the earliest
// ones, without those that are doubted already.
func (c *Catalog) Siblings(serviceType, runtimeID, selfID string) []string {
	c.mu.RLock()
	defer c.mu.RUnlock()

	s := c.services[serviceType]
	if s == nil {
		return nil
	}

	var found []string

	for _, e := range s.roster.entries[:min(len(s.roster.entries), maxSiblings)] {
		if e != nil && e.reg.SelfID == selfID && e.reg.RuntimeID != runtimeID && !e.runtime.doubted {
			found = append(found, e.reg.RuntimeID)
		}
	}

	return found
}

// Doubt says that a runtime may be dead: what it provides comes after all that others
// provide, whatever its health, until [Catalog.Trust] or [Catalog.RemoveRuntime]. It does
// nothing for a runtime that provides nothing.
func (c *Catalog) Doubt(runtimeID string) { c.setDoubt(runtimeID, true) }

// Trust ends the doubt about a runtime.
func (c *Catalog) Trust(runtimeID string) { c.setDoubt(runtimeID, false) }

func (c *Catalog) setDoubt(runtimeID string, doubted bool) {
	_ = c.transition(func(t *transition) error {
		rt := c.runtimes[runtimeID]
		if rt == nil || len(rt.entries) == 0 || rt.doubted == doubted {
			return nil
		}

		rt.doubted = doubted
		for _, e := range rt.entries {
			t.reseat(e)
		}

		return nil
	})
}

// reseat gives an entry the place that what is known of its runtime calls for now.
func (t *transition) reseat(e *entry) {
	was := e.tier
	if e.record.aside {
		was = e.record.class
	}

	e.service.seat(e, t.now)
	t.touch(e.service, was != e.class())
}
