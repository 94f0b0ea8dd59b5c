package catalogue_test

import (
	"maps"
	"slices"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/semrange"
)

// The bounds of the host that the model test drives: small, so that all are met.
const (
	modelMaxRegistrations = 7
	modelMaxPerPlugin     = 2
	modelMaxPerType       = 4
	modelMaxWatches       = 12
	modelMaxWatchesEach   = 4
	modelBuffer           = 4
)

// modelHost is what a host should do, written down as plainly as possible: lists,
// loops and a log of every event.
type modelHost struct {
	plugins  []*modelPlugin // that live, by age of their tokens
	policy   map[string]*modelRights
	multiple map[string]bool
	offers   []*modelOffer // in the order of registration
	withheld []*modelOffer // what policy took away, and gives back
	accepted int           // registrations so far
	strategy map[string]int
	kinds    map[string]*modelKind
	history  []*modelKind // types that are gone, the oldest first
	gone     int          // how many of them were forgotten
	watches  []*modelWatch
}

// modelRights is what policy, or a plugin's declaration, says.
type modelRights struct{ provides, requires map[string]bool }

type modelPlugin struct {
	selfID, id, token string
	declared          modelRights
	health            connectpluginv1.HealthState
}

type modelOffer struct {
	plugin                *modelPlugin
	id, serviceType, vers string
	padded                bool
	age                   int // how many registrations were accepted before
}

// modelKind is a type from when somebody offers or watches it until it is
// forgotten.
type modelKind struct {
	name  string
	epoch int // how many types were forgotten when it began
	log   []modelEvent
	turn  int
}

// modelEvent is an event of the log. One that is loose is one of several that
// happened at once, in whatever order.
type modelEvent struct {
	state    connectpluginv1.ServiceState
	provider *modelOffer
	loose    bool
}

func newModelHost() *modelHost {
	return &modelHost{
		policy: map[string]*modelRights{}, multiple: map[string]bool{},
		strategy: map[string]int{}, kinds: map[string]*modelKind{},
	}
}

func (h *modelHost) mayProvide(p *modelPlugin, serviceType string) bool {
	r := h.policy[p.selfID]
	return r != nil && r.provides[serviceType] && p.declared.provides[serviceType]
}

func (h *modelHost) mayRequire(p *modelPlugin, serviceType string) bool {
	r := h.policy[p.selfID]
	return r != nil && r.requires[serviceType] && p.declared.requires[serviceType]
}

func (h *modelHost) lives(p *modelPlugin) bool { return slices.Contains(h.plugins, p) }

func (h *modelHost) where(match func(*modelOffer) bool) []*modelOffer {
	var found []*modelOffer
	for _, o := range h.offers {
		if match(o) {
			found = append(found, o)
		}
	}
	return found
}

func (h *modelHost) byType(serviceType string) []*modelOffer {
	return h.where(func(o *modelOffer) bool { return o.serviceType == serviceType })
}

func (o *modelOffer) class() connectpluginv1.ServiceState {
	switch o.plugin.health {
	case connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY:
		return hosttest.Unavailable
	case connectpluginv1.HealthState_HEALTH_STATE_DEGRADED:
		return hosttest.Degraded
	case connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, connectpluginv1.HealthState_HEALTH_STATE_UNSPECIFIED:
	}
	return hosttest.Available
}

// candidates are those of whom a selection may return one.
func (h *modelHost) candidates(serviceType string, c semrange.Constraint) []*modelOffer {
	for _, class := range []connectpluginv1.ServiceState{hosttest.Available, hosttest.Degraded} {
		in := h.where(func(o *modelOffer) bool {
			return o.serviceType == serviceType && o.class() == class && c.Allows(o.vers)
		})
		if len(in) > 0 {
			return in
		}
	}
	return nil
}

// outdated reports whether a type is offered, and in no version that will do.
func (h *modelHost) outdated(serviceType string, c semrange.Constraint) bool {
	offers := h.byType(serviceType)
	return len(offers) > 0 && !slices.ContainsFunc(offers, func(o *modelOffer) bool { return c.Allows(o.vers) })
}

func (h *modelHost) current(serviceType string) modelEvent {
	if in := h.candidates(serviceType, semrange.Constraint{}); len(in) > 0 {
		return modelEvent{state: in[0].class(), provider: in[0]}
	}
	return modelEvent{state: hosttest.Unavailable}
}

// kind returns the record of a type that is used now, if need be a new one.
func (h *modelHost) kind(serviceType string) *modelKind {
	if k := h.kinds[serviceType]; k != nil {
		return k
	}
	k := &modelKind{name: serviceType, epoch: h.gone}
	if i := slices.IndexFunc(h.history, func(k *modelKind) bool { return k.name == serviceType }); i >= 0 {
		k = h.history[i]
		h.history = slices.Delete(h.history, i, i+1)
		k.turn = 0
	}
	h.kinds[serviceType] = k
	return k
}

// finish ends a change of a type: there is an event if the providers that can be
// called are others or if the one to use is, and what nobody uses goes.
func (h *modelHost) finish(serviceType string, changed bool) {
	k := h.kinds[serviceType]
	if k == nil {
		return
	}
	last := modelEvent{state: hosttest.Unavailable}
	if len(k.log) > 0 {
		last = k.log[len(k.log)-1]
	}
	if now := h.current(serviceType); changed || now.state != last.state || now.provider != last.provider {
		k.log = append(k.log, now)
	}
	used := len(h.byType(serviceType)) > 0 || slices.ContainsFunc(h.watches, func(w *modelWatch) bool { return w.kind == k })
	if used {
		return
	}
	delete(h.kinds, serviceType)
	if len(k.log) == 0 {
		return
	}
	h.history = append(h.history, k)
	for len(h.history) > catalog.DefaultHistory {
		h.history = h.history[1:]
		h.gone++
	}
}

// register says with which code a registration is answered, and makes it.
func (h *modelHost) register(next *modelOffer) connect.Code {
	p := next.plugin
	old := slices.IndexFunc(h.offers, func(o *modelOffer) bool { return o.plugin == p && o.serviceType == next.serviceType })
	foreign := slices.ContainsFunc(h.byType(next.serviceType), func(o *modelOffer) bool { return o.plugin.selfID != p.selfID })
	switch {
	case !h.lives(p):
		return connect.CodeUnauthenticated
	case next.vers == "none":
		return connect.CodeInvalidArgument
	case !h.mayProvide(p, next.serviceType):
		return connect.CodePermissionDenied
	case foreign && !h.multiple[next.serviceType]:
		return connect.CodeAlreadyExists
	case old < 0 && h.isFull(next):
		return connect.CodeResourceExhausted
	}
	h.accepted++
	next.age = h.accepted
	h.forget(func(o *modelOffer) bool { return o.plugin == p && o.serviceType == next.serviceType })
	h.kind(next.serviceType)
	switch {
	case old < 0:
		h.offers = append(h.offers, next)
	case h.offers[old].vers == next.vers:
		h.offers[old] = next
	default:
		h.offers = append(slices.Delete(h.offers, old, old+1), next)
	}
	h.finish(next.serviceType, next.class() != hosttest.Unavailable)
	return 0
}

// forget has what is withheld never come back.
func (h *modelHost) forget(match func(*modelOffer) bool) {
	h.withheld = slices.DeleteFunc(h.withheld, match)
}

// withhold takes offers out, and keeps of each plugin as many as it may have for later.
func (h *modelHost) withhold(offers []*modelOffer) {
	h.remove(offers)
	for _, o := range byAge(offers) {
		kept := 0
		for _, other := range h.withheld {
			if other.plugin == o.plugin {
				kept++
			}
		}
		if kept < modelMaxPerPlugin {
			h.withheld = append(h.withheld, o)
		}
	}
}

// giveBack offers again what is withheld, may be provided, and finds room.
func (h *modelHost) giveBack() {
	for _, o := range byAge(h.withheld) {
		foreign := slices.ContainsFunc(h.byType(o.serviceType), func(x *modelOffer) bool { return x.plugin.selfID != o.plugin.selfID })
		if !h.mayProvide(o.plugin, o.serviceType) || foreign && !h.multiple[o.serviceType] || h.isFull(o) {
			continue
		}
		h.forget(func(x *modelOffer) bool { return x == o })
		h.kind(o.serviceType)
		h.offers = append(h.offers, o)
		h.finish(o.serviceType, o.class() != hosttest.Unavailable)
	}
}

func byAge(offers []*modelOffer) []*modelOffer {
	return slices.SortedFunc(slices.Values(offers), func(a, b *modelOffer) int { return a.age - b.age })
}

// isFull reports whether one more offer finds no room.
func (h *modelHost) isFull(o *modelOffer) bool {
	return len(h.offers) == modelMaxRegistrations || len(h.byType(o.serviceType)) == modelMaxPerType ||
		len(h.where(func(x *modelOffer) bool { return x.plugin == o.plugin })) == modelMaxPerPlugin
}

// remove takes offers out, as one change.
func (h *modelHost) remove(offers []*modelOffer) {
	changed := map[string]bool{}
	for _, o := range offers {
		h.offers = slices.DeleteFunc(h.offers, func(x *modelOffer) bool { return x == o })
		changed[o.serviceType] = changed[o.serviceType] || o.class() != hosttest.Unavailable
	}
	for _, serviceType := range modelTypes {
		if c, touched := changed[serviceType]; touched {
			h.finish(serviceType, c)
		}
	}
}

func (h *modelHost) setHealth(p *modelPlugin, state connectpluginv1.HealthState) {
	mine := h.where(func(o *modelOffer) bool { return o.plugin == p })
	before := make([]connectpluginv1.ServiceState, 0, len(mine))
	for _, o := range mine {
		before = append(before, o.class())
	}
	p.health = state
	for i, o := range mine {
		h.finish(o.serviceType, before[i] != o.class())
	}
}

// end ends identities, in whatever order, with all that they have.
func (h *modelHost) end(plugins ...*modelPlugin) {
	from := map[*modelKind]int{}
	for _, k := range h.kinds {
		from[k] = len(k.log)
	}
	for _, p := range plugins {
		h.plugins = slices.DeleteFunc(h.plugins, func(x *modelPlugin) bool { return x == p })
		h.endWatches(func(w *modelWatch) bool { return w.plugin == p })
		h.remove(h.where(func(o *modelOffer) bool { return o.plugin == p }))
		h.forget(func(o *modelOffer) bool { return o.plugin == p })
	}
	for k, n := range from {
		for i := n; i < len(k.log)-1; i++ {
			k.log[i].loose = true
		}
	}
}

// endWatches takes watches out of the books.
func (h *modelHost) endWatches(match func(*modelWatch) bool) {
	var ended []*modelWatch
	h.watches = slices.DeleteFunc(h.watches, func(w *modelWatch) bool {
		if match(w) {
			ended = append(ended, w)
			return true
		}
		return false
	})
	for _, w := range ended {
		h.finish(w.serviceType, false)
	}
}

// SetPolicy replaces the policy, takes back what the new one does not allow, and gives back what it does.
func (h *modelHost) setPolicy(policy map[string]*modelRights, multiple map[string]bool) {
	before := h.multiple
	h.policy, h.multiple = policy, multiple
	h.end(slices.DeleteFunc(slices.Clone(h.plugins), func(p *modelPlugin) bool { return policy[p.selfID] != nil })...)
	offered := map[string]bool{}
	for _, o := range h.offers {
		offered[o.serviceType] = true
	}
	h.withhold(h.where(func(o *modelOffer) bool { return !h.mayProvide(o.plugin, o.serviceType) }))
	for _, serviceType := range slices.Sorted(maps.Keys(offered)) {
		if regs := h.byType(serviceType); len(regs) > 0 && before[serviceType] && !multiple[serviceType] {
			owner := regs[0].plugin.selfID
			h.withhold(slices.DeleteFunc(regs, func(o *modelOffer) bool { return o.plugin.selfID == owner }))
		}
	}
	h.giveBack()
	h.endWatches(func(w *modelWatch) bool { return !h.mayRequire(w.plugin, w.serviceType) })
}

// UseUp is a type that is offered and withdrawn.
func (h *modelHost) useUp(serviceType string) {
	k := h.kind(serviceType)
	k.log = append(k.log, modelEvent{loose: true})
	h.finish(serviceType, true)
}

// stats counts what the catalogue should hold.
func (h *modelHost) usage() connectplugin.Usage {
	runtimes := map[*modelPlugin]bool{}
	for _, o := range h.offers {
		runtimes[o.plugin] = true
	}
	for _, w := range h.watches {
		runtimes[w.plugin] = true
	}
	for _, p := range h.plugins {
		if p.health != 0 {
			runtimes[p] = true
		}
	}
	return connectplugin.Usage{
		Identities: len(h.plugins), Plugins: len(runtimes), Watches: len(h.watches),
		Registrations: len(h.offers), ServiceTypes: len(h.kinds), RememberedTypes: len(h.history),
	}
}
