package catalog

// tier orders the providers of a type by how gladly they are used.
type tier uint8

const (
	tierHealthy tier = iota
	tierDegraded
	// tierDoubted holds those that may be dead, see doubt.go.
	tierDoubted
	// tierAside holds those that fail too often to be used, see outlier.go.
	tierAside
	// tierOut is for those that are not used at all.
	tierOut
)

// tiers is how many there are to choose from.
const tiers = tierOut

// The rosters that an entry stands on, as indexes of its slots.
const (
	slotService = iota
	slotRelease
	slotCount
)

// sparse is the length under which a roster does not mind holes.
const sparse = 32

// roster holds providers in the order in which they were registered and picks
// from a tier by mass. The zero value with its slot set is an empty roster.
type roster struct {
	slot    int
	entries []*entry // nil is a hole
	live    int
	head    int // nothing but holes before it
	counts  [tiers]int
	trees   [tiers]sumTree
}

// join appends an entry that is in no tier yet.
func (r *roster) join(e *entry) {
	if len(r.entries) == cap(r.entries) && r.live <= len(r.entries)/2 {
		r.compact()
	}

	e.slots[r.slot] = len(r.entries)
	r.entries = append(r.entries, e)
	r.live++
}

// leave takes out an entry that is in no tier any more.
func (r *roster) leave(e *entry) {
	r.entries[e.slots[r.slot]] = nil
	r.live--

	if r.live == 0 || len(r.entries) >= sparse && 4*r.live < len(r.entries) {
		r.compact()
	}
}

// enter puts an entry into its tier, exit takes it out.
func (r *roster) enter(e *entry) {
	if e.tier < tiers {
		r.counts[e.tier]++
		r.trees[e.tier].add(e.slots[r.slot], e.mass)
	}
}

func (r *roster) exit(e *entry) {
	if e.tier < tiers {
		r.counts[e.tier]--
		r.trees[e.tier].sub(e.slots[r.slot], e.mass)
	}
}

// total is the mass of a tier, zero if it is empty.
func (r *roster) total(t tier) uint64 { return r.trees[t].total() }

// at returns the entry at point k of a tier, which is below its total. Point 0
// is the one that was registered first. Where everybody is in the tier with the
// same mass, as is usual, the point is the place.
func (r *roster) at(t tier, k uint64) *entry {
	e, _ := r.from(t, k)

	return e
}

// from does what at does, and returns how much of the entry's mass there is from the point on.
func (r *roster) from(t tier, k uint64) (e *entry, rest uint64) {
	if everybody := len(r.entries); r.counts[t] == everybody && r.total(t) == uint64(everybody) {
		return r.entries[k], 1
	}

	slot, into := r.trees[t].find(k)
	e = r.entries[slot]

	return e, e.mass - into
}

// first returns the entry that was registered first, whatever its tier; nil if
// there is none.
func (r *roster) first() *entry {
	for ; r.head < len(r.entries); r.head++ {
		if e := r.entries[r.head]; e != nil {
			return e
		}
	}

	return nil
}

// compact closes the holes and gives memory back. Its cost is covered by the
// joins and leaves that made the holes.
func (r *roster) compact() {
	old := r.entries
	r.entries, r.head, r.trees = nil, 0, [tiers]sumTree{}

	if r.live == 0 {
		return
	}

	r.entries = make([]*entry, 0, 2*r.live)

	for _, e := range old {
		if e == nil {
			continue
		}

		e.slots[r.slot] = len(r.entries)
		r.entries = append(r.entries, e)

		if e.tier < tiers {
			r.trees[e.tier].add(e.slots[r.slot], e.mass)
		}
	}
}
