package catalogue_test

import (
	"fmt"
	"slices"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/semrange"
)

func (d *modelDriver) enrol() {
	if len(d.model.plugins) >= 8 {
		return
	}
	p := &modelPlugin{selfID: pick(d, modelSelfIDs), declared: modelRights{d.some(), d.some()}}
	want := connect.Code(0)
	if d.model.policy[p.selfID] == nil {
		want = connect.CodeUnauthenticated
	}
	if d.same("enrol", d.greeting(p, connect.NewRequest(hosttest.OldRequest(p.selfID))), want) {
		d.model.plugins = append(d.model.plugins, p)
	}
}

// renew makes the token, and so the identity, the youngest.
func (d *modelDriver) renew() {
	if len(d.model.plugins) == 0 {
		return
	}
	p := pick(d, d.model.plugins)
	before := p.id
	if d.same("renew", d.greeting(p, hosttest.WithCredentials(hosttest.OldRequest(p.selfID), p.id, p.token)), 0) && p.id != before {
		d.t.Errorf("renewed as %s instead of %s", p.id, before)
	}
	d.model.plugins = append(slices.DeleteFunc(d.model.plugins, func(x *modelPlugin) bool { return x == p }), p)
}

func (d *modelDriver) revoke() {
	p := d.plugin()
	if p == nil {
		return
	}
	if got := d.host.Revoke(p.id); got != d.model.lives(p) {
		d.t.Errorf("revoke: %t", got)
	}
	d.over(connect.CodeUnauthenticated, func() { d.model.end(p); d.model.giveBack() })
}

// expire lets the time of the oldest token come.
func (d *modelDriver) expire() {
	if len(d.model.plugins) == 0 {
		return
	}
	if n := d.host.Expire(d.t, d.model.plugins[0].id); n != 1 {
		d.t.Errorf("%d identities expired", n)
	}
	d.over(connect.CodeUnauthenticated, func() { d.model.end(d.model.plugins[0]); d.model.giveBack() })
}

func (d *modelDriver) setPolicy() {
	policy, rules := map[string]*modelRights{}, &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{}}
	for _, selfID := range modelSelfIDs {
		if d.random.IntN(8) == 0 {
			continue
		}
		r := &modelRights{d.some(), d.some()}
		policy[selfID] = r
		rules.Plugins[selfID] = connectplugin.PluginPolicy{AllowUnproven: true, Provides: trueKeys(r.provides), Requires: trueKeys(r.requires)}
	}
	multiple := d.some()
	rules.AllowMultiple = trueKeys(multiple)
	if len(d.model.withheld) > 0 { // whether a watch ends before something is given back, or after, is open
		ends := func(w *modelWatch) bool {
			return policy[w.plugin.selfID] == nil || !policy[w.plugin.selfID].requires[w.serviceType]
		}
		for _, w := range d.model.watches {
			if ends(w) {
				w.cancel()
			}
		}
		d.lose(ends)
	}
	for _, w := range d.model.watches {
		w.stall(false) // the host would wait for a moment before it cuts one off
	}
	hosttest.SetPolicy(d.t, d.host, rules)
	d.over(connect.CodeNotFound, func() { d.model.setPolicy(policy, multiple) })
}

func (d *modelDriver) register() {
	p := d.plugin()
	if p == nil {
		return
	}
	o := &modelOffer{plugin: p, serviceType: pick(d, modelTypes), vers: pick(d, modelVersions), padded: d.random.IntN(2) == 0}
	resp, err := d.calls.RegisterService(d.t.Context(), hosttest.WithCredentials(&connectpluginv1.RegisterServiceRequest{
		ServiceType: o.serviceType, Version: o.vers, Metadata: o.metadata(),
	}, p.id, p.token))
	if d.same("register", err, d.model.register(o)) {
		o.id = resp.Msg.GetRegistrationId()
	}
}

func (d *modelDriver) unregister() {
	p := d.plugin()
	if p == nil {
		return
	}
	id, want := "reg-made-up", connect.CodeNotFound
	var mine []*modelOffer
	if all := slices.Concat(d.model.offers, d.model.withheld); len(all) > 0 && d.random.IntN(8) > 0 {
		o := pick(d, all)
		if id = o.id; o.plugin == p || d.random.IntN(3) > 0 {
			p, want, mine = o.plugin, 0, []*modelOffer{o}
		}
	}
	if !d.model.lives(p) {
		want = connect.CodeUnauthenticated
	}
	_, err := d.calls.UnregisterService(d.t.Context(), hosttest.WithCredentials(&connectpluginv1.UnregisterServiceRequest{RegistrationId: id}, p.id, p.token))
	if d.same("unregister", err, want) && len(mine) > 0 {
		d.model.remove(d.model.where(func(o *modelOffer) bool { return o == mine[0] }))
		d.model.forget(func(o *modelOffer) bool { return o == mine[0] })
		d.model.giveBack()
	}
}

func (d *modelDriver) reportHealth() {
	p := d.plugin()
	if p == nil {
		return
	}
	state, want := connectpluginv1.HealthState(1+d.random.IntN(3)), connect.Code(0)
	if !d.model.lives(p) {
		want = connect.CodeUnauthenticated
	}
	_, err := d.health.ReportHealth(d.t.Context(), hosttest.WithCredentials(&connectpluginv1.ReportHealthRequest{State: state}, p.id, p.token))
	if d.same("health", err, want) {
		d.model.setHealth(p, state)
	}
}

func (d *modelDriver) setStrategy() {
	serviceType, strategy := pick(d, modelTypes), d.random.IntN(4)
	d.host.Registry().SetSelectionStrategy(serviceType, connectplugin.SelectionStrategy(strategy))
	d.model.strategy[serviceType] = strategy
}

func (d *modelDriver) discover() {
	p := d.plugin()
	if p == nil {
		return
	}
	serviceType, text := pick(d, modelTypes), pick(d, modelConstraints)
	constraint, err := semrange.ParseConstraint(text)
	if err != nil {
		d.t.Fatal(err)
	}
	candidates, want := d.model.candidates(serviceType, constraint), connect.Code(0)
	allowed := d.model.lives(p) && d.model.mayRequire(p, serviceType)
	switch {
	case !d.model.lives(p):
		want = connect.CodeUnauthenticated
	case !allowed, len(candidates) == 0 && d.model.outdated(serviceType, constraint):
		want = connect.CodeNotFound
	case len(candidates) == 0:
		want = connect.CodeUnavailable
	}
	resp, err := d.calls.DiscoverService(d.t.Context(), hosttest.WithCredentials(&connectpluginv1.DiscoverServiceRequest{ServiceType: serviceType, MinVersion: text}, p.id, p.token))
	if !d.same("discover", err, want) {
		return
	}
	switch k := d.model.kinds[serviceType]; d.model.strategy[serviceType] {
	case 0:
		candidates = candidates[:1]
	case 1:
		if text == "" {
			i := k.turn % len(candidates)
			candidates = candidates[i : i+1]
		}
		k.turn++
	}
	got := resp.Msg.GetEndpoint()
	i := slices.IndexFunc(candidates, func(o *modelOffer) bool { return o.plugin.id == got.GetProviderId() })
	if i < 0 || candidates[i].compare(got, true) != "" || resp.Msg.GetSingleProvider() != (len(d.model.byType(serviceType)) == 1) {
		d.t.Errorf("discover %s %q: %v, want one of %d", serviceType, text, resp.Msg, len(candidates))
	}
}

// forget uses so many types that the events of those that nobody uses are
// forgotten.
func (d *modelDriver) forget() {
	if d.random.IntN(2) > 0 {
		return
	}
	for len(d.model.offers) == modelMaxRegistrations {
		d.unregister()
	}
	for i := range catalog.DefaultHistory + 1 {
		name := fmt.Sprintf("other-%d", i)
		hosttest.UseUp(d.t, d.host, name)
		d.model.useUp(name)
	}
}

// knowEpoch says what is wrong about what the host calls an epoch.
func (d *modelDriver) knowEpoch(epoch int, name string) string {
	if known, ok := d.epochs[epoch]; ok && known != name || name == "" {
		return fmt.Sprintf("has another epoch than %q", known)
	}
	for other, known := range d.epochs {
		if other != epoch && known == name {
			return "has the epoch of another time"
		}
	}
	d.epochs[epoch] = name
	return ""
}
