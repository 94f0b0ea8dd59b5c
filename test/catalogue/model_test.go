package catalogue_test

import (
	"crypto/rand"
	"flag"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/semrange"
)

var (
	modelSeed = flag.Uint64("model.seed", 0, "seed of the model test of the catalogue; 0 is a random one")
	modelOps  = flag.Int("model.ops", 2000, "operations of the model test of the catalogue")
)

var (
	modelTypes       = []string{"m0", "m1", "m2", "m3"}
	modelSelfIDs     = []string{"s0", "s1", "s2"}
	modelVersions    = []string{"1.0.0", "1.9.0", "1.10.0", "2.0.0-rc.1", "2.1.0", "none"}
	modelConstraints = []string{"", "", "", "1.9.0", "2.0.0-alpha", ">=1.9, <2", "3"}
	modelPadding     = strings.Repeat("x", 4000)
)

// modelDriver does the same to a host over TLS and to the model of it, and
// compares every answer.
type modelDriver struct {
	t      *testing.T
	random *mathrand.Rand
	host   *hosttest.Host
	model  *modelHost
	calls  connectpluginv1connect.ServiceRegistryClient
	health connectpluginv1connect.PluginLifecycleClient
	greet  connectpluginv1connect.HandshakeServiceClient
	lines  []*modelLine
	ended  []*modelPlugin
	cut    []*modelWatch  // that may come back
	epochs map[int]string // as the host calls them
	done   map[string]int
	began  time.Time // the operation
}

// modelLine is a connection that watches share and that can be cut.
type modelLine struct {
	proxy    *hosttest.Proxy
	registry connectpluginv1connect.ServiceRegistryClient
}

func newModelDriver(t *testing.T, seed uint64) *modelDriver {
	t.Helper()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Logger, c.HealthProbe.Disabled = nil, true
		const much = 1 << 30
		c.Limits = connectplugin.Limits{
			HandshakesPerSecond: much, HandshakeBurst: much, ChangesPerSecond: much, ChangeBurst: much,
			RequestsPerSecond: much, RequestBurst: much, WatchBuffer: modelBuffer,
			MaxRegistrations: modelMaxRegistrations, MaxRegistrationsPerPlugin: modelMaxPerPlugin, MaxRegistrationsPerType: modelMaxPerType,
			MaxWatches: modelMaxWatches, MaxWatchesPerPlugin: modelMaxWatchesEach,
		}
	})
	client := host.Stranger(t)
	d := &modelDriver{
		t: t, random: mathrand.New(mathrand.NewPCG(seed, 4)), host: host, model: newModelHost(),
		calls:  connectpluginv1connect.NewServiceRegistryClient(client, host.URL, hosttest.Uncompressed),
		health: connectpluginv1connect.NewPluginLifecycleClient(client, host.URL, hosttest.Uncompressed),
		greet:  connectpluginv1connect.NewHandshakeServiceClient(client, host.URL, hosttest.Uncompressed),
		epochs: map[int]string{}, done: map[string]int{},
	}
	for range 3 {
		p := hosttest.NewProxy(t, host)
		d.lines = append(d.lines, &modelLine{proxy: p})
		d.connect(len(d.lines) - 1)
	}
	return d
}

// connect lets watches use a new connection: a client takes a moment to notice
// that the one that it has is broken.
func (d *modelDriver) connect(line int) {
	d.t.Helper()
	l := d.lines[line]
	l.registry = connectpluginv1connect.NewServiceRegistryClient(hosttest.SmallWindow(d.t, d.host.StrangerTLS()), l.proxy.URL, hosttest.Uncompressed)
}

// Thousands of random operations over TLS: every answer, every event that a
// watcher gets and every watcher's last state are what a plain model says. It does
// not run in parallel: it keeps a processor busy.
func TestCatalogueModel(t *testing.T) {
	seed := *modelSeed
	if seed == 0 {
		seed = mathrand.Uint64()
	}
	t.Logf("go test -run '^TestCatalogueModel$' ./test/catalogue -model.seed=%d -model.ops=%d", seed, *modelOps)
	d := newModelDriver(t, seed)
	d.setPolicy()
	for range 4 {
		d.enrol()
	}
	wheel := d.wheel()
	for i := range *modelOps {
		op := wheel[d.random.IntN(len(wheel))]
		d.began = time.Now()
		op.do()
		d.done[op.name]++
		if d.compare(); i%100 == 99 {
			d.converge()
		}
		if t.Failed() {
			t.Fatalf("operation %d, %s", i, op.name)
		}
	}
	d.finish()
	t.Logf("%v", d.done)
}

type modelOp struct {
	name   string
	weight int
	do     func()
}

func (d *modelDriver) wheel() []modelOp {
	var wheel []modelOp
	for _, op := range []modelOp{
		{"enrol", 6, d.enrol},
		{"renew", 2, d.renew},
		{"revoke", 1, d.revoke},
		{"expire", 1, d.expire},
		{"policy", 1, d.setPolicy},
		{"register", 20, d.register},
		{"unregister", 6, d.unregister},
		{"health", 14, d.reportHealth},
		{"discover", 10, d.discover},
		{"strategy", 1, d.setStrategy},
		{"watch", 6, d.watch},
		{"resume", 8, d.resume},
		{"stall", 5, d.stall},
		{"read on", 2, d.readOn},
		{"cut", 2, d.cutLine},
		{"leave", 2, d.leave},
		{"forget", 1, d.forget},
	} {
		wheel = append(wheel, slices.Repeat([]modelOp{op}, op.weight)...)
	}
	return wheel
}

func pick[T any](d *modelDriver, from []T) T { return from[d.random.IntN(len(from))] }

// plugin is one that lives or, sometimes, one that ended; nil if there is none.
func (d *modelDriver) plugin() *modelPlugin {
	if len(d.ended) > 0 && (len(d.model.plugins) == 0 || d.random.IntN(20) == 0) {
		return pick(d, d.ended)
	}
	if len(d.model.plugins) == 0 {
		return nil
	}
	return pick(d, d.model.plugins)
}

// some is a random part of all the types, most of them.
func (d *modelDriver) some() map[string]bool {
	out := map[string]bool{}
	for _, serviceType := range modelTypes {
		if d.random.IntN(8) > 0 {
			out[serviceType] = true
		}
	}
	return out
}

func trueKeys(m map[string]bool) []string {
	var out []string
	for k, v := range m {
		if v {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

// same fails the test if an answer is another than the model's.
func (d *modelDriver) same(what string, err error, want connect.Code) bool {
	d.t.Helper()
	if got := hosttest.CodeOrZero(err); got != want {
		d.t.Errorf("%s: %v, want %v", what, err, want)
	}
	d.done[fmt.Sprintf("%s: %d", what, want)]++
	return err == nil && want == 0
}

func (d *modelDriver) greeting(p *modelPlugin, req *connect.Request[connectpluginv1.HandshakeRequest]) error {
	nonce := make([]byte, 32)
	_, _ = rand.Read(nonce)
	req.Msg.ClientNonce = nonce
	for _, serviceType := range trueKeys(p.declared.provides) {
		req.Msg.Provides = append(req.Msg.Provides, &connectpluginv1.ServiceDeclaration{Type: serviceType, Version: "1.0.0"})
	}
	for _, serviceType := range trueKeys(p.declared.requires) {
		req.Msg.Requires = append(req.Msg.Requires, &connectpluginv1.ServiceDependency{Type: serviceType})
	}
	resp, err := d.greet.Handshake(d.t.Context(), req)
	if err == nil {
		p.id, p.token = resp.Msg.GetRuntimeId(), resp.Msg.GetRuntimeToken()
	}
	return err
}

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
	d.over(connect.CodeUnauthenticated, func() { d.model.end(p) })
}

// expire lets the time of the oldest token come.
func (d *modelDriver) expire() {
	if len(d.model.plugins) == 0 {
		return
	}
	if n := d.host.Expire(d.t, d.model.plugins[0].id); n != 1 {
		d.t.Errorf("%d identities expired", n)
	}
	d.over(connect.CodeUnauthenticated, func() { d.model.end(d.model.plugins[0]) })
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
	if len(d.model.offers) > 0 && d.random.IntN(8) > 0 {
		o := pick(d, d.model.offers)
		if id = o.id; o.plugin == p || d.random.IntN(3) > 0 {
			p, want, mine = o.plugin, 0, []*modelOffer{o}
		}
	}
	if !d.model.lives(p) {
		want = connect.CodeUnauthenticated
	}
	_, err := d.calls.UnregisterService(d.t.Context(), hosttest.WithCredentials(&connectpluginv1.UnregisterServiceRequest{RegistrationId: id}, p.id, p.token))
	if d.same("unregister", err, want) {
		d.model.remove(mine)
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
	case !allowed, len(candidates) == 0:
		want = connect.CodeNotFound
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

// compare compares what the host says in its own process.
func (d *modelDriver) compare() {
	d.t.Helper()
	for _, serviceType := range modelTypes {
		var got, want []string
		for _, p := range d.host.Registry().GetAllProviders(serviceType) {
			got = append(got, p.RegistrationID+" "+p.RuntimeID+" "+p.Version)
		}
		for _, o := range d.model.byType(serviceType) {
			want = append(want, o.id+" "+o.plugin.id+" "+o.vers)
		}
		if !slices.Equal(got, want) {
			d.t.Errorf("%s is provided by %q, want %q", serviceType, got, want)
		}
		has := len(d.model.candidates(serviceType, semrange.Any)) > 0
		if d.host.Registry().HasService(serviceType, "") != has {
			d.t.Errorf("%s can be used: %t", serviceType, !has)
		}
	}
	got := d.host.Usage()
	got.Calls = 0 // a call ends a little after its watch
	if want := d.model.usage(); got != want {
		d.t.Errorf("the host holds %+v, want %+v", got, want)
	}
	for _, w := range d.model.watches {
		if wrong := w.check(d); wrong != "" {
			d.t.Error(wrong)
		}
		if w.over() {
			d.t.Errorf("watch of %s by %s ended: %v", w.serviceType, w.plugin.id, w.err)
		}
	}
}

// checkCoverage fails if the operations did not reach what they are meant to.
func (d *modelDriver) checkCoverage() {
	for what, least := range map[string]int{
		"resync": 10, "missed": 5, "cut": 1, "leave": 1, "forget": 1, "expire": 1, "policy": 1,
		"register: 0": 50, "unregister: 0": 20, "discover: 0": 20, "watch: 0": 20, "resume: 0": 20,
		fmt.Sprintf("register: %d", connect.CodePermissionDenied):  5,
		fmt.Sprintf("register: %d", connect.CodeResourceExhausted): 1,
		fmt.Sprintf("watch: %d", connect.CodeNotFound):             1,
		fmt.Sprintf("health: %d", connect.CodeUnauthenticated):     1,
	} {
		if d.done[what] < least {
			d.t.Errorf("%s: %d times, want at least %d: %v", what, d.done[what], least, d.done)
		}
	}
}

// eventually waits for what the host does in goroutines of its own.
func (d *modelDriver) eventually(what string, cond func() bool) {
	d.t.Helper()
	for deadline := time.Now().Add(hosttest.Wait); !cond(); time.Sleep(200 * time.Microsecond) {
		if time.Now().After(deadline) {
			d.t.Fatalf("never happened: %s", what)
		}
	}
}
