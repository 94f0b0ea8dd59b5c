package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
)

func (d *duel) register() {
	runtime := d.draw(len(runtimeNames))
	d.regs++

	reg := catalog.Registration{
		ID: fmt.Sprint("id", d.regs), RuntimeID: runtimeNames[runtime], SelfID: fmt.Sprint("self", runtime/2),
		Type: d.of(typeNames), Version: d.of(versions), Weight: d.draw(4),
		Metadata: map[string]string{"n": fmt.Sprint(d.regs)}, RegisteredAt: time.Now(),
	}

	reg.Path = "/p/" + reg.Type
	if d.draw(8) == 0 {
		reg.Path = d.of([]string{"", "/p", "/p/", "/q/", "/p/" + reg.Type + "/"})
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
