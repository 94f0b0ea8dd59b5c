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
			WatchEventsPerSecond: 1e6, WatchEventBurst: 1e6,
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
		fmt.Sprintf("register: %d", connect.CodePermissionDenied):  1,
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
