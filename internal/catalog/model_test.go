package catalog_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
)

var (
	typeNames    = []string{"cache", "log", "mail", "open1", "open2"}
	runtimeNames = []string{"r0", "r1", "r2", "r3", "r4", "r5"}
	versions     = []string{"1.0.0", "1.9.0", "1.10.0", "2.0.0-rc.1", "none"}
	constraints  = []string{"", "", "1.9.0", "2.0.0-alpha", ">=1.9, <2", "3"}
)

// modelConfig has small bounds, so that all of them are reached. The catalogue
// remembers every type that is gone, or none.
func modelConfig(forgetful bool) catalog.Config {
	history := len(typeNames)
	if forgetful {
		history = -1
	}

	return catalog.Config{
		MaxRegistrations: 8, MaxPerRuntime: 3, MaxPerType: 4,
		MaxWatches: 16, MaxWatchesPerRuntime: 3, RingSize: 4, History: history,
	}
}

// duel runs the same operations on a catalogue and on the reference. The
// operations come from bytes, so that a test can make them at random and a
// fuzzer can look for interesting ones.
type duel struct {
	t      *testing.T
	shared bool // whether the open types take several self ids now
	data   []byte
	c      *catalog.Catalog
	r      *reference
	regs   int
	epochs map[int]string
	open   []*pair
	cut    []*pair
	done   map[string]int
}

// pair is a watcher and its reference, with what the consumer saw last.
type pair struct {
	w    *catalog.Watcher
	f    *follower
	seen catalog.Event
}

func newDuel(t *testing.T, data []byte, cfg catalog.Config) *duel {
	t.Helper()

	d := &duel{t: t, data: data, shared: true, epochs: map[int]string{}, done: map[string]int{}}
	cfg.AllowMultiple = func(serviceType string) bool { return d.shared && strings.HasPrefix(serviceType, "open") }
	d.c, d.r = catalog.New(cfg), newReference(cfg)

	return d
}

// draw takes a number below n from the data.
func (d *duel) draw(n int) int {
	if len(d.data) == 0 {
		return 0
	}

	b := int(d.data[0])
	d.data = d.data[1:]

	return b % n
}

func (d *duel) of(names []string) string { return names[d.draw(len(names))] }

func (d *duel) run() {
	d.t.Helper()

	operations := []struct {
		name   string
		weight int
		do     func()
	}{
		{"register", 5, d.register},
		{"unregister", 2, d.unregister},
		{"remove runtime", 1, d.removeRuntime},
		{"remove where", 1, d.removeWhere},
		{"health", 3, d.health},
		{"endpoint", 1, d.endpoint},
		{"report", 3, d.report},
		{"select", 4, d.selects},
		{"strategy", 1, d.strategy},
		{"watch", 2, d.watch},
		{"resume", 2, d.resume},
		{"next", 6, d.next},
		{"cut", 1, d.cutOne},
		{"end watches", 1, d.endWatches},
		{"wait", 2, d.wait},
		{"policy", 1, func() { d.shared = d.draw(3) > 0 }},
	}

	var wheel []int

	for i, op := range operations {
		for range op.weight {
			wheel = append(wheel, i)
		}
	}

	for count := 0; len(d.data) > 0; {
		op := operations[wheel[d.draw(len(wheel))]]
		op.do()
		d.done[op.name]++

		if count++; count%4 == 0 || len(d.data) == 0 {
			d.compare(op.name)
		}

		if d.t.Failed() {
			d.t.Fatalf("after %s, %d bytes left", op.name, len(d.data))
		}
	}

	d.converge()
}

// compare compares everything that the catalogue says.
func (d *duel) compare(after string) {
	d.t.Helper()

	for _, name := range typeNames {
		if got, want := d.c.Providers(name), len(d.r.byType(name)); got != want {
			d.t.Errorf("%s: %d providers of %s, want %d", after, got, name, want)
		}

		d.compareList(after+": type "+name, d.c.ByType(name), func(o *offer) bool { return o.reg.Type == name })
	}

	runtimes := map[string]bool{}

	for _, name := range runtimeNames {
		d.compareList(after+": runtime "+name, d.c.ByRuntime(name), func(o *offer) bool { return o.reg.RuntimeID == name })

		want, reported := d.r.health[name]
		if got, ok := d.c.Health(name); ok != reported || !reflect.DeepEqual(got, want) {
			d.t.Errorf("%s: health of %s: %+v, want %+v", after, name, got, want)
		}

		endpoint, known := d.r.endpoints[name]
		if got, ok := d.c.Endpoint(name); ok != known || got != endpoint {
			d.t.Errorf("%s: endpoint of %s: %q, want %q", after, name, got, endpoint)
		}

		if reported || known {
			runtimes[name] = true
		}
	}

	for _, o := range d.r.offers {
		runtimes[o.reg.RuntimeID] = true
		byID, ok := d.c.Get(o.reg.ID)
		provider, ok2 := d.c.Provider(o.reg.Type, o.reg.RuntimeID)

		if !ok || !ok2 || !reflect.DeepEqual(byID, o.reg) || !reflect.DeepEqual(provider, o.reg) {
			d.t.Errorf("%s: %+v, %+v, want %+v", after, byID, provider, o.reg)
		}
	}

	for _, p := range d.open {
		if p.f.runtime != "" {
			runtimes[p.f.runtime] = true
		}
	}

	want := catalog.Stats{
		Registrations: len(d.r.offers), Types: len(d.r.types), Remembered: len(d.r.history),
		Runtimes: len(runtimes), Watches: len(d.open),
	}
	if got := d.c.Stats(); got != want || d.c.Watches() != want.Watches {
		d.t.Errorf("%s: %+v, want %+v", after, got, want)
	}
}

func (d *duel) compareList(what string, got []catalog.Registration, match func(*offer) bool) {
	d.t.Helper()

	var want []catalog.Registration
	for _, o := range d.r.where(match) {
		want = append(want, o.reg)
	}

	if !reflect.DeepEqual(got, want) {
		d.t.Errorf("%s: %+v, want %+v", what, got, want)
	}
}

// converge lets every watcher read to the end: its last event is the state of
// its type. Then everything goes, and nothing is left.
func (d *duel) converge() {
	d.t.Helper()

	for _, p := range d.open {
		for d.read(p) {
		}

		now := d.r.current(p.f.serviceType)
		if p.seen.State != now.state || p.seen.Provider.ID != now.provider.ID {
			d.t.Errorf("watcher of %s ends with %+v, want %+v", p.f.serviceType, p.seen, now)
		}
	}

	d.c.CloseWatches()

	for _, name := range runtimeNames {
		d.c.RemoveRuntime(name)
	}

	got := d.c.Stats()
	if got.Remembered = 0; got != (catalog.Stats{}) {
		d.t.Errorf("left behind: %+v", got)
	}
}

func TestRandomOperationsAgainstReference(t *testing.T) {
	t.Parallel()

	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()

			random := rand.New(rand.NewPCG(seed, 4))

			data := make([]byte, 15_000)
			for i := range data {
				data[i] = byte(random.Uint32())
			}

			synctest.Test(t, func(t *testing.T) {
				d := newDuel(t, data, modelConfig(seed%2 == 0))
				d.run()
				d.checkCoverage()
			})
		})
	}
}

// checkCoverage fails if the operations did not reach what they are meant to.
func (d *duel) checkCoverage() {
	for _, what := range []error{catalog.ErrDuplicate, catalog.ErrConflict, catalog.ErrLimit} {
		if d.done[what.Error()] == 0 {
			d.t.Errorf("never %v: %v", what, d.done)
		}
	}

	for _, what := range []string{"registered", "selected", "set aside", "resync", "missed", "watch " + catalog.ErrLimit.Error()} {
		if d.done[what] < 10 {
			d.t.Errorf("too few %s: %v", what, d.done)
		}
	}
}

func FuzzOperations(f *testing.F) {
	for seed := range uint64(4) {
		random := rand.New(rand.NewPCG(seed, 8))

		data := make([]byte, 200)
		for i := range data {
			data[i] = byte(random.Uint32())
		}

		f.Add(data, seed%2 == 0)
	}

	f.Fuzz(func(t *testing.T, data []byte, forgetful bool) {
		synctest.Test(t, func(t *testing.T) { newDuel(t, data, modelConfig(forgetful)).run() })
	})
}
