package catalog

import "slices"

// Supersede puts the registrations of a new instance in the place of all that an old one
// has, in one step: nobody selects, watches or looks up a state in between. The old
// runtime's health and endpoint stay, for the calls that are on their way to it. What goes leaves its room to what comes.
//
// Fails as [Catalog.Register] does, with nothing changed.
func (c *Catalog) Supersede(oldRuntimeID string, regs []Registration) error {
	multiple := make([]bool, len(regs))
	fresh := make([]Registration, len(regs))
	for i, reg := range regs {
		if reg.ID == "" || reg.Type == "" {
			return ErrInvalid
		}
		multiple[i], fresh[i] = c.cfg.Load().AllowMultiple(reg.Type), reg.clone()
	}
	return c.transition(func(t *transition) error {
		if oldRuntimeID != "" {
			t.leaving = c.runtimes[oldRuntimeID]
		}
		olds := make([]*entry, len(fresh))
		for i := range fresh {
			if fresh[i].RegisteredAt.IsZero() {
				fresh[i].RegisteredAt = t.now
			}
			olds[i] = c.providers[providerKey{fresh[i].Type, fresh[i].RuntimeID}]
			if err := t.admit(&fresh[i], olds[i], multiple[i]); err != nil {
				return err
			}
			if olds[i] == nil {
				t.coming++
			}
		}
		t.coming = 0
		for i := range fresh {
			t.register(&fresh[i], olds[i])
		}
		t.retire(oldRuntimeID)
		return nil
	})
}

// retire takes out all that a runtime has, empty for none.
func (t *transition) retire(runtimeID string) {
	c := t.c
	t.leaving = nil
	if rt := c.runtimes[runtimeID]; rt != nil {
		for len(rt.entries) > 0 {
			t.remove(rt.entries[len(rt.entries)-1])
		}
	}
	if runtimeID != "" { // nor does it take over, or get back what was withheld of it
		t.withdraw(runtimeID)
		for _, reg := range slices.Clone(c.withheld.byRuntime[runtimeID]) {
			c.withheld.remove(reg)
			c.end(reg)
		}
	}
}
