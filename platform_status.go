package connectplugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/depgraph"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// PluginStatus is what a host knows of one plugin.
type PluginStatus struct {
	// RuntimeID names its identity, empty for a launched plugin that is not running.
	RuntimeID string
	// SelfID and SelfVersion are its name and version.
	SelfID, SelfVersion string
	// Enrolled is when it enrolled, which renewals leave as it is.
	Enrolled time.Time
	// Since is when its token was issued or last renewed, ExpiresAt when it ends.
	Since, ExpiresAt time.Time
	// Peer is the address that it enrolled from, without port; empty for one that the host
	// adopted or that is in the host's own process.
	Peer string
	// Proof is how it proved its name at its last handshake, empty where it never came.
	Proof PluginProof
	// Certificate is the identity in the certificate that it showed then, and CertificateEnds
	// when that ends. Both are zero without one.
	Certificate     string
	CertificateEnds time.Time
	// Endpoint is where the host calls it, empty for nowhere.
	Endpoint string
	// Rights are what it may do now.
	Rights Rights
	// Services are the service types that it provides, sorted.
	Services []string
	// Health is the worst of what it says and what the host sees; Reason is untrusted text.
	Health connectpluginv1.HealthState
	// Reason is the explanation to Health.
	Reason string
	// InFlight is how many calls to it are being passed on.
	InFlight int
	// LastError says, in the host's words, how the last call to it that failed did, and
	// LastErrorAt when. Both are zero where none failed by the plugin's fault.
	LastError   string
	LastErrorAt time.Time
	// Launch is set for a plugin that a launcher of this host started.
	Launch *LaunchStatus
}

// PluginProof is how a plugin proved its name.
type PluginProof string

// The proofs of plugins.
const (
	ProofNone                 PluginProof = "none"                   // policy accepts it without
	ProofSecret               PluginProof = "secret"                 // an enrolment secret
	ProofCertificate          PluginProof = "certificate"            // a client certificate
	ProofSecretAndCertificate PluginProof = "secret and certificate" // both
	ProofHost                 PluginProof = "host"                   // the host itself issued the identity
)

var proofs = map[adminv1.Proof]PluginProof{
	adminv1.Proof_PROOF_NONE: ProofNone, adminv1.Proof_PROOF_SECRET: ProofSecret, adminv1.Proof_PROOF_CERTIFICATE: ProofCertificate,
	adminv1.Proof_PROOF_SECRET_AND_CERTIFICATE: ProofSecretAndCertificate, adminv1.Proof_PROOF_HOST: ProofHost,
}

// LaunchStatus is what a launcher knows of one of its plugins.
type LaunchStatus struct {
	// Name is what the launcher calls it.
	Name string
	// State is where it stands.
	State LaunchState
	// Pid is its process id, zero where it has no process of its own or none now.
	Pid int
	// Restarts is how often it was started again, Failures how often it failed since it last
	// ran for long.
	Restarts, Failures int
	// NextStart is when it is started again, zero unless State is backoff or broken.
	NextStart time.Time
	// LastExit is how it last ended, nil if it did not.
	LastExit *PluginExit
	// Err says why it is not running, or has no identity though it is; empty where nothing is wrong.
	Err string
}

// Platform returns the host's platform.
func (h *Host) Platform() *Platform {
	h.mustBeMade().upperMu.Lock()
	p, ok := h.upper.(*Platform)
	if !ok {
		p = NewPlatform(h.registry, h.lifecycle, h.router)
		p.launcher = NewPluginLauncher(p, h.registry)
		h.upper = p
	}
	h.upperMu.Unlock()
	if !ok && h.draining.Load() { // it came too late to be ended with the host
		_ = p.close(context.Background()) // nothing runs yet
	}
	return p
}

// Launcher returns the host's launcher. Its plugins are stopped when the host shuts down,
// after the last call.
func (h *Host) Launcher() *PluginLauncher { return h.Platform().launcher }

// Plugins returns every plugin that the host knows, however it came: each live identity, and
// each launched plugin that is not running. One that is asked to end, or has made room for another
// instance of it, is among them with LaunchStopping until nothing is left of it. They are sorted by self id and runtime id.
func (h *Host) Plugins() []PluginStatus {
	launched, parting := h.Platform().launchedStatus()
	var all []PluginStatus
	h.hub.store.Each(func(id *tokenstore.Identity) bool {
		s := h.status(id)
		if l, ok := launched[id.RuntimeID()]; ok {
			s.Launch = l.Launch
			delete(launched, id.RuntimeID())
		} else {
			s.Launch = parting[id.RuntimeID()]
		}
		all = append(all, s)
		return true
	})
	all = slices.AppendSeq(all, maps.Values(launched))
	slices.SortFunc(all, func(a, b PluginStatus) int {
		return cmp.Or(cmp.Compare(a.SelfID, b.SelfID), cmp.Compare(a.RuntimeID, b.RuntimeID))
	})
	return all
}

func (h *Host) status(id *tokenstore.Identity) PluginStatus {
	d := declared(id)
	s := PluginStatus{
		RuntimeID: id.RuntimeID(), SelfID: id.SelfID(), SelfVersion: versionOf(id),
		Enrolled: d.enrolled, Since: id.IssuedAt(), ExpiresAt: id.ExpiresAt(), Peer: addrOf(id),
		Proof: proofs[h.hub.proofShown(id)], Certificate: d.certIdentity, CertificateEnds: d.certEnds,
		Rights: Rights(h.hub.rules.Load().Rights(subjectOf(id))), InFlight: h.router.inFlight(id.RuntimeID()),
	}
	s.Endpoint, _ = h.registry.catalog.Endpoint(id.RuntimeID())
	for _, reg := range h.registry.catalog.ByRuntime(id.RuntimeID()) {
		s.Services = append(s.Services, reg.Type)
	}
	slices.Sort(s.Services)
	report, _ := h.registry.catalog.Health(id.RuntimeID())
	s.Health, s.Reason = wireHealth(report.Health), h.registry.healthReason(id, report.Reason, len(s.Services))
	if f := d.failure.Load(); f != nil {
		s.LastError, s.LastErrorAt = f.what, f.at
	}
	return s
}

// launches returns the launched plugins as the admin service shows them.
func (p *Platform) launches() map[string]*adminv1.PluginInfo {
	plugins, parting := p.launchedStatus()
	out := make(map[string]*adminv1.PluginInfo, len(plugins)+len(parting))
	for key, s := range plugins {
		out[key] = &adminv1.PluginInfo{SelfId: s.SelfID, Launch: s.Launch.wire()}
	}
	for key, l := range parting {
		if id, ok := p.hub().store.Lookup(key); ok {
			out[key] = &adminv1.PluginInfo{SelfId: id.SelfID(), Launch: l.wire()}
		}
	}
	return out
}

func (l *LaunchStatus) wire() *adminv1.LaunchInfo {
	out := &adminv1.LaunchInfo{
		Name: l.Name, State: string(l.State), Pid: int64(l.Pid),
		Restarts: uint32(max(l.Restarts, 0)), Error: printable(l.Err), //nolint:gosec // it is small
	}
	if !l.NextStart.IsZero() {
		out.NextStart = timestamppb.New(l.NextStart)
	}
	return out
}

// replaceLaunched replaces a plugin of whichever launcher has one of the name.
func (p *Platform) replaceLaunched(ctx context.Context, name string) error {
	p.mu.Lock()
	owners := slices.Clone(p.owners)
	p.mu.Unlock()
	for _, l := range owners {
		l.mu.Lock()
		_, known := l.specs[name]
		_, there := l.plugins[name]
		l.mu.Unlock()
		if known || there {
			return l.Replace(ctx, name)
		}
	}
	adopted := false
	p.hub().store.Each(func(id *tokenstore.Identity) bool {
		adopted = id.SelfID() == name
		return !adopted
	})
	if adopted {
		return fmt.Errorf("replace %q: the host did not launch it: start a new instance where it runs, then end the old one", clipped(name))
	}
	return fmt.Errorf("replace %q: %w: name a spec of PluginLauncher.Configure", clipped(name), ErrPluginNotFound)
}

// launchedStatus returns what launchers know of their plugins, by runtime id, and of the instances
// that have made room for another one and are about to end.
func (p *Platform) launchedStatus() (plugins map[string]PluginStatus, parting map[string]*LaunchStatus) {
	p.mu.Lock()
	owners := slices.Clone(p.owners)
	p.mu.Unlock()
	plugins, parting = map[string]PluginStatus{}, map[string]*LaunchStatus{}
	for i, l := range owners {
		l.mu.Lock()
		all := slices.Collect(maps.Values(l.plugins))
		l.mu.Unlock()
		for _, lp := range all {
			runtimeID, s := lp.status(parting)
			if s.Launch.State == LaunchRunning {
				s.Launch.Err = p.lacks(runtimeID, s.SelfID)
			}
			key := runtimeID
			if key == "" {
				key = fmt.Sprintf("%d/%s", i, lp.name) // no runtime id has a slash
			}
			plugins[key] = s
		}
	}
	return plugins, parting
}

// lacks says that a process runs whose identity ended, which it does not know until it calls the host.
func (p *Platform) lacks(runtimeID, selfID string) string {
	h := p.hub()
	if _, ok := h.store.Lookup(runtimeID); ok {
		return ""
	}
	if h.launches.Barred(selfID) {
		return "it was revoked: its process ends when it is told so"
	}
	return "its identity ended: it enrols again, or ends"
}

// status says where the plugin stands, and adds its instances that are about to end to parting.
func (p *launchedPlugin) status(parting map[string]*LaunchStatus) (runtimeID string, s PluginStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := &LaunchStatus{Name: p.name, State: p.state, Restarts: p.restarts, Failures: p.next.Failures}
	if p.current != nil {
		runtimeID, l.Pid = p.current.runtimeID(), p.current.pid
	}
	for i, old := range p.leaving {
		if p.state == LaunchStopping && i == len(p.leaving)-1 { // the one that was in service
			runtimeID, l.Pid = old.runtimeID(), old.pid
			break
		}
		parting[old.runtimeID()] = &LaunchStatus{Name: p.name, State: LaunchStopping, Pid: old.pid}
	}
	if p.state == LaunchBackoff || p.state == LaunchBroken {
		l.NextStart = p.next.At
	}
	if p.lastExit != nil {
		exit := *p.lastExit
		exit.Output = slices.Clone(exit.Output)
		l.LastExit = &exit
	}
	if p.err != nil && p.state != LaunchRunning {
		l.Err = p.err.Error()
	}
	return runtimeID, PluginStatus{SelfID: p.spec.Name, Launch: l}
}

// watched is what a plugin in the host's own process watches for, as a plugin elsewhere does itself.
type watched struct {
	// Fixed at creation.
	platform *Platform
	id       *tokenstore.Identity
	requires []ServiceDependency
	changed  chan struct{} // tells that something may have

	// Used by whoever began it, and then by run alone.
	missing []string
}

// serves says that a plugin in the host's own process is healthy, or degraded while something is away that it watches for.
func (p *Platform) serves(id *tokenstore.Identity, requires []ServiceDependency) error {
	w := &watched{platform: p, id: id, changed: make(chan struct{}, 1)}
	for _, d := range requires {
		if d.WatchForChanges {
			w.requires = append(w.requires, d)
		}
	}
	w.missing = w.away()
	if err := w.tell(); err != nil || len(w.requires) == 0 {
		return err
	}
	life, stop := context.WithCancel(p.life)
	id.OnEnd(stop)
	begun := p.task(func() { w.run(life) })
	for _, d := range w.requires {
		begun = begun && p.task(func() { w.follow(life, d.Type) })
	}
	if !begun {
		return ErrHostClosed
	}
	return nil
}

// away returns what is.
func (w *watched) away() (missing []string) {
	for _, d := range w.requires {
		if !w.platform.registry.HasService(d.Type, d.MinVersion) {
			missing = append(missing, d.Type)
		}
	}
	return missing
}

// tell says how the plugin is. An error says that its identity ended.
func (w *watched) tell() error {
	report := catalog.HealthReport{Health: catalog.HealthHealthy, At: time.Now()}
	if len(w.missing) > 0 {
		report.Health, report.Reason, report.Unavailable = catalog.HealthDegraded, reasonMissing, w.missing
	}
	return w.platform.lifecycle.take(w.id.RuntimeID(), w.id, func(v *healthView) { v.reported = report })
}

// run tells of each change, until the plugin has ended.
func (w *watched) run(ctx context.Context) {
	for {
		if missing := w.away(); !slices.Equal(missing, w.missing) {
			w.missing = missing
			if w.tell() != nil {
				return
			}
		}
		select {
		case <-w.changed:
		case <-ctx.Done():
			return
		}
	}
}

// follow has run look at each change of a type.
func (w *watched) follow(ctx context.Context, serviceType string) {
	events, err := w.platform.registry.catalog.Watch(catalog.WatchRequest{Type: serviceType})
	if err != nil {
		w.platform.log().Warn("a plugin is not degraded without what it requires",
			keyRuntimeID, w.id.RuntimeID(), keyService, serviceType, keyError, err)
		return
	}
	defer events.Close()
	for {
		if _, err := events.Next(ctx); err != nil {
			return
		}
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

const (
	circleWait  = time.Second // how long plugins that come together have to say that they wait
	circleRest  = 50          // times as long as the last look took is until the next one
	mostCircles = 8           // that are told of
)

// lookForCircles looks, in a moment, for plugins that wait for each other, so that none of them ever starts. Plugins that require
// much can have it look as often as they like: the longer that takes, the less often it does.
func (p *Platform) lookForCircles() {
	if p.looking.Ask() {
		p.task(func() { p.looking.Run(p.life, func() { p.tellCircles(p.circles()) }) })
	}
}

// tellCircles warns of each circle once, as long as it lasts.
func (p *Platform) tellCircles(found []string) {
	p.mu.Lock()
	fresh := slices.DeleteFunc(slices.Clone(found), func(circle string) bool { return slices.Contains(p.told, circle) })
	p.told = found
	p.mu.Unlock()
	for _, circle := range fresh {
		p.log().Warn("plugins wait for each other, so that none of them starts: take RequiredForStartup from one of these requirements, "+
			"with WatchForChanges if that plugin is to be degraded until the other is there", keyReason, circle)
	}
}

// circles returns, in words, which plugins wait for what another of them is to provide.
func (p *Platform) circles() []string {
	nodes, names := p.waiting()
	var found []string
	for len(found) < mostCircles {
		circle := circleAmong(nodes)
		if circle == nil {
			break
		}
		var words []string
		for i, runtimeID := range circle[:len(circle)-1] {
			next := nodes[circle[i+1]]
			for _, r := range nodes[runtimeID].Requires {
				if slices.ContainsFunc(next.Provides, func(own depgraph.Provision) bool { return own.Type == r.Type }) {
					words = append(words, fmt.Sprintf("%q requires %s of %q", clipped(names[runtimeID]), r.Type, clipped(names[next.RuntimeID])))
					break
				}
			}
		}
		found = append(found, firstOf(words))
		for _, runtimeID := range circle {
			delete(nodes, runtimeID)
		}
	}
	return found
}

// waiting draws the plugins that provide nothing yet and lack what they cannot start without, with what they declare; and
// how they are called.
func (p *Platform) waiting() (nodes map[string]depgraph.Node, names map[string]string) {
	nodes, names = map[string]depgraph.Node{}, map[string]string{}
	p.hub().store.Each(func(id *tokenstore.Identity) bool {
		n, d := depgraph.Node{RuntimeID: id.RuntimeID()}, declared(id)
		for _, r := range d.dependencies {
			if p.isMissing(r) {
				n.Requires = append(n.Requires, depgraph.Requirement{Type: r.Type, Required: true})
			}
		}
		if len(n.Requires) > 0 && len(p.registry.catalog.ByRuntime(n.RuntimeID)) == 0 {
			for _, t := range d.provides.List() {
				n.Provides = append(n.Provides, depgraph.Provision{Type: t})
			}
			nodes[n.RuntimeID], names[n.RuntimeID] = n, id.SelfID()
		}
		return true
	})
	return nodes, names
}

// circleAmong returns plugins of which each waits for the next one, and the last one is the first; nil for none. What nobody
// of them is to provide may come from elsewhere.
func circleAmong(nodes map[string]depgraph.Node) []string {
	coming := map[string]bool{}
	for _, n := range nodes {
		for _, own := range n.Provides {
			coming[own.Type] = true
		}
	}
	var g depgraph.Graph
	for _, runtimeID := range slices.Sorted(maps.Keys(nodes)) {
		n := nodes[runtimeID]
		n.Requires = slices.DeleteFunc(slices.Clone(n.Requires), func(r depgraph.Requirement) bool { return !coming[r.Type] })
		g.Add(n)
	}
	_, err := g.StartupOrder()
	circle, ok := errors.AsType[*depgraph.CycleError](err)
	if !ok {
		return nil
	}
	return circle.Plugins
}
