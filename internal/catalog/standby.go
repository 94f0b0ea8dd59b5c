package catalog

import "slices"

// standbys are the registrations that wait until nobody provides their type. Nobody
// selects, watches or looks them up. They are guarded by the catalogue's lock.
type standbys struct {
	byID      map[string]*Registration
	byType    map[string][]*Registration // in the order in which they came
	byRuntime map[string][]*Registration
	trails    trails // of the catalogue: a path is its type's also while that waits
	counted   bool   // by their fleets
}

func newStandbys(ts trails) standbys {
	return standbys{
		trails: ts,
		byID:   make(map[string]*Registration), byType: make(map[string][]*Registration), byRuntime: make(map[string][]*Registration),
	}
}

// add enters one, in the place of the one that the runtime had for the type.
func (s *standbys) add(reg *Registration) {
	s.byID[reg.ID] = reg
	s.trails.add(reg)
	s.count(reg, 1)

	if old := s.find(reg.Type, reg.RuntimeID); old != nil {
		s.trails.remove(old)
		s.count(old, -1)
		delete(s.byID, old.ID)
		s.byID[reg.ID] = reg
		s.byType[reg.Type][slices.Index(s.byType[reg.Type], old)] = reg
		s.byRuntime[reg.RuntimeID][slices.Index(s.byRuntime[reg.RuntimeID], old)] = reg

		return
	}

	s.byType[reg.Type] = append(s.byType[reg.Type], reg)
	s.byRuntime[reg.RuntimeID] = append(s.byRuntime[reg.RuntimeID], reg)
}

// remove takes one out.
func (s *standbys) remove(reg *Registration) {
	delete(s.byID, reg.ID)
	s.trails.remove(reg)
	s.count(reg, -1)
	drop(s.byType, reg.Type, reg)
	drop(s.byRuntime, reg.RuntimeID, reg)
}

// count has the fleet of a registration know of n more that wait.
func (s *standbys) count(reg *Registration, n int) {
	if s.counted {
		reg.Fleet.waits(n)
	}
}

func drop(from map[string][]*Registration, key string, reg *Registration) {
	rest := slices.DeleteFunc(slices.Clone(from[key]), func(other *Registration) bool { return other == reg })
	if len(rest) == 0 {
		delete(from, key)
	} else {
		from[key] = rest
	}
}

// find returns that of a runtime for a type, nil for none.
func (s *standbys) find(serviceType, runtimeID string) *Registration {
	for _, reg := range s.byRuntime[runtimeID] {
		if reg.Type == serviceType {
			return reg
		}
	}

	return nil
}

// overlaps reports whether a runtime stands by with another type at the path of a
// registration.
func (s *standbys) overlaps(reg *Registration) bool {
	return slices.ContainsFunc(s.byRuntime[reg.RuntimeID], func(other *Registration) bool {
		return other.Type != reg.Type && PathsOverlap(other.Path, reg.Path)
	})
}

// StandsBy reports whether a registration waits for the others of its type to leave.
func (c *Catalog) StandsBy(id string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()

	return c.standbys.byID[id] != nil
}

// Awaited returns the types that a runtime provides and for which others stand by.
func (c *Catalog) Awaited(runtimeID string) []string {
	c.mu.RLock()
	defer c.mu.RUnlock()

	rt := c.runtimes[runtimeID]
	if rt == nil || len(c.standbys.byID) == 0 {
		return nil
	}

	var types []string

	for _, e := range rt.entries {
		if len(c.standbys.byType[e.reg.Type]) > 0 {
			types = append(types, e.reg.Type)
		}
	}

	return types
}

// Waiting returns the types for which a runtime stands by, or would if they were not withheld,
// sorted, and whether it registered anything that says that it may stand by.
func (c *Catalog) Waiting(runtimeID string) (types []string, may bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()

	for _, reg := range c.standbys.byRuntime[runtimeID] {
		types = append(types, reg.Type)
	}

	for _, reg := range c.withheld.byRuntime[runtimeID] {
		if reg.Standby {
			types = append(types, reg.Type)
		}
	}

	slices.Sort(types)

	rt := c.runtimes[runtimeID]
	may = len(types) > 0 || rt != nil && slices.ContainsFunc(rt.entries, func(e *entry) bool { return e.reg.Standby })

	return types, may
}

// Claims reports whether a runtime provides a type or stands by for it.
func (c *Catalog) Claims(serviceType, runtimeID string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()

	return c.providers[providerKey{serviceType, runtimeID}] != nil || c.standbys.find(serviceType, runtimeID) != nil
}

// GiveWay takes out the registrations of the dead, so that who stands by takes over in the same
// step, and keeps them aside as [Catalog.Withhold] does. It returns what was taken out.
func (c *Catalog) GiveWay(dead func(Registration) bool) []Registration {
	return c.takeOut(dead, true, true)
}

// standBy lets a registration wait, where it says that it may and somebody else provides
// the type.
func (t *transition) standBy(reg *Registration, old *entry) (waits bool, err error) {
	c := t.c

	s := c.services[reg.Type]
	if !reg.Standby || old != nil || s == nil || s.roster.live == 0 {
		return false, nil
	}

	if err := t.fits(reg, old, true); err != nil {
		return false, err
	}

	c.standbys.add(reg)

	return true, nil
}

// takeOver makes the first who stands by the provider of a type that nobody provides
// any more.
func (t *transition) takeOver(s *service) {
	waiting := t.c.standbys.byType[s.name]
	if s.roster.live > 0 || len(waiting) == 0 {
		return
	}

	next := waiting[0]
	t.c.standbys.remove(next)
	t.register(next, nil)
	t.record(ChangeTookOver, t.c.entries[next.ID])
	t.changes[len(t.changes)-1].Owner = t.gaveWay[s.name]
}

// withdraw takes out what stands by of a runtime, and returns how many that was.
func (t *transition) withdraw(runtimeID string) int {
	waiting := slices.Clone(t.c.standbys.byRuntime[runtimeID])
	for _, reg := range waiting {
		t.c.standbys.remove(reg)
		t.c.end(reg)
		t.left(reg)
	}

	return len(waiting)
}

// givesWay notes whose place is taken, because it is dead.
func (t *transition) givesWay(reg *Registration) {
	if t.gaveWay == nil {
		t.gaveWay = map[string]string{}
	}

	t.gaveWay[reg.Type] = reg.SelfID
}
