package catalog_test

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
)

// reference is what the catalogue should do, written down as plainly as
// possible: lists, loops and a log of all events.
type reference struct {
	cfg        catalog.Config
	offers     []*offer // in the order of registration
	health     map[string]catalog.HealthReport
	endpoints  map[string]string
	types      map[string]*kind
	strategies map[string]catalog.Strategy
	order      int
	history    []*kind // types that are gone, the oldest first
	generation int
	watchers   []*follower
}

type offer struct {
	reg      catalog.Registration
	order    int
	failures int
	ejected  int
	until    time.Time
	aside    bool
}

// kind is a type that somebody offers or watches.
type kind struct {
	name       string
	owner      string
	log        []logged
	generation int
	turn       int
}

type logged struct {
	state    catalog.State
	provider catalog.Registration
}

type follower struct {
	serviceType, runtime string
	kind                 *kind
	cursor               int
	fresh, resync, ended bool
}

func newReference(cfg catalog.Config) *reference {
	return &reference{
		cfg: cfg, health: map[string]catalog.HealthReport{}, endpoints: map[string]string{},
		types: map[string]*kind{}, strategies: map[string]catalog.Strategy{},
	}
}

func (r *reference) class(runtime string) catalog.State {
	switch r.health[runtime].Health {
	case catalog.HealthUnhealthy:
		return catalog.StateUnavailable
	case catalog.HealthDegraded:
		return catalog.StateDegraded
	default:
		return catalog.StateAvailable
	}
}

func (r *reference) routable(o *offer) bool {
	return r.class(o.reg.RuntimeID) != catalog.StateUnavailable
}

func (r *reference) byType(name string) []*offer {
	return r.where(func(o *offer) bool { return o.reg.Type == name })
}

func (r *reference) where(match func(*offer) bool) []*offer {
	var found []*offer

	for _, o := range r.offers {
		if match(o) {
			found = append(found, o)
		}
	}

	return found
}

// tier is the offers of a type in a class that are aside or not.
func (r *reference) tier(name string, class catalog.State, aside bool) []*offer {
	return r.where(func(o *offer) bool {
		return o.reg.Type == name && r.class(o.reg.RuntimeID) == class && o.aside == aside
	})
}

func (r *reference) kind(name string) *kind {
	if k := r.types[name]; k != nil {
		return k
	}

	k := &kind{name: name, generation: r.generation}

	if i := slices.IndexFunc(r.history, func(k *kind) bool { return k.name == name }); i >= 0 {
		k = r.history[i]
		r.history = slices.Delete(r.history, i, i+1)
		k.turn = 0
	}

	r.types[name] = k

	return k
}

// generationOf is the generation that a type has or would get.
func (r *reference) generationOf(name string) int {
	if k := r.types[name]; k != nil {
		return k.generation
	}

	for _, k := range r.history {
		if k.name == name {
			return k.generation
		}
	}

	return r.generation
}

// current is the state of a type and who should be used.
func (r *reference) current(name string) logged {
	for _, class := range []catalog.State{catalog.StateAvailable, catalog.StateDegraded} {
		if in := r.tier(name, class, false); len(in) > 0 {
			return logged{class, in[0].reg}
		}
	}

	return logged{}
}

// settle takes back those that are aside for long enough or are too many.
func (r *reference) settle(name string, now time.Time) {
	for _, class := range []catalog.State{catalog.StateAvailable, catalog.StateDegraded} {
		for {
			aside := r.tier(name, class, true)
			if len(aside) == 0 {
				break
			}

			next := slices.MinFunc(aside, func(a, b *offer) int { return cmp.Or(a.until.Compare(b.until), a.order-b.order) })
			if next.until.After(now) && len(aside) <= len(r.tier(name, class, false)) {
				break
			}

			next.aside, next.failures = false, 0
			if next.until.After(now) {
				next.until = now
			}
		}
	}
}

// finish ends a change that touched a type.
func (r *reference) finish(name string, changed bool, now time.Time) {
	k := r.types[name]
	if k == nil {
		return
	}

	r.settle(name, now)

	last := logged{}
	if len(k.log) > 0 {
		last = k.log[len(k.log)-1]
	}

	if at := r.current(name); changed || at.state != last.state || at.provider.ID != last.provider.ID {
		k.log = append(k.log, at)
	}

	left := r.byType(name)

	if !slices.ContainsFunc(left, func(o *offer) bool { return o.reg.SelfID == k.owner }) {
		k.owner = ""
		if len(left) > 0 {
			k.owner = left[0].reg.SelfID
		}
	}

	if len(left) > 0 || slices.ContainsFunc(r.watchers, func(f *follower) bool { return f.kind == k && !f.ended }) {
		return
	}

	delete(r.types, name)

	if len(k.log) == 0 {
		return
	}

	r.history = append(r.history, k)
	for len(r.history) > max(r.cfg.History, 0) {
		r.history = r.history[1:]
		r.generation++
	}
}

func (r *reference) find(match func(*offer) bool) *offer {
	if i := slices.IndexFunc(r.offers, match); i >= 0 {
		return r.offers[i]
	}

	return nil
}

func (r *reference) register(reg catalog.Registration, now time.Time) error {
	old := r.find(func(o *offer) bool { return o.reg.Type == reg.Type && o.reg.RuntimeID == reg.RuntimeID })
	same := r.find(func(o *offer) bool { return o.reg.ID == reg.ID })

	switch k := r.types[reg.Type]; {
	case same != nil && same != old:
		return catalog.ErrDuplicate
	case k != nil && k.owner != "" && k.owner != reg.SelfID && !r.cfg.AllowMultiple(reg.Type):
		return catalog.ErrConflict
	case r.find(func(o *offer) bool {
		return o.reg.RuntimeID == reg.RuntimeID && o.reg.Type != reg.Type && below(o.reg.Path, reg.Path)
	}) != nil:
		return catalog.ErrOverlap
	case old != nil:
	case len(r.offers) == r.cfg.MaxRegistrations,
		len(r.byType(reg.Type)) == r.cfg.MaxPerType,
		len(r.where(func(o *offer) bool { return o.reg.RuntimeID == reg.RuntimeID })) == r.cfg.MaxPerRuntime:
		return catalog.ErrLimit
	}

	r.kind(reg.Type)

	switch {
	case old == nil:
		r.join(&offer{reg: reg})
	case old.reg.Version == reg.Version:
		old.reg = reg
	default:
		r.leave(old)
		old.reg = reg
		r.join(old)
		r.seat(old, now)
	}

	r.finish(reg.Type, r.class(reg.RuntimeID) != catalog.StateUnavailable, now)

	return nil
}

// below reports whether one path is the other or below it, segment by segment.
func below(a, b string) bool {
	parts := func(s string) []string {
		return strings.FieldsFunc(s, func(c rune) bool { return c == '/' })
	}

	n := min(len(parts(a)), len(parts(b)))

	return a != "" && b != "" && slices.Equal(parts(a)[:n], parts(b)[:n])
}

func (r *reference) join(o *offer) {
	r.order++
	o.order = r.order
	r.offers = append(r.offers, o)
}

func (r *reference) leave(o *offer) {
	r.offers = slices.DeleteFunc(r.offers, func(x *offer) bool { return x == o })
}

func (r *reference) seat(o *offer, now time.Time) {
	o.aside = r.routable(o) && o.until.After(now)
}

// remove takes out offers and ends watches, as one change.
func (r *reference) remove(now time.Time, offers []*offer, watchers []*follower) {
	touched := map[string]bool{}

	for _, o := range offers {
		r.leave(o)
		touched[o.reg.Type] = touched[o.reg.Type] || r.routable(o)
	}

	for _, f := range watchers {
		f.ended = true
		touched[f.serviceType] = touched[f.serviceType] || false
	}

	r.watchers = slices.DeleteFunc(r.watchers, func(f *follower) bool { return f.ended })

	for _, name := range typeNames {
		if changed, ok := touched[name]; ok {
			r.finish(name, changed, now)
		}
	}
}

func (r *reference) setHealth(runtime string, report catalog.HealthReport, now time.Time) {
	before, old := r.class(runtime), r.health[runtime].Health
	r.health[runtime] = report

	if old == report.Health {
		return
	}

	for _, o := range r.where(func(o *offer) bool { return o.reg.RuntimeID == runtime }) {
		r.seat(o, now)
		r.finish(o.reg.Type, before != r.class(runtime), now)
	}
}

func (r *reference) report(name, runtime string, ok bool, now time.Time) {
	o := r.find(func(o *offer) bool { return o.reg.Type == name && o.reg.RuntimeID == runtime })
	if o == nil {
		return
	}

	if o.failures++; ok {
		o.failures = 0
	}

	class := r.class(runtime)
	out := len(r.tier(name, class, true))
	all := out + len(r.tier(name, class, false))

	if o.failures < 5 || o.aside || !r.routable(o) || 2*(out+1) > all {
		return
	}

	if now.Sub(o.until) >= 5*time.Minute {
		o.ejected = 0
	}

	o.until = now.Add(min(10*time.Second<<o.ejected, 5*time.Minute))
	o.ejected++
	o.failures = 0
	o.aside = true

	r.finish(name, false, now)
}

// candidates are those of whom Select may return one, in the order of
// registration.
func (r *reference) candidates(name string, c catalog.Constraint) []*offer {
	allowed := func(o *offer) bool { return !c.Allows(o.reg.Version) }

	for _, class := range []catalog.State{catalog.StateAvailable, catalog.StateDegraded} {
		if in := slices.DeleteFunc(r.tier(name, class, false), allowed); len(in) > 0 {
			return in
		}
	}

	return slices.DeleteFunc(r.where(func(o *offer) bool {
		return o.reg.Type == name && r.routable(o) && o.aside
	}), allowed)
}

// due takes back those whose time is over, as Select does.
func (r *reference) due(name string, now time.Time) {
	if slices.ContainsFunc(r.byType(name), func(o *offer) bool { return o.aside && !o.until.After(now) }) {
		r.finish(name, false, now)
	}
}

func (r *reference) watch(f *follower, now time.Time) error {
	mine := 0

	for _, other := range r.watchers {
		if other.runtime == f.runtime {
			mine++
		}
	}

	if len(r.watchers) == r.cfg.MaxWatches || f.runtime != "" && mine == r.cfg.MaxWatchesPerRuntime {
		return catalog.ErrLimit
	}

	f.kind = r.kind(f.serviceType)
	r.watchers = append(r.watchers, f)
	r.finish(f.serviceType, false, now)

	return nil
}

// next says what a watcher gets; nothing if ok is false.
func (r *reference) next(f *follower) (event catalog.Event, ok bool) {
	log := f.kind.log
	read := func(n int) logged {
		if n == 0 {
			return logged{}
		}

		return log[n-1]
	}

	switch {
	case f.fresh:
		f.fresh = false
		f.cursor = len(log)
		event = catalog.Event{Resync: f.resync}
	case f.cursor == len(log):
		return catalog.Event{}, false
	case len(log)-f.cursor > r.cfg.RingSize:
		event = catalog.Event{Resync: true, Missed: uint64(len(log) - f.cursor - 1)}
		f.cursor = len(log)
	default:
		f.cursor++
	}

	at := read(f.cursor)
	if at.provider.ID != "" && r.find(func(o *offer) bool { return reflect.DeepEqual(o.reg, at.provider) }) == nil {
		at.provider.Metadata = nil
	}

	event.Type, event.State, event.Provider, event.Sequence = f.serviceType, at.state, at.provider, uint64(f.cursor)

	return event, true
}
