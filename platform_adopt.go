package connectplugin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/backoff"
	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/launches"
	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// PluginConfig says which plugin a platform adopts: one that runs already and waits for its
// host to call.
type PluginConfig struct {
	// SelfID is the plugin's self id, for which policy is written. Required.
	SelfID string
	// SelfVersion is the plugin's version. Empty accepts any.
	SelfVersion string
	// Endpoint is the base URL at which the plugin is. Required.
	Endpoint string
	// HostURL is the base URL at which the plugin reaches the host. Empty means the address
	// that the host listens on; a host whose [Host.Handler] is on a server of your own listens
	// on none, and needs it.
	HostURL string
	// Metadata says what the plugin provides and requires. Where it lists something, a plugin
	// that says otherwise is refused: other types or versions, and another path of a service or
	// constraint of a requirement where the list has one. Its own Name, Path and Version are not
	// compared.
	Metadata PluginMetadata
}

// PluginInstance is a plugin that a platform adopted.
type PluginInstance struct {
	// RuntimeID names the identity that the host gave it.
	RuntimeID string
	// SelfID is its name.
	SelfID string
	// Endpoint is where it is.
	Endpoint string
	// Token is its current runtime token. It is a secret.
	Token string
	// Metadata is what it provides and requires.
	Metadata PluginMetadata
}

// String keeps the token out of logs.
func (i PluginInstance) String() string { return i.RuntimeID + " at " + i.Endpoint }

// GoString keeps the token out of logs.
func (i PluginInstance) GoString() string { return i.String() }

const (
	adoptTimeout = 30 * time.Second
	removeGrace  = 10 * time.Second
)

// reasonRemoved says that an identity ended because its plugin was taken out.
const reasonRemoved tokenstore.Reason = "removed"

// adoption is an adopted plugin while its identity lives.
type adoption struct {
	// Fixed at creation.
	launch *launches.Launch
	id     *tokenstore.Identity
	config PluginConfig
	stop   context.CancelFunc
	// introduced is closed once the plugin has its first token.
	introduced chan struct{}
	// takes is the identity in whose place the plugin comes, nil for none.
	takes *tokenstore.Identity
	// They are renewAdopted's alone: when it may be given its identity back, and the log say that another is not.
	returns, strangers backoff.Sparing

	mu     sync.Mutex
	token  string
	untold bool // the plugin does not know the token yet
}

// end ends what is done for the plugin; it waits for nothing.
func (a *adoption) end() { a.stop() }

// AddPlugin adopts the plugin at an endpoint: it asks the plugin what it is, over TLS and
// with its certificate verified as that of the self id, gives it an identity, and returns
// when the plugin has registered what it provides and is healthy. A plugin that says other
// than the configuration is refused, and so is a self id that policy does not know. Nothing
// is left of it after an error. The end of ctx, 30 s where it has none, bounds it all,
// also the time until the host serves, where it is called before. Of several at one endpoint one goes after the other. A plugin that was
// adopted at the endpoint before has another identity then, and its calls in flight may finish: AddPlugin waits for them, up to 10 s.
//
// The plugin's certificate is that of its self id where the host has an [Authority], and has to be what
// [PluginPolicy.Certificates] and [PluginPolicy.PinnedKeys] say. Where neither says anything, the one that it shows first
// is taken for its own, and from then on nobody answers for it whose certificate has another identity. Where others may
// have that identity, a new connection to the plugin has the key of its certificate, or it proves there that it has its
// token, before any call takes the connection.
//
// A plugin that crashed and comes back at the endpoint without an identity, as the same plugin by its certificate and
// by what it says of itself, gets the one that it had, when the host connects to it or next asks how it is: where
// policy gives the identity of its certificate, or its key, to it alone, or its key is the one that it had. Where others
// may have both, and in plaintext, it waits for another AddPlugin, and the log says so. One that ends in order leaves:
// its next life is adopted by another AddPlugin.
func (p *Platform) AddPlugin(ctx context.Context, config PluginConfig) error {
	ctx, cancel := adoptWithin(ctx)
	defer cancel()
	over, err := p.made().turnAt(ctx, config.Endpoint)
	if err != nil {
		return err
	}
	defer over()
	earlier := p.adoptedAt(config)
	a, err := p.adopt(ctx, config, nil)
	if err != nil {
		return err
	}
	if earlier == "" {
		return p.keepPlace(a, "")
	}
	p.registry.catalog.RemoveWhere(ofRuntime(earlier)) // the plugin provides the same as what it was adopted as now
	if err := p.keepPlace(a, earlier); err != nil {
		return err
	}
	over()
	p.depart(ctx, earlier)
	return nil
}

// adoptedAt returns as what the plugin at an endpoint was adopted before, empty where it was not.
func (p *Platform) adoptedAt(config PluginConfig) string {
	site, err := catalog.ParseSite(config.Endpoint)
	for _, i := range p.Instances() {
		at, _ := p.registry.catalog.Endpoint(i.RuntimeID) // none is about to end
		if there, none := catalog.ParseSite(at); i.SelfID == config.SelfID && err == nil && none == nil && there == site {
			return i.RuntimeID
		}
	}
	return ""
}

// depart ends what a plugin was before when the calls in flight to it have ended. It waits for that as long as ctx lasts.
func (p *Platform) depart(ctx context.Context, runtimeID string) {
	gone := make(chan struct{})
	if !p.task(func() {
		defer close(gone)
		if err := p.retire(p.life, runtimeID, "adopted again"); err != nil {
			p.log().Warn("a plugin was adopted again", keyRuntimeID, runtimeID, keyError, err)
		}
	}) {
		return
	}
	select {
	case <-gone:
	case <-ctx.Done():
	}
}

// keepPlace gives the endpoint to the plugin that was adopted there. What the host knew of
// the same process before ends, but for one identity, empty for none, that whoever calls ends when its calls have.
func (p *Platform) keepPlace(a *adoption, spared string) error {
	if err := p.router.settle(a.id.RuntimeID(), place{endpoint: a.config.Endpoint, spared: spared}); err != nil {
		return fmt.Errorf("adopt %q: %w", a.config.SelfID, err)
	}
	return nil
}

// Instances returns the plugins that the platform adopted, sorted by runtime id.
func (p *Platform) Instances() []PluginInstance {
	p.made().mu.Lock()
	defer p.mu.Unlock()
	out := make([]PluginInstance, 0, len(p.adopted))
	for id, a := range p.adopted {
		if a.id.Ended() { // a moment ago, by the plugin itself
			continue
		}
		a.mu.Lock()
		out = append(out, PluginInstance{
			RuntimeID: id, SelfID: a.config.SelfID, Endpoint: a.config.Endpoint, Token: a.token, Metadata: a.config.Metadata.clone(),
		})
		a.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b PluginInstance) int {
		switch {
		case a.RuntimeID < b.RuntimeID:
			return -1
		case a.RuntimeID > b.RuntimeID:
			return 1
		}
		return 0
	})
	return out
}

// RemovePlugin takes a plugin out, launched, adopted or enrolled by itself: it gets no new
// calls, is asked to stop, may finish its calls in flight until ctx ends or 10 s have passed,
// and then its identity ends with everything that the host keeps for it. A launched plugin's
// process has ended, too. The error says that no plugin has the runtime id, or that it had to
// be cut off.
func (p *Platform) RemovePlugin(ctx context.Context, runtimeID string) error {
	if l, name, ok := p.made().launcherOf(runtimeID); ok {
		return l.Stop(ctx, name)
	}
	if _, ok := p.hub().store.Lookup(runtimeID); !ok {
		return fmt.Errorf("remove %q: %w", clipped(runtimeID), errNotAlive)
	}
	p.registry.catalog.RemoveWhere(ofRuntime(runtimeID))
	return p.retire(ctx, runtimeID, "removed")
}

// ReplacePlugin adopts a plugin in the place of another: the new one is asked and gets its
// identity while the old one serves, then the services pass over in one step, and the old one
// drains for up to 10 s, however long ctx lasts, as in [Platform.RemovePlugin]. If the new one fails, or ctx ends before it is in
// service, nothing has changed, and so it is where others require what only the old one provides, see [PluginLauncher.Replace]. Of several
// at the same time one replaces the plugin, and the others return an error.
func (p *Platform) ReplacePlugin(ctx context.Context, runtimeID string, newConfig PluginConfig) error {
	release, err := p.made().claim(runtimeID)
	if err != nil {
		return fmt.Errorf("replace %q: %w", clipped(runtimeID), err)
	}
	defer release()
	old, ok := p.hub().store.Lookup(runtimeID)
	if !ok {
		return fmt.Errorf("replace %q: %w", clipped(runtimeID), errNotAlive)
	}
	if _, name, launched := p.launcherOf(runtimeID); launched {
		return fmt.Errorf("replace %q: it was launched: use PluginLauncher.Replace with %q", runtimeID, name)
	}
	if old.SelfID() != newConfig.SelfID {
		return fieldError("PluginConfig.SelfID", "is %q; the plugin to be replaced is %q", clipped(newConfig.SelfID), old.SelfID())
	}
	within, cancel := adoptWithin(ctx)
	defer cancel()
	over, err := p.turnAt(within, newConfig.Endpoint)
	if err != nil {
		return err
	}
	defer over()
	a, err := p.adopt(within, newConfig, old)
	if err != nil {
		return err
	}
	err = calledOff(within)
	if err == nil {
		err = p.release(a.launch, runtimeID)
	}
	if err != nil {
		p.hub().store.Revoke(a.id.RuntimeID(), reasonRemoved)
		return err
	}
	if err := p.keepPlace(a, runtimeID); err != nil {
		return err
	}
	over()
	return p.retire(p.life, runtimeID, "replaced")
}

// adopt does what AddPlugin says; in the place of another, the registrations are kept back.
func (p *Platform) adopt(ctx context.Context, config PluginConfig, takes *tokenstore.Identity) (*adoption, error) {
	config.Metadata = config.Metadata.clone()
	if err := config.validate(p.hub().settings().allowInsecure); err != nil {
		return nil, err
	}
	hostURL, err := p.awaitHostURL(ctx, config.HostURL)
	if err != nil {
		return nil, err
	}
	a, err := p.issue(config, takes)
	if err == nil {
		if err = p.introduce(ctx, a, hostURL); err != nil {
			p.hub().store.Revoke(a.id.RuntimeID(), reasonRemoved)
		}
	}
	if err != nil {
		p.log().Warn("plugin not adopted", keySelfID, config.SelfID, keyAddr, config.Endpoint, keyError, err)
		return nil, fmt.Errorf("adopt %q at %s: %w", config.SelfID, config.Endpoint, err)
	}
	p.log().Info("plugin adopted", keySelfID, config.SelfID, keyRuntimeID, a.id.RuntimeID(), keyAddr, config.Endpoint)
	return a, nil
}

func (c PluginConfig) validate(allowInsecure bool) error {
	if err := ValidateSelfID(c.SelfID); err != nil {
		return fieldError("PluginConfig.SelfID", "%v", err)
	}
	if _, err := parseHostURL(c.Endpoint, allowInsecure); err != nil {
		return fieldError("PluginConfig.Endpoint", "%v", err)
	}
	if c.SelfVersion != "" {
		if err := ValidateVersion(c.SelfVersion); err != nil {
			return fieldError("PluginConfig.SelfVersion", "%v", err)
		}
	}
	return c.Metadata.validate("PluginConfig.Metadata")
}

// issue gives an adopted plugin an identity, which it does not know yet.
func (p *Platform) issue(config PluginConfig, takes *tokenstore.Identity) (*adoption, error) {
	hub := p.hub()
	id, token, err := hub.issueOwn(config.SelfID, config.SelfVersion, config.Metadata, func(d *declaration) {
		d.adopted = newLikeness()
		d.launch = launches.New("", config.SelfID, typesOf(config.Metadata.Provides))
		if a := hub.settings().authority; a != nil {
			d.certIdentity = a.PluginIdentity(config.SelfID)
		}
	})
	if err != nil {
		return nil, err
	}
	life, stop := context.WithCancel(context.Background())
	a := &adoption{launch: declared(id).launch, id: id, config: config, stop: stop, token: token, introduced: make(chan struct{})}
	a.returns, a.strangers = newReturns(), newReturns()
	if a.takes = takes; takes != nil {
		a.launch.Hold()
		p.inherits(a)
	}
	a.launch.Enrolled(id)
	p.mu.Lock()
	closed := p.closed
	if !closed {
		p.adopted[id.RuntimeID()] = a
		p.tasks.Go(func() { p.renewAdopted(life, a) })
	}
	p.mu.Unlock()
	if closed || id.Ended() {
		stop()
		hub.store.Revoke(id.RuntimeID(), reasonRemoved)
		p.forget(id.RuntimeID())
		return nil, ErrHostClosed
	}
	// It is the plugin's once the plugin serves there.
	if err := p.router.settle(id.RuntimeID(), place{endpoint: config.Endpoint, trial: true}); err != nil {
		hub.store.Revoke(id.RuntimeID(), reasonRemoved)
		return nil, err
	}
	return a, nil
}

// introduce asks the plugin what it is, gives it its identity and waits for its work.
func (p *Platform) introduce(ctx context.Context, a *adoption, hostURL string) error {
	client := NewPluginIdentityClient(pluginBase, p.callPlugin(a.id.RuntimeID()))
	info, err := client.GetPluginInfo(ctx)
	if err != nil {
		return fmt.Errorf("ask what it is: %w", err)
	}
	if err := a.config.compare(info); err != nil {
		p.hub().audit(AuditEvent{Kind: AuditDenied, SelfID: a.config.SelfID, RuntimeID: a.id.RuntimeID(), Reason: err.Error()})
		return err
	}
	if err := p.mayFollow(a); err != nil {
		p.hub().audit(AuditEvent{Kind: AuditDenied, SelfID: a.config.SelfID, RuntimeID: a.id.RuntimeID(), Reason: err.Error()})
		return err
	}
	a.narrow(info)
	err = client.set(ctx, a.id.RuntimeID(), a.token, hostURL, a.id.ExpiresAt())
	if err != nil && !a.id.Met() { // else it has it, and its answer was lost
		return fmt.Errorf("give it its identity: %w", err)
	}
	declared(a.id).adopted.introduced.Store(true)
	close(a.introduced)
	ended := make(chan struct{})
	defer a.id.OnEnd(func() { close(ended) })()
	if err := p.awaitReady(ctx, a.launch, ended); err != nil {
		return fmt.Errorf("wait for its services: %w", err)
	}
	return nil
}

// narrow keeps the plugin to what it says that it provides and requires.
func (a *adoption) narrow(info *connectpluginv1.GetPluginInfoResponse) {
	d := *declared(a.id)
	provides, requires := make([]string, 0, len(info.GetProvides())), make([]string, 0, len(info.GetRequires()))
	d.dependencies = nil
	for _, p := range info.GetProvides() {
		provides = append(provides, p.GetType())
	}
	for _, r := range info.GetRequires() {
		requires = append(requires, r.GetType())
		d.dependencies = append(d.dependencies, ServiceDependency{
			Type: r.GetType(), MinVersion: r.GetMinVersion(),
			RequiredForStartup: r.GetRequiredForStartup(), WatchForChanges: r.GetWatchForChanges(),
		})
	}
	d.provides, d.requires = policy.NewSet(provides), policy.NewSet(requires)
	if ValidateVersion(info.GetSelfVersion()) == nil {
		d.version = info.GetSelfVersion()
	}
	a.id.SetAttributes(&d)
}

func typesOf(provides []ServiceDeclaration) []string {
	out := make([]string, 0, len(provides))
	for _, d := range provides {
		out = append(out, d.Type)
	}
	return out
}

var (
	errNoPolicy = errors.New("policy does not know the self id: add it to Policy.Plugins, or set Policy.Default")
	errBarred   = errors.New("the self id is revoked: Host.Readmit admits it again")
)

// issueOwn issues an identity by the host's own decision, within its policy. edit may add to
// the declaration before anybody sees it.
func (h *hub) issueOwn(selfID, selfVersion string, m PluginMetadata, edit func(*declaration)) (*tokenstore.Identity, string, error) {
	d := newDeclaration(selfID)
	d.dependencies = m.Requires
	if len(m.Provides)+len(m.Requires) > 0 {
		requires := make([]string, 0, len(m.Requires))
		for _, r := range m.Requires {
			requires = append(requires, r.Type)
		}
		d.provides, d.requires = policy.NewSet(typesOf(m.Provides)), policy.NewSet(requires)
	}
	edit(d)
	known := h.rules.Load().Match(selfID, d.certIdentity)
	switch {
	case known.Rules == nil:
		return nil, "", errNoPolicy
	case h.launches.Barred(known.Name):
		return nil, "", errBarred
	}
	id, token, err := h.store.Issue(tokenstore.Request{
		SelfID: known.Name, SelfVersion: selfVersion, Attributes: d, MaxInstances: known.Rules.MaxInstances,
	})
	if err != nil {
		return nil, "", err
	}
	if h.launches.Barred(id.SelfID()) || h.rulesOf(id) == nil { // meanwhile
		h.store.Revoke(id.RuntimeID(), tokenstore.ReasonPolicy)
		return nil, "", errNoPolicy
	}
	h.audit(AuditEvent{Kind: AuditIssued, RuntimeID: id.RuntimeID(), SelfID: id.SelfID(), Reason: "by the host itself"})
	return id, token, nil
}

// renewIn is when the token of an identity is renewed.
func renewIn(id *tokenstore.Identity) time.Duration {
	return time.Duration(float64(time.Until(id.ExpiresAt())) * renewAfter)
}

// below reports whether a path is one that a registration covers.
func below(registered, path string) bool {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(registered, "/"))
	return ok && (rest == "" || rest[0] == '/')
}

// renewAdopted gives an adopted plugin a new token before the current one ends.
func (p *Platform) renewAdopted(ctx context.Context, a *adoption) {
	select {
	case <-a.introduced: // one token after the other
	case <-ctx.Done():
		return
	}
	failures, soon := 0, func() time.Duration { return max(renewIn(a.id), renewFloor) }
	due := time.NewTimer(soon())
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-declared(a.id).adopted.news:
			if a.returns.Due(time.Now()) && p.readopt(ctx, a) {
				failures = 0
				due.Reset(soon())
			}
			continue
		case <-due.C:
		}
		if err := p.renewOnce(ctx, a); err != nil {
			failures++
			due.Reset(max(backoff.Reconnect.After(failures), renewFloor))
			p.log().Warn("the token of an adopted plugin is not renewed", keyRuntimeID, a.id.RuntimeID(), keyError, err)
			continue
		}
		failures = 0
		due.Reset(soon())
	}
}
