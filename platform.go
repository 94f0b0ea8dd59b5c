package connectplugin

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/masegraye/connect-plugin-go/internal/backoff"
	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/depgraph"
	"github.com/masegraye/connect-plugin-go/internal/launches"
	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/semrange"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// A launched plugin is known by three owners and nobody else: its process by an [instance],
// from before it starts until it was reaped; what it offers by the catalogue; who it is by
// the token store, which also carries the launch that it was issued to.
//
// The path of a launch: spec -> verified program -> certificate and launch in the hub's book
// -> process, which reads both from its lifeline -> handshake over TLS, which finds the launch
// by the certificate and so the self id -> registration, kept back while another instance is
// in service -> health -> asked once over the very connections that calls take -> in service.
// The way back is the end of the process: it closes the launch, which revokes the identity,
// which ends all that the host keeps for it.

// Platform knows the plugins of a host, however they came: launched, adopted or enrolled by
// themselves. It is safe for concurrent use.
type Platform struct {
	// Fixed at creation.
	registry  *ServiceRegistry
	lifecycle *LifecycleServer
	router    *ServiceRouter
	launcher  *PluginLauncher // the host's; nil for a platform of the user's own
	life      context.Context //nolint:containedctx // ends with the platform, which owns the goroutines
	end       context.CancelFunc

	tasks   sync.WaitGroup
	looking backoff.Spaced // looks for circles

	mu        sync.Mutex
	closed    bool
	nodes     map[string]depgraph.Node       // what AddToDependencyGraph said, by runtime id
	adopted   map[string]*adoption           // by runtime id
	replacing map[string]struct{}            // runtime ids of those that others are taking the place of
	adopting  map[catalog.Site]chan struct{} // by endpoint; closed when that is over
	owners    []*PluginLauncher
	told      []string // circles that were warned of and last
}

// NewPlatform makes a platform of the services of one host. Nil services are made. A host
// has one already: see [Host.Platform].
func NewPlatform(registry *ServiceRegistry, lifecycle *LifecycleServer, router *ServiceRouter) *Platform {
	if router == nil {
		if registry == nil {
			registry = NewServiceRegistry(lifecycle)
		}
		router = NewServiceRouter(nil, registry, lifecycle)
	}
	mustBeMade("NewPlatform: the router", router.handshake != nil, "NewServiceRouter")
	p := &Platform{
		registry: cmp.Or(registry, router.registry), lifecycle: cmp.Or(lifecycle, router.lifecycle), router: router,
		nodes: map[string]depgraph.Node{}, adopted: map[string]*adoption{}, replacing: map[string]struct{}{},
		adopting: map[catalog.Site]chan struct{}{},
		looking:  backoff.Spaced{Least: circleWait, Times: circleRest},
	}
	p.life, p.end = context.WithCancel(context.Background())
	lacks := p.lookForCircles
	p.hub().lacks.Store(&lacks)
	p.hub().store.Subscribe(func(e tokenstore.End) { p.forget(e.Identity.RuntimeID()) })
	return p
}

// Registry returns the platform's service registry.
func (p *Platform) Registry() *ServiceRegistry { return p.made().registry }

// Lifecycle returns the platform's lifecycle service.
func (p *Platform) Lifecycle() *LifecycleServer { return p.made().lifecycle }

// Router returns the platform's router.
func (p *Platform) Router() *ServiceRouter { return p.made().router }

// AddToDependencyGraph says what a plugin provides and requires, in place of what is known of
// it otherwise. It is forgotten when the plugin's identity ends.
func (p *Platform) AddToDependencyGraph(runtimeID string, selfID string, provides []ServiceDeclaration, requires []ServiceDependency) {
	n := graphNode(runtimeID, selfID, provides, requires)
	p.made().mu.Lock()
	defer p.mu.Unlock()
	p.nodes[runtimeID] = n
}

// GetImpact tells what the end of a plugin would bring down: the plugins and services that
// need it now, directly or through others, and have nobody else. The result names the target
// plugin, those affected by runtime id, and the services that nobody provides any more.
func (p *Platform) GetImpact(runtimeID string) *depgraph.ImpactAnalysis {
	return p.made().graph().Impact(runtimeID)
}

// GetStartupOrder returns the runtime ids of all plugins, each after those that it requires.
// The error names what is missing or goes round in a circle.
func (p *Platform) GetStartupOrder() ([]string, error) {
	order, err := p.made().graph().StartupOrder()
	if err != nil {
		return nil, fmt.Errorf("startup order: %w", err)
	}
	return order, nil
}

// spare is an error where an instance that is to take the place of another would leave a plugin without what it cannot start
// without: only the old one provides that. Those that start without it, or are not connected any more, are warned of.
func (p *Platform) spare(l *launches.Launch, old string) error {
	had := p.registry.catalog.ByRuntime(old)
	var needy, others []string
	p.hub().store.Each(func(id *tokenstore.Identity) bool {
		if id.RuntimeID() == old || id == l.Current() {
			return true
		}
		for _, d := range declared(id).dependencies {
			if !p.loses(l, old, had, d) || !p.hub().mayRequire(id, d.Type) {
				continue
			}
			line := fmt.Sprintf("%q requires %s", clipped(id.SelfID()), d.text())
			switch {
			case !d.RequiredForStartup:
				others = append(others, line)
			case id.Met() && !id.Attached() && !id.Busy(): // its process may be gone, and others not know yet
				others = append(others, line+" for its start, and has no connection open")
			default:
				needy = append(needy, line)
			}
		}
		return true
	})
	if len(needy) > 0 {
		return fmt.Errorf("it provides nothing that will do for others, as the old instance alone does: %s for its start (RequiredForStartup): "+
			"have them accept both versions first, such as %q, or another plugin provide the old one beside it; "+
			"to change it all the same, stop it and start it again", firstOf(sorted(needy)), "^1 || ^2")
	}
	if len(others) > 0 {
		p.log().Warn("a replacement provides nothing any more that will do for others", keyPlugin, l.SelfID, keyReason, firstOf(sorted(others)))
	}
	return nil
}

// loses reports whether of all that is provided only an old instance meets a requirement, and the new one does not.
func (p *Platform) loses(l *launches.Launch, old string, had []catalog.Registration, d ServiceDependency) bool {
	if !slices.ContainsFunc(had, func(reg catalog.Registration) bool { return reg.Type == d.Type }) {
		return false
	}
	constraint, err := semrange.ParseConstraint(d.MinVersion)
	will := func(reg catalog.Registration) bool { return reg.Type == d.Type && constraint.Allows(reg.Version) }
	if err != nil || !slices.ContainsFunc(had, will) || l.Offers(d.Type, constraint.Allows) {
		return false
	}
	return !slices.ContainsFunc(p.registry.catalog.ByType(d.Type), func(reg catalog.Registration) bool {
		return reg.RuntimeID != old && will(reg)
	})
}

// firstOf joins some lines for an error.
func firstOf(lines []string) string {
	const most = 8
	lines = slices.Compact(lines)
	if len(lines) > most {
		lines = append(slices.Clone(lines[:most]), fmt.Sprintf("and %d more", len(lines)-most))
	}
	return strings.Join(lines, "; ")
}

// made returns a platform that NewPlatform made.
func (p *Platform) made() *Platform {
	mustBeMade("the Platform", p != nil && p.router != nil, "NewPlatform")
	return p
}

func (p *Platform) hub() *hub { return p.router.handshake.hub }

func (p *Platform) log() *slog.Logger { return p.hub().log() }

var errNoAddress = errors.New("the host does not serve yet, so that no plugin could reach it: call Serve before, or set HostURL, " +
	"as a host needs whose Host.Handler is on a server of your own")

// hostURL returns the URL at which a plugin reaches the host.
func (p *Platform) hostURL(configured string) (string, error) {
	if configured != "" {
		u, prefix, err := parseClientURL(configured, p.hub().settings().allowInsecure)
		if err != nil {
			return "", fieldError("HostURL", "%v", err)
		}
		return u.String() + prefix, nil
	}
	if at := p.hub().address.Load(); at != nil {
		return *at, nil
	}
	return "", errNoAddress
}

// awaitHostURL is hostURL; where none is configured it waits until the host serves, or ctx ends.
func (p *Platform) awaitHostURL(ctx context.Context, configured string) (string, error) {
	if configured != "" {
		return p.hostURL(configured)
	}
	select {
	case <-p.hub().serves:
		return p.hostURL("")
	default:
	}
	p.log().Info("waiting until the host serves, before a plugin can reach it")
	select {
	case <-p.hub().serves:
		return p.hostURL("")
	case <-p.life.Done():
		return "", ErrHostClosed
	case <-ctx.Done():
		return "", fmt.Errorf("%w: %w", errNoAddress, ctx.Err())
	}
}

// graph draws the dependencies of the plugins that live now, in the order in which they came.
func (p *Platform) graph() *depgraph.Graph {
	var ids []*tokenstore.Identity
	p.hub().store.Each(func(id *tokenstore.Identity) bool {
		ids = append(ids, id)
		return true
	})
	slices.SortFunc(ids, func(a, b *tokenstore.Identity) int {
		return cmp.Or(a.IssuedAt().Compare(b.IssuedAt()), cmp.Compare(a.RuntimeID(), b.RuntimeID()))
	})
	p.mu.Lock()
	said := maps.Clone(p.nodes)
	p.mu.Unlock()
	g := &depgraph.Graph{}
	for _, id := range ids {
		n, ok := said[id.RuntimeID()]
		if delete(said, id.RuntimeID()); !ok {
			n = p.liveNode(id)
		}
		g.Add(n)
	}
	for _, runtimeID := range slices.Sorted(maps.Keys(said)) {
		g.Add(said[runtimeID])
	}
	return g
}

// liveNode draws one plugin by what it registered and declared.
func (p *Platform) liveNode(id *tokenstore.Identity) depgraph.Node {
	var provides []ServiceDeclaration
	known := map[string]bool{}
	for _, reg := range p.registry.catalog.ByRuntime(id.RuntimeID()) {
		provides, known[reg.Type] = append(provides, ServiceDeclaration{Type: reg.Type, Version: reg.Version}), true
	}
	d := declared(id)
	for _, name := range d.provides.List() {
		if !known[name] && name != policy.Any {
			provides = append(provides, ServiceDeclaration{Type: name})
		}
	}
	slices.SortFunc(provides, func(a, b ServiceDeclaration) int { return cmp.Compare(a.Type, b.Type) })
	return graphNode(id.RuntimeID(), id.SelfID(), provides, d.dependencies)
}

func graphNode(runtimeID, selfID string, provides []ServiceDeclaration, requires []ServiceDependency) depgraph.Node {
	n := depgraph.Node{RuntimeID: runtimeID, SelfID: selfID}
	for _, d := range provides {
		n.Provides = append(n.Provides, depgraph.Provision{Type: d.Type, Version: d.Version})
	}
	for _, d := range requires {
		n.Requires = append(n.Requires, depgraph.Requirement{Type: d.Type, MinVersion: d.MinVersion, Required: d.RequiredForStartup})
	}
	return n
}

// task runs f beside, until the platform is closed, which waits for it. It reports false
// where it is closed already.
func (p *Platform) task(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.tasks.Go(f)
	return true
}

var errBeingReplaced = errors.New("another plugin is taking its place already")

// claim has one caller at a time replace a plugin: two would each put one in its place. Whoever
// has it gives it back.
func (p *Platform) claim(runtimeID string) (release func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, taken := p.replacing[runtimeID]; taken {
		return nil, errBeingReplaced
	}
	p.replacing[runtimeID] = struct{}{}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.replacing, runtimeID)
	}, nil
}

// turnAt waits until no other adoption of what is at an endpoint is under way: a plugin has the identity that it was given last.
func (p *Platform) turnAt(ctx context.Context, endpoint string) (over func(), err error) {
	site, err := catalog.ParseSite(endpoint)
	if err != nil {
		return func() {}, nil //nolint:nilerr // whoever adopts it says what is wrong with it
	}
	for {
		p.mu.Lock()
		other, taken := p.adopting[site]
		own := make(chan struct{})
		if !taken {
			p.adopting[site] = own
		}
		p.mu.Unlock()
		if !taken {
			return sync.OnceFunc(func() {
				p.mu.Lock()
				delete(p.adopting, site)
				p.mu.Unlock()
				close(own)
			}), nil
		}
		select {
		case <-other:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for another adoption at %s: %w", endpoint, ctx.Err())
		}
	}
}

// adoptWithin bounds an adoption.
func adoptWithin(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, adoptTimeout)
}

// retire drains a plugin that gets no new calls, and ends its identity.
func (p *Platform) retire(ctx context.Context, runtimeID, reason string) error {
	ctx, cancel := context.WithTimeout(ctx, removeGrace)
	defer cancel()
	_ = p.askToStop(ctx, runtimeID, removeGrace, reason, false) // one that cannot be asked is cut off in the end
	err := p.router.drainProvider(ctx, runtimeID)
	p.hub().store.Revoke(runtimeID, reasonRemoved)
	if err != nil {
		return fmt.Errorf("%s: calls in flight were cut off: %w", runtimeID, err)
	}
	return nil
}

// forget drops what the platform knows of a plugin whose identity ended.
func (p *Platform) forget(runtimeID string) {
	p.mu.Lock()
	a := p.adopted[runtimeID]
	delete(p.nodes, runtimeID)
	delete(p.adopted, runtimeID)
	p.mu.Unlock()
	if a != nil {
		a.end()
	}
}

// close ends what the platform launched and adopted, and waits for it. An error says what of the user's code
// panicked or still runs.
func (p *Platform) close(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	owners := slices.Clone(p.owners)
	adopted := slices.Collect(maps.Values(p.adopted))
	p.mu.Unlock()
	var ending sync.WaitGroup
	errs := make([]error, len(owners))
	for i, l := range owners {
		ending.Go(func() { errs[i] = l.shutdown(ctx) })
	}
	for _, a := range adopted {
		ending.Go(a.end)
	}
	ending.Wait()
	p.end()
	p.tasks.Wait()
	return errors.Join(errs...)
}

var (
	errAnotherKey = errors.New("its certificate has another key than when it was adopted, and policy does not say that " +
		"its identity is this plugin's alone (PluginPolicy.Certificates)")
	errNoMark    = errors.New("nothing tells it from other plugins (PluginPolicy.Certificates, PinnedKeys)")
	errNotItsOwn = errors.New("the certificate of the plugin in whose place it comes is that plugin's alone, and its own is not")
)

// hand calls an adopted plugin in a way on which nobody else answers, so that it can be given its token: by its
// certificate or, where that does not tell, by the token that it has.
func (p *Platform) hand(a *adoption, call func(*providerClient) error) error {
	err := p.handByCertificate(a, call)
	if !errors.Is(err, errAnotherKey) && !errors.Is(err, errNoMark) {
		return err
	}
	if d := p.router.currentDialer(); d != nil && d.tls == nil && !declared(a.id).endpoint.proves.Load() {
		return call(p.callPlugin(a.id.RuntimeID())) // in plaintext, and never could
	}
	var shown atomic.Pointer[certs.Pin]
	err = p.over(a, proving(a.id), func(cs tls.ConnectionState) error {
		key := certs.PinOf(cs.PeerCertificates[0])
		shown.Store(&key)
		return nil
	}, call)
	if key := shown.Load(); err == nil && key != nil { // it has another certificate now
		declared(a.id).adopted.rekey(*key)
	}
	return err
}

// handByCertificate does so by the certificate alone.
func (p *Platform) handByCertificate(a *adoption, call func(*providerClient) error) error {
	switch p.hub().markOf(p.router.currentDialer(), a.id) {
	case markIdentity:
		return call(p.callPlugin(a.id.RuntimeID()))
	case markNone:
		return errNoMark
	case markKey:
	}
	_, key := p.hub().look(a.id)
	var differs atomic.Bool
	err := p.over(a, nil, func(cs tls.ConnectionState) error {
		if certs.PinOf(cs.PeerCertificates[0]) != key {
			differs.Store(true)
			return errAnotherKey
		}
		return nil
	}, call)
	if err != nil && differs.Load() {
		return errAnotherKey
	}
	return err
}

// over calls an adopted plugin on connections of their own.
func (p *Platform) over(a *adoption, ask challenger, besides peerCheck, call func(*providerClient) error) error {
	endpoint, _ := p.registry.catalog.Endpoint(a.id.RuntimeID())
	d := p.router.currentDialer()
	switch {
	case endpoint == "":
		return noEndpoint(p.hub(), a.id.RuntimeID())
	case d == nil:
		return errNotServing
	}
	pool, err := d.pool(p.hub(), a.id, endpoint, ask, besides)
	if err != nil {
		return err
	}
	defer pool.Close()
	way := p.callPlugin(a.id.RuntimeID())
	way.over = &routedProvider{endpoint: endpoint, pool: pool}
	return call(way)
}

// mayFollow refuses a plugin that comes in the place of another with a certificate that is not the plugin's alone,
// where that of the other is.
func (p *Platform) mayFollow(a *adoption) error {
	h, d := p.hub(), p.router.currentDialer()
	if a.takes != nil && h.markOf(d, a.takes) == markIdentity && h.markOf(d, a.id) != markIdentity {
		return errNotItsOwn
	}
	return nil
}

// inherits notes that a plugin which is adopted in the place of another is the same process, by its endpoint: it does not answer
// by the identity that it had once it has the next one, which is the other's heir until then.
func (p *Platform) inherits(a *adoption) {
	at, _ := p.registry.catalog.Endpoint(a.takes.RuntimeID())
	before, err := catalog.ParseSite(at)
	now, none := catalog.ParseSite(a.config.Endpoint)
	if known := declared(a.takes).adopted; known != nil && err == nil && none == nil && before == now {
		known.heir.Store(a.id)
	}
}
