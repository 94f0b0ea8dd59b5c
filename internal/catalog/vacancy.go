package catalog

// vacancy is what a change left to others: types that nobody else may have had, and room.
type vacancy struct {
	types, runtimes map[string]struct{}
}

// left notes that a registration is gone, where something is withheld.
func (t *transition) left(reg *Registration) {
	v := &t.vacancy

	if len(t.c.withheld.byID) == 0 {
		return
	}

	if v.types == nil {
		v.types, v.runtimes = map[string]struct{}{}, map[string]struct{}{}
	}

	v.types[reg.Type], v.runtimes[reg.RuntimeID] = struct{}{}, struct{}{}
}

// concernsLocked says which registrations may come back that are withheld, nil for none: where one found
// no room, all.
func (v *vacancy) concernsLocked(c *Catalog) func(Registration) bool {
	if v.types == nil {
		return nil
	}

	if c.cramped {
		c.cramped = false

		return func(Registration) bool { return true }
	}

	return func(reg Registration) bool {
		_, ofType := v.types[reg.Type]
		_, ofRuntime := v.runtimes[reg.RuntimeID]

		return ofType || ofRuntime
	}
}
