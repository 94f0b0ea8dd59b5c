package catalog

import "time"

// transition is one change of state while it is made.
type transition struct {
	c   *Catalog
	now time.Time

	services []*service
	runtimes []*runtime
	feeds    []*feed // whose watchers are woken by whoever made the change
	crowds   []*feed // whose watchers are woken by a goroutine of their own
	changes  []Change
	vacancy  vacancy
	gaveWay  map[string]string // by type: the self id of the dead whose place is taken
	leaving  *runtime          // whose registrations go in this change, and take no room; nil for nobody
	coming   int               // registrations that were found room for and are not made yet
}

// transition makes one change: apply makes it under the lock and says which types
// and runtimes it touches. Then each of these types takes back providers whose
// time aside is over, gets its new state, and an event if watchers must see it;
// what has become empty goes; and outside the lock the watchers of those types
// wake up and the observer is told. Nobody waits for a crowd of watchers to wake up. If apply fails it has changed nothing.
func (c *Catalog) transition(apply func(t *transition) error) error {
	cfg := c.cfg.Load()
	t := transition{c: c, now: cfg.Now()}

	c.mu.Lock()
	err := apply(&t)
	t.finishLocked()
	concerns := t.vacancy.concernsLocked(c)
	c.mu.Unlock()

	for _, f := range t.crowds {
		go func() {
			defer c.summoning.Done()
			f.summon()
		}()
	}

	for _, f := range t.feeds {
		f.wakeAll(func() {})
	}

	for _, change := range t.changes {
		cfg.Observe(change)
	}

	if concerns != nil {
		cfg.Vacated(concerns)
	}

	return err
}

func (t *transition) finishLocked() {
	for _, s := range t.services {
		t.takeOver(s)

		for _, e := range s.settle(t.now) {
			t.record(ChangeReadmitted, e)
		}

		state, provider := s.chosen()
		if s.feed.publish(state, provider, s.changed) {
			t.wakeLocked(s.feed)
		}

		s.touched, s.changed = false, false
		t.c.releaseServiceLocked(s)
	}

	for _, rt := range t.runtimes {
		rt.touched = false
		t.c.releaseRuntimeLocked(rt)
	}
}

// wakeLocked has the watchers of a type woken. When the host shuts down nobody starts to do so
// who would have to be waited for.
func (t *transition) wakeLocked(f *feed) {
	switch crowd, summons := f.crowd(); {
	case summons && !t.c.closed:
		t.c.summoning.Add(1)
		t.crowds = append(t.crowds, f)
	case !crowd || t.c.closed:
		t.feeds = append(t.feeds, f)
	}
}

// touch marks a type whose state must be looked at; changed says that its
// routable providers are others than before.
func (t *transition) touch(s *service, changed bool) {
	s.changed = s.changed || changed

	if !s.touched {
		s.touched = true
		t.services = append(t.services, s)
	}
}

// touchRuntime marks a runtime that may have become empty.
func (t *transition) touchRuntime(rt *runtime) {
	if !rt.touched {
		rt.touched = true
		t.runtimes = append(t.runtimes, rt)
	}
}

// record takes note of a change for the observer.
func (t *transition) record(kind ChangeKind, e *entry) {
	t.changes = append(t.changes, changeOf(kind, e))
}

// attach enters a registration in every index. What is known of an earlier one
// of the same type and runtime comes as its record.
func (t *transition) attach(s *service, reg *Registration, past record) {
	c := t.c
	c.order++

	e := &entry{
		reg:     reg,
		order:   c.order,
		service: s,
		release: c.releaseLocked(s, reg.Version),
		runtime: c.runtimeLocked(reg.RuntimeID),
		tier:    tierOut,
		record:  past,
	}
	e.health = e.runtime.currentHealth()
	e.record.aside = false

	c.trails.add(reg)
	reg.Fleet.offers(1)
	c.entries[reg.ID] = e
	c.providers[providerKey{reg.Type, reg.RuntimeID}] = e
	e.runtime.add(e)
	s.roster.join(e)
	e.release.roster.join(e)
	s.seat(e, t.now)
	t.touch(s, e.class() != tierOut)
}

// detach takes a registration out of every index.
func (t *transition) detach(e *entry) {
	c, s := t.c, e.service
	t.touch(s, e.class() != tierOut)
	t.touchRuntime(e.runtime)

	s.takeBack(e)
	s.set(e, tierOut)
	s.roster.leave(e)
	e.release.roster.leave(e)
	e.runtime.remove(e)
	s.feed.forget(e.reg)
	c.trails.remove(e.reg)
	e.reg.Fleet.offers(-1)
	delete(c.entries, e.reg.ID)
	delete(c.providers, providerKey{e.reg.Type, e.reg.RuntimeID})
	c.releaseVersionLocked(e.release, s)
}

// remove is detach for a registration that nothing replaces.
func (t *transition) remove(e *entry) {
	t.detach(e)
	e.service.discount(e.reg.SelfID)
	t.c.departed.add(providerKey{e.reg.Type, e.reg.RuntimeID})
	t.c.end(e.reg)
	t.left(e.reg)
	t.record(ChangeUnregistered, e)
}

// releaseLocked returns the record of a version of a type, a new one if there is
// none.
func (c *Catalog) releaseLocked(s *service, version string) *release {
	key := releaseKey{s.name, version}

	r := c.releases[key]
	if r == nil {
		r = newRelease(version)
		r.place = len(s.releases)
		s.releases = append(s.releases, r)
		c.releases[key] = r
	}

	return r
}

func (c *Catalog) releaseVersionLocked(r *release, s *service) {
	if r.roster.live > 0 {
		return
	}

	last := len(s.releases) - 1
	moved := s.releases[last]
	s.releases[r.place], moved.place = moved, r.place
	s.releases[last] = nil
	s.releases = s.releases[:last]
	delete(c.releases, releaseKey{s.name, r.version})
}
