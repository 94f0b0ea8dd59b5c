package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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

func (d *duel) register() {
	runtime := d.draw(len(runtimeNames))
	d.regs++

	reg := catalog.Registration{
		ID: fmt.Sprint("id", d.regs), RuntimeID: runtimeNames[runtime], SelfID: fmt.Sprint("self", runtime/2),
		Type: d.of(typeNames), Version: d.of(versions), Path: "/p", Weight: d.draw(4),
		Metadata: map[string]string{"n": fmt.Sprint(d.regs)}, RegisteredAt: time.Now(),
	}

	if d.draw(8) == 0 && len(d.r.offers) > 0 {
		reg.ID = d.r.offers[d.draw(len(d.r.offers))].reg.ID
	}

	got, want := d.c.Register(reg), d.r.register(reg, time.Now())
	if !errors.Is(got, want) {
		d.t.Errorf("register %+v: %v, want %v", reg, got, want)
	}

	if want == nil {
		d.done["registered"]++
	} else {
		d.done[want.Error()]++
	}
}

func (d *duel) unregister() {
	id, runtime := "nothing", d.of(append(runtimeNames, ""))

	if len(d.r.offers) > 0 && d.draw(8) > 0 {
		o := d.r.offers[d.draw(len(d.r.offers))]
		id = o.reg.ID

		if d.draw(4) > 0 {
			runtime = o.reg.RuntimeID
		}
	}

	var doomed []*offer

	for _, o := range d.r.offers {
		if o.reg.ID == id && (runtime == "" || runtime == o.reg.RuntimeID) {
			doomed = append(doomed, o)
		}
	}

	err := d.c.Unregister(id, runtime)
	if (err == nil) != (len(doomed) == 1) || err != nil && !errors.Is(err, catalog.ErrNotFound) {
		d.t.Errorf("unregister %s by %q: %v", id, runtime, err)
	}

	d.r.remove(time.Now(), doomed, nil)
}

func (d *duel) removeRuntime() {
	name := d.of(runtimeNames)
	offers := d.r.where(func(o *offer) bool { return o.reg.RuntimeID == name })

	if got := d.c.RemoveRuntime(name); got != len(offers) {
		d.t.Errorf("remove %s: %d, want %d", name, got, len(offers))
	}

	d.endPairs(offers, func(f *follower) bool { return f.runtime == name })
	delete(d.r.health, name)
	delete(d.r.endpoints, name)
}

// endPairs does to the reference what removed offers and ended watches.
func (d *duel) endPairs(offers []*offer, match func(*follower) bool) int {
	var ended []*follower

	d.open = slices.DeleteFunc(d.open, func(p *pair) bool {
		if !match(p.f) {
			return false
		}

		ended = append(ended, p.f)
		d.cut = append(d.cut, p)

		return true
	})

	d.r.remove(time.Now(), offers, ended)

	return len(ended)
}

func (d *duel) removeWhere() {
	serviceType, version := d.of(typeNames), d.of(versions)
	offers := d.r.where(func(o *offer) bool { return o.reg.Type == serviceType && o.reg.Version == version })

	got := d.c.RemoveWhere(func(reg catalog.Registration) bool { return reg.Type == serviceType && reg.Version == version })
	if got != len(offers) {
		d.t.Errorf("removed %d, want %d", got, len(offers))
	}

	d.r.remove(time.Now(), offers, nil)
}

func (d *duel) health() {
	name := d.of(runtimeNames)
	report := catalog.HealthReport{
		Health: catalog.Health(d.draw(4)), Reason: fmt.Sprint(len(d.data)), Unavailable: []string{"x"}, At: time.Now(),
	}
	d.c.SetHealth(name, report)
	d.r.setHealth(name, report, time.Now())
}

func (d *duel) endpoint() {
	name := d.of(runtimeNames)
	d.r.endpoints[name] = fmt.Sprint(len(d.data))
	d.c.SetEndpoint(name, d.r.endpoints[name])
}

// report mostly fails, so that providers are set aside.
func (d *duel) report() {
	serviceType, runtime := d.of(typeNames), d.of(runtimeNames)
	if len(d.r.offers) > 0 {
		o := d.r.offers[d.draw(len(d.r.offers))]
		serviceType, runtime = o.reg.Type, o.reg.RuntimeID
	}

	ok := d.draw(4) == 0

	for range 1 + d.draw(6) {
		d.c.Report(serviceType, runtime, ok, time.Millisecond)
		d.r.report(serviceType, runtime, ok, time.Now())
		d.done["set aside"] += len(d.r.where(func(o *offer) bool { return o.aside && time.Until(o.until) >= 10*time.Second }))
	}
}

func (d *duel) selects() {
	name := d.of(typeNames)

	constraint, err := catalog.ParseConstraint(d.of(constraints))
	if err != nil {
		d.t.Fatal(err)
	}

	d.r.due(name, time.Now())
	candidates := d.r.candidates(name, constraint)

	if got := d.c.Has(name, constraint); got != (len(candidates) > 0) {
		d.t.Errorf("has %s %q: %v", name, constraint, got)
	}

	reg, health, err := d.c.Select(name, constraint)

	if len(candidates) == 0 {
		if !errors.Is(err, catalog.ErrNotFound) {
			d.t.Errorf("select %s %q: %v %v", name, constraint, reg, err)
		}

		return
	}

	i := slices.IndexFunc(candidates, func(o *offer) bool { return o.reg.ID == reg.ID })
	if err != nil || i < 0 || !reflect.DeepEqual(reg, candidates[max(i, 0)].reg) || health != d.r.health[reg.RuntimeID].Health {
		d.t.Errorf("select %s %q: %+v, %v, %v", name, constraint, reg, health, err)
	}

	want := i

	switch d.r.strategies[name] {
	case catalog.StrategyFirst:
		want = 0
	case catalog.StrategyRoundRobin:
		if constraint.IsAny() {
			want = d.r.types[name].turn % len(candidates)
		}

		d.r.types[name].turn++
	case catalog.StrategyRandom, catalog.StrategyWeighted:
	}

	if i != want {
		d.t.Errorf("select %s %q is number %d of %d, want %d", name, constraint, i, len(candidates), want)
	}

	d.done["selected"]++
}

func (d *duel) strategy() {
	name, strategy := d.of(typeNames), catalog.Strategy(d.draw(4))
	d.c.SetStrategy(name, strategy)
	d.r.strategies[name] = strategy
}

func (d *duel) watch() {
	d.connect(&follower{serviceType: d.of(typeNames), runtime: d.of(append(runtimeNames, "")), fresh: true}, catalog.Event{})
}

func (d *duel) connect(f *follower, seen catalog.Event) {
	w, got := d.c.Watch(catalog.WatchRequest{
		Type: f.serviceType, RuntimeID: f.runtime, ResumeAfter: seen.Sequence, Epoch: seen.Epoch,
	})
	if want := d.r.watch(f, time.Now()); !errors.Is(got, want) {
		d.t.Fatalf("watch %+v: %v, want %v", f, got, want)
	}

	if got == nil {
		d.open = append(d.open, &pair{w: w, f: f, seen: seen})
	} else {
		d.done["watch "+got.Error()]++
	}
}

// resume reconnects a consumer whose watch was cut, with what it saw last.
func (d *duel) resume() {
	if len(d.cut) == 0 {
		return
	}

	i := d.draw(len(d.cut))
	p := d.cut[i]
	d.cut = slices.Delete(d.cut, i, i+1)

	if p.seen.Epoch == "" {
		return
	}

	f := &follower{serviceType: p.f.serviceType, runtime: p.f.runtime, cursor: int(p.seen.Sequence)}

	// Whether the numbers still mean the same is what the generation says.
	if d.epochs[d.r.generationOf(f.serviceType)] != p.seen.Epoch {
		f.fresh, f.resync = true, true
	}

	d.connect(f, p.seen)
}

func (d *duel) next() {
	if len(d.open) == 0 {
		return
	}

	p := d.open[d.draw(len(d.open))]
	for range 1 + d.draw(3) {
		d.read(p)
	}
}

// read compares one event, or that there is none.
func (d *duel) read(p *pair) bool {
	want, ok := d.r.next(p.f)

	ctx, cancel := context.WithTimeout(d.t.Context(), time.Nanosecond)
	defer cancel()

	got, err := p.w.Next(ctx)

	if !ok {
		if !errors.Is(err, context.DeadlineExceeded) {
			d.t.Errorf("watcher of %s: %+v, %v, want nothing", p.f.serviceType, got, err)
		}

		return false
	}

	generation := p.f.kind.generation
	if _, known := d.epochs[generation]; !known {
		d.epochs[generation] = got.Epoch
	}

	want.Epoch = d.epochs[generation]

	if err != nil || !reflect.DeepEqual(got, want) {
		d.t.Errorf("watcher of %s:\n got %+v, %v\nwant %+v", p.f.serviceType, got, err, want)
	}

	if want.Missed > 0 && want.Sequence != p.seen.Sequence+want.Missed+1 {
		d.t.Errorf("missed %d between %d and %d", want.Missed, p.seen.Sequence, want.Sequence)
	}

	if want.Resync {
		d.done["resync"]++
	}

	if want.Missed > 0 {
		d.done["missed"]++
	}

	p.seen = got

	return true
}

func (d *duel) cutOne() {
	if len(d.open) == 0 {
		return
	}

	p := d.open[d.draw(len(d.open))]
	p.w.Close()
	d.endPairs(nil, func(f *follower) bool { return f == p.f })

	if _, err := p.w.Next(d.t.Context()); !errors.Is(err, catalog.ErrClosed) {
		d.t.Errorf("a closed watcher says %v", err)
	}

	p.w.Close()
}

func (d *duel) endWatches() {
	serviceType, runtime := d.of(typeNames), d.of(runtimeNames)
	got := d.c.EndWatches(func(t, r string) bool { return t == serviceType && r == runtime })
	want := d.endPairs(nil, func(f *follower) bool { return f.serviceType == serviceType && f.runtime == runtime })

	if got != want {
		d.t.Errorf("ended %d watches, want %d", got, want)
	}
}

func (d *duel) wait() { <-time.After(time.Duration(1+d.draw(40)) * time.Second) }

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
