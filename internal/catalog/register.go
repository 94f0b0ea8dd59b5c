package catalog

// Register enters a registration. A runtime that registers a type again replaces
// its registration: with the same version in its place, with another one behind
// the rest. The first provider's self id owns the type until its last
// registration is gone; others are refused unless [Config].AllowMultiple says
// otherwise, or the host itself registers. Whoever registers for an identity checks afterwards that the
// identity still lives, and otherwise calls [Catalog.RemoveRuntime].
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
		if err := t.admit(&reg, old, multiple); err != nil {
			return err
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

	rt := c.runtimes[reg.RuntimeID]

	switch {
	case rt != nil && reg.RuntimeID != "" && rt.overlaps(reg):
		return ErrOverlap
	case old != nil:
		return nil
	case c.full(s, rt):
		return ErrLimit
	default:
		return nil
	}
}

// full reports whether one registration more of a type and a runtime, both perhaps
// nil, would exceed a bound.
func (c *Catalog) full(s *service, rt *runtime) bool {
	cfg := c.cfg.Load()

	return exceeds(len(c.entries)+1, cfg.MaxRegistrations) ||
		s != nil && exceeds(s.roster.live+1, cfg.MaxPerType) ||
		rt != nil && exceeds(len(rt.entries)+1, cfg.MaxPerRuntime)
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

		rt.health, rt.endpoint, rt.hasEndpoint = nil, "", false
		c.ledger.release(runtimeID)

		return nil
	})

	return removed
}

// RemoveWhere takes out every registration that match says, and returns how
// many; it is how a change of policy withdraws what it no longer allows. match
// runs outside the locks; a registration that is replaced meanwhile stays.
func (c *Catalog) RemoveWhere(match func(Registration) bool) int {
	var doomed []*Registration

	for _, reg := range c.snapshot() {
		if match(reg.clone()) {
			doomed = append(doomed, reg)
		}
	}

	if len(doomed) == 0 {
		return 0
	}

	removed := 0

	_ = c.transition(func(t *transition) error {
		for _, reg := range doomed {
			if e := c.entries[reg.ID]; e != nil && e.reg == reg {
				t.remove(e)
				removed++
			}
		}

		return nil
	})

	return removed
}

func (c *Catalog) snapshot() []*Registration {
	c.mu.RLock()
	defer c.mu.RUnlock()

	all := make([]*Registration, 0, len(c.entries))
	for _, e := range c.entries {
		all = append(all, e.reg)
	}

	return all
}
