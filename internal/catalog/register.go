package catalog

import (
	"maps"
	"slices"
)

// Register enters a registration. A runtime that registers a type again replaces
// its registration: with the same version in its place, with another one behind
// the rest. The first provider's self id owns the type until its last
// registration is gone; others are refused unless [Config].AllowMultiple says
// otherwise, or the host itself registers. Whoever registers for an identity checks afterwards that the
// identity still lives, and otherwise calls [Catalog.RemoveRuntime].
//
// A registration with Standby waits instead while another runtime provides the type,
// whosever that is. When the last provider has gone, the first that waits takes over in
// the same step, as if it registered then; until then nobody learns of it. Those that wait
// have the bounds of those that provide, and count apart from them.
//
// A type opens the paths below its own and no others, so the paths of a runtime's
// types do not overlap.
//
// Fails with [ErrInvalid], [ErrDuplicate], [ErrConflict], [ErrOverlap] or [ErrLimit].
func (c *Catalog) Register(reg Registration) error {
	if reg.ID == "" || reg.Type == "" {
		return ErrInvalid
	}

	multiple := c.cfg.Load().AllowMultiple(reg.Type)
	reg = reg.clone()

	return c.transition(func(t *transition) error {
		if reg.RegisteredAt.IsZero() {
			reg.RegisteredAt = t.now
		}

		old := c.providers[providerKey{reg.Type, reg.RuntimeID}]
		if waits, err := t.standBy(&reg, old); waits || err != nil {
			if waits {
				t.unshelve(reg.Type, reg.RuntimeID)
			}

			return err
		}

		if err := t.admit(&reg, old, multiple); err != nil {
			return err
		}

		t.unshelve(reg.Type, reg.RuntimeID)

		if waiting := c.standbys.find(reg.Type, reg.RuntimeID); waiting != nil {
			c.standbys.remove(waiting)
		}

		t.register(&reg, old)

		return nil
	})
}

// admit says whether a registration, which replaces old if there is one, may be
// made.
func (t *transition) admit(reg *Registration, old *entry, multiple bool) error {
	c := t.c
	if used := c.entries[reg.ID]; used != nil && used != old {
		return ErrDuplicate
	}

	s := c.services[reg.Type]
	if s != nil && s.owned > 0 && s.owner != reg.SelfID && !multiple && !reg.ByHost {
		t.changes = append(t.changes, Change{
			Kind: ChangeConflict, Type: reg.Type, RegistrationID: reg.ID,
			RuntimeID: reg.RuntimeID, SelfID: reg.SelfID, Owner: s.owner,
		})

		return ErrConflict
	}

	return t.fits(reg, old, false)
}

// fits says whether there is room for a registration, whoever owns its type, among those
// that provide or among those that wait.
func (t *transition) fits(reg *Registration, old *entry, waits bool) error {
	c := t.c
	rt, named := c.runtimes[reg.RuntimeID], reg.RuntimeID != ""

	switch used := c.entries[reg.ID]; {
	case used != nil && used != old:
		return ErrDuplicate
	case c.standbys.byID[reg.ID] != nil && c.standbys.byID[reg.ID].RuntimeID != reg.RuntimeID:
		return ErrDuplicate
	case named && (rt != nil && rt.overlaps(reg) || c.standbys.overlaps(reg)):
		return ErrOverlap
	case old != nil, waits && c.standbys.find(reg.Type, reg.RuntimeID) != nil:
		return nil
	case t.overdrawn(rt, reg):
		return ErrLimit
	case !reg.Fleet.mayRegister(c.cfg.Load(), waits, t.coming-t.leavingOf(reg.Fleet)):
		return ErrLimitOfFleet
	default:
		return t.crowded(reg, waits)
	}
}

// crowded returns an error where one registration more would be too many, of its type or in all.
// Those that wait are bounded as those that provide are, and apart from them: whoever
// waits keeps nobody from providing.
func (t *transition) crowded(reg *Registration, waits bool) error {
	c := t.c
	cfg := c.cfg.Load()
	all, ofType := len(c.entries)+t.coming, 0

	if s := c.services[reg.Type]; s != nil {
		ofType = s.roster.live
	}

	if t.leaving != nil {
		all -= len(t.leaving.entries)

		if c.providers[providerKey{reg.Type, t.leaving.id}] != nil {
			ofType--
		}
	}

	if waits {
		all, ofType = len(c.standbys.byID), len(c.standbys.byType[reg.Type])
	}

	switch {
	case ofType > 0 && exceeds(ofType+1, cfg.MaxPerType):
		return ErrLimitOfType
	case exceeds(all+1, cfg.MaxRegistrations):
		return ErrLimitInAll
	default:
		return nil
	}
}

// overdrawn reports whether one registration more would be too many of a runtime, rt,
// which may be nil. What it has waiting counts, unless that is for the same type.
func (t *transition) overdrawn(rt *runtime, reg *Registration) bool {
	c := t.c
	has := len(c.standbys.byRuntime[reg.RuntimeID]) + t.coming
	if c.standbys.find(reg.Type, reg.RuntimeID) != nil {
		has--
	}

	if rt != nil {
		has += len(rt.entries)
	}

	return has > 0 && exceeds(has+1, c.cfg.Load().MaxPerRuntime)
}

// leavingOf is how many registrations of a fleet go in this change.
func (t *transition) leavingOf(f *Fleet) int {
	n := 0

	if t.leaving != nil {
		for _, e := range t.leaving.entries {
			if e.reg.Fleet == f {
				n++
			}
		}
	}

	return n
}

func (t *transition) register(reg *Registration, old *entry) {
	s := t.c.serviceLocked(reg.Type)
	s.count(reg.SelfID)

	if old == nil {
		t.attach(s, reg, record{})
		t.record(ChangeRegistered, t.c.entries[reg.ID])

		return
	}

	former := old.reg.SelfID

	if old.reg.Version == reg.Version {
		t.renew(old, reg)
	} else {
		t.detach(old)
		t.attach(s, reg, old.record)
	}

	s.discount(former)
	t.record(ChangeReplaced, t.c.entries[reg.ID])
}

// renew replaces what an entry says and leaves it where it is.
func (t *transition) renew(e *entry, reg *Registration) {
	delete(t.c.entries, e.reg.ID)
	t.c.trails.remove(e.reg)
	t.c.trails.add(reg)
	e.reg.Fleet.offers(-1)
	reg.Fleet.offers(1)
	e.service.feed.forget(e.reg)
	t.c.entries[reg.ID] = e
	e.reg = reg
	e.service.set(e, e.tier)
	t.touch(e.service, e.class() != tierOut)
}

// Unregister takes a registration out. It belongs to the runtime that made it:
// for anybody else it does not exist. An empty runtimeID is the host itself,
// which may take out any. Fails with [ErrNotFound].
func (c *Catalog) Unregister(id, runtimeID string) error {
	return c.transition(func(t *transition) error {
		if waiting := c.standbys.byID[id]; waiting != nil && (runtimeID == "" || waiting.RuntimeID == runtimeID) {
			c.standbys.remove(waiting)
			c.end(waiting)
			t.left(waiting)

			return nil
		}

		if kept := c.withheld.byID[id]; kept != nil && (runtimeID == "" || kept.RuntimeID == runtimeID) {
			c.withheld.remove(kept)
			c.end(kept)

			return nil
		}

		e := c.entries[id]
		if e == nil || runtimeID != "" && e.reg.RuntimeID != runtimeID {
			return ErrNotFound
		}

		t.remove(e)

		return nil
	})
}

// RemoveRuntime forgets a runtime: its registrations, health, endpoint and
// watches. It returns how many registrations there were.
func (c *Catalog) RemoveRuntime(runtimeID string) int {
	removed := 0

	_ = c.transition(func(t *transition) error {
		removed = t.withdraw(runtimeID)
		for _, reg := range slices.Clone(c.withheld.byRuntime[runtimeID]) {
			c.withheld.remove(reg)
			c.end(reg)
		}

		rt := c.runtimes[runtimeID]
		if rt == nil {
			return nil
		}

		t.touchRuntime(rt)

		for len(rt.entries) > 0 {
			t.remove(rt.entries[len(rt.entries)-1])
			removed++
		}

		for len(rt.watchers) > 0 {
			t.end(rt.watchers[len(rt.watchers)-1])
		}

		rt.health, rt.endpoint, rt.hasEndpoint, rt.doubted = nil, "", false, false
		c.ledger.release(runtimeID)

		return nil
	})

	return removed
}

// RemoveWhere takes out every registration that match says, also those that are withheld, and
// returns how many were offered. match runs outside the locks; a registration that is
// replaced meanwhile stays.
func (c *Catalog) RemoveWhere(match func(Registration) bool) int {
	return len(c.takeOut(match, false, false))
}

// takeOut takes registrations out, and keeps them aside or forgets them. Those of the dead
// give way to others.
func (c *Catalog) takeOut(match func(Registration) bool, keep, dead bool) (out []Registration) {
	var doomed []*Registration

	for _, reg := range c.snapshot(!keep) {
		if match(reg.clone()) {
			doomed = append(doomed, reg)
		}
	}

	if len(doomed) == 0 {
		return nil
	}

	byAge(doomed) // so that the earliest are kept where not all can be

	_ = c.transition(func(t *transition) error {
		for _, reg := range doomed {
			if !t.discard(reg, dead) {
				continue
			}

			out = append(out, reg.clone())

			if keep {
				t.shelve(reg)
			}
		}

		return nil
	})

	return out
}

// discard takes out what is still there, and reports whether that was offered or stood by.
func (t *transition) discard(reg *Registration, dead bool) bool {
	c := t.c

	switch e := c.entries[reg.ID]; {
	case c.withheld.byID[reg.ID] == reg:
		c.withheld.remove(reg)
		c.end(reg)

		return false
	case c.standbys.byID[reg.ID] == reg:
		c.standbys.remove(reg)
		c.end(reg)
	case e != nil && e.reg == reg:
		t.remove(e)

		if dead {
			t.givesWay(reg)
		}
	default:
		return false
	}

	return true
}

// EachProviding calls f for every registration that is offered, in no order, until it returns false.
// What f is given is shared and must not be changed. No lock is held meanwhile.
func (c *Catalog) EachProviding(f func(*Registration) bool) {
	c.mu.RLock()
	all := make([]*Registration, 0, len(c.entries))
	for _, e := range c.entries {
		all = append(all, e.reg)
	}
	c.mu.RUnlock()
	for _, reg := range all {
		if !f(reg) {
			return
		}
	}
}

// snapshot returns the registrations that are offered or stand by, and where asked those
// that are withheld.
func (c *Catalog) snapshot(withheld bool) []*Registration {
	c.mu.RLock()
	defer c.mu.RUnlock()

	all := slices.AppendSeq(make([]*Registration, 0, len(c.entries)+len(c.standbys.byID)), maps.Values(c.standbys.byID))
	if withheld {
		all = slices.AppendSeq(all, maps.Values(c.withheld.byID))
	}

	for _, e := range c.entries {
		all = append(all, e.reg)
	}

	return all
}
