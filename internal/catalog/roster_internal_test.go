package catalog

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestSumTree(t *testing.T) {
	t.Parallel()

	random := rand.New(rand.NewPCG(1, 2))

	var (
		tree   sumTree
		masses [3000]uint64
	)

	for range 10_000 {
		// The tree grows with the highest slot that was used.
		slot := random.IntN(1 + random.IntN(len(masses)))
		if mass := random.Uint64N(50); random.IntN(3) > 0 {
			tree.add(slot, mass)
			masses[slot] += mass
		} else if mass = min(mass, masses[slot]); mass > 0 {
			tree.sub(slot, mass)
			masses[slot] -= mass
		}

		total := uint64(0)
		for _, mass := range masses {
			total += mass
		}

		if tree.total() != total {
			t.Fatalf("total %d, want %d", tree.total(), total)
		}

		if total == 0 {
			continue
		}

		k := random.Uint64N(total)
		want, rest := 0, k

		for rest >= masses[want] {
			rest -= masses[want]
			want++
		}

		if got, _ := tree.find(k); got != want {
			t.Fatalf("point %d of %d is in slot %d, want %d", k, total, got, want)
		}
	}
}

// The roster of many providers answers like a list, whatever comes and goes.
func TestRosterAgainstList(t *testing.T) {
	t.Parallel()

	random := rand.New(rand.NewPCG(3, 4))
	r := roster{slot: slotRelease}

	var list []*entry

	order := uint64(0)

	// More join in some phases and more leave in others; in some all are alike.
	for step := range 24_000 {
		growing, alike := step/2000%2 == 0, step/4000%2 == 0
		place := func(e *entry) {
			if e.tier, e.mass = tierDegraded, 1; !alike {
				e.tier, e.mass = tier(random.IntN(int(tierOut)+1)), 1+random.Uint64N(3)
			}
		}

		switch {
		case len(list) == 0 || growing && random.IntN(3) > 0 || !growing && random.IntN(12) == 0:
			order++
			e := &entry{order: order, tier: tierOut}
			r.join(e)
			list = append(list, e)

			place(e)
			r.enter(e)
		case random.IntN(3) == 0:
			e := list[random.IntN(len(list))]
			r.exit(e)
			place(e)
			r.enter(e)
		default:
			i := random.IntN(len(list))
			r.exit(list[i])
			list[i].tier = tierOut
			r.leave(list[i])
			list = slices.Delete(list, i, i+1)
		}

		if step%64 == 0 || len(list) < 5 {
			compareRoster(t, &r, list)
		}
	}
}

func compareRoster(t *testing.T, r *roster, list []*entry) {
	t.Helper()

	if r.live != len(list) || len(list) > 0 && r.first() != list[0] || len(list) == 0 && r.first() != nil {
		t.Fatalf("%d live, first %v, want %d", r.live, r.first(), len(list))
	}

	if len(r.entries) >= sparse && 4*r.live < len(r.entries) {
		t.Fatalf("%d places for %d", len(r.entries), r.live)
	}

	for in := range tiers {
		k, count := uint64(0), 0

		for _, e := range list {
			if e.tier != in {
				continue
			}

			if r.at(in, k) != e || r.at(in, k+e.mass-1) != e {
				t.Fatalf("point %d of tier %d is entry %d, want %d", k, in, r.at(in, k).order, e.order)
			}

			k += e.mass
			count++
		}

		if r.total(in) != k || r.counts[in] != count {
			t.Fatalf("tier %d has %d of mass %d, want %d of %d", in, r.counts[in], r.total(in), count, k)
		}
	}
}
