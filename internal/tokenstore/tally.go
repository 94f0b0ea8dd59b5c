package tokenstore

// tallies count the live identities by a name. They hold as many names as there are live identities at
// most. They are not safe for concurrent use.
type tallies struct {
	table *table[tally, *tally]
}

// tally is one count. Identities share its name.
type tally struct {
	name  string
	count int32
}

func (t *tally) key() string { return t.name }

func newTallies() tallies { return tallies{table: newTable[tally]()} }

func (t tallies) count(name string) int {
	if one := t.table.get(name); one != nil {
		return int(one.count)
	}
	return 0
}

// increment counts one more and returns the tally to decrement one day.
func (t tallies) increment(name string) *tally {
	one := t.table.get(name)
	if one == nil {
		one = &tally{name: name}
		t.table.put(one)
	}
	one.count++
	return one
}

func (t tallies) decrement(one *tally) {
	if one.count--; one.count == 0 {
		t.table.remove(one)
	}
}
