package connectplugin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/backoff"
	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/launches"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// Errors of becoming ready.
var (
	errEndedEarly = errors.New("it ended before it was healthy")
	errRefused    = errors.New("the host refused it")
	errNotHealthy = errors.New("it answers that it is not healthy")
	errReadyTime  = errors.New("PluginSpec.ReadyTimeout is over") // the cause of the end of a launch's context
)

// awaitRequired waits until what a plugin cannot start without is provided, as far as its spec says what that is. A program
// waits itself, too, for what it says; one in the host's process, or of go-plugin, cannot.
func (p *Platform) awaitRequired(ctx context.Context, spec PluginSpec) error {
	if spec.Plugin == nil {
		return stillWanted(ctx)
	}
	metadata, err := spec.pluginMetadata(ctx)
	if err != nil {
		return err
	}
	told := false
	for requires := metadata.Requires; ; {
		i := slices.IndexFunc(requires, p.isMissing)
		if i < 0 {
			return stillWanted(ctx)
		}
		if err := requires[i].validate(); err != nil {
			return fieldError(fmt.Sprintf("PluginSpec[%q].Plugin.Metadata.Requires[%d]", spec.Name, i), "%v", err)
		}
		if !told {
			told = true
			p.log().Info("a plugin waits for what it requires for its start", keyPlugin, spec.Name, keyService, requires[i].text())
		}
		if err := p.awaitService(ctx, requires[i]); err != nil {
			return fmt.Errorf("%s: %w", p.lacking(requires[i]), notReady(ctx, err))
		}
	}
}

// isMissing reports whether nobody provides what a plugin cannot start without.
func (p *Platform) isMissing(d ServiceDependency) bool {
	return d.RequiredForStartup && !p.registry.HasService(d.Type, d.MinVersion)
}

// awaitService waits until somebody provides what a plugin requires.
func (p *Platform) awaitService(ctx context.Context, d ServiceDependency) error {
	w, err := p.registry.catalog.Watch(catalog.WatchRequest{Type: d.Type})
	if err != nil {
		return err
	}
	defer w.Close()
	for p.isMissing(d) {
		if _, err := w.Next(ctx); err != nil {
			return err
		}
	}
	return nil
}

// lacking says what a plugin waits for, and what there is instead.
func (p *Platform) lacking(d ServiceDependency) string {
	all := p.registry.catalog.ByType(d.Type)
	versions := make([]string, 0, len(all))
	for _, reg := range all {
		versions = append(versions, strconv.Quote(reg.Version))
	}
	text := fmt.Sprintf("it requires %s for its start (RequiredForStartup), and ", d.text())
	if len(versions) == 0 {
		return text + "nobody provides that"
	}
	return text + "those who provide it are not well or have another version: " + strings.Join(slices.Compact(sorted(versions)), ", ")
}

// notReady says whose time was over, where that ended a launch.
func notReady(ctx context.Context, err error) error {
	switch {
	case errors.Is(context.Cause(ctx), errReadyTime):
		return fmt.Errorf("it was not healthy in time, see PluginSpec.ReadyTimeout: %w", err)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("the context of whoever launches it ended before it was healthy: %w", err)
	case ctx.Err() != nil:
		return fmt.Errorf("it was called off before it was healthy: %w", err)
	}
	return err
}

// stillWanted is an error where the time of a launch is over: code of the user's may have returned after that.
func stillWanted(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return notReady(ctx, context.Cause(ctx))
}

// unready says what a launch that is not ready waits for; asked is what it last answered.
func (p *Platform) unready(l *launches.Launch, asked error) string {
	id := l.Current()
	if id == nil {
		return "it has not enrolled"
	}
	if i := slices.IndexFunc(declared(id).dependencies, p.isMissing); i >= 0 {
		return p.lacking(declared(id).dependencies[i])
	}
	var missing []string
	for _, t := range l.Provides {
		if !slices.Contains(p.provided(l), t) {
			missing = append(missing, t)
		}
	}
	report, ok := p.lifecycle.reported(id.RuntimeID())
	switch {
	case len(missing) > 0:
		return fmt.Sprintf("it has not registered %q", missing)
	case !ok:
		return "it has not said how it is"
	case report.Health == catalog.HealthUnhealthy:
		return fmt.Sprintf("it says that it is unhealthy: %q", printable(report.Reason))
	case asked != nil:
		return asked.Error()
	}
	return "it was not asked yet how it is"
}

// awaitReady returns when a launch has enrolled, registered what it was launched for, said
// that it is healthy, and says so too when it is asked at the address that it named. Only the
// instance that holds the launch's certificate counts, whoever else provides the same.
func (p *Platform) awaitReady(ctx context.Context, l *launches.Launch, ended <-chan struct{}) error {
	for asked := error(nil); ; {
		if reason := l.Refused(); reason != "" && l.Current() == nil {
			return errRefused
		}
		if p.settled(l) {
			if asked = p.confirm(ctx, l); !errors.Is(asked, errNotHealthy) {
				return asked
			}
		}
		select {
		case <-l.Wake():
		case <-ended:
			return errEndedEarly
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", p.unready(l, asked), ctx.Err())
		}
	}
}

// settled reports whether a launch said that it is healthy and registered everything.
func (p *Platform) settled(l *launches.Launch) bool {
	id := l.Current()
	if id == nil || id.Ended() {
		return false
	}
	report, ok := p.lifecycle.reported(id.RuntimeID())
	if !ok || report.Health == catalog.HealthUnhealthy {
		return false
	}
	have := p.provided(l)
	for _, t := range l.Provides {
		if !slices.Contains(have, t) {
			return false
		}
	}
	return true
}

// provided returns the service types that a launch registered, in service or not yet.
func (p *Platform) provided(l *launches.Launch) []string {
	have := l.Held()
	if id := l.Current(); id != nil {
		for _, reg := range p.registry.catalog.ByRuntime(id.RuntimeID()) {
			have = append(have, reg.Type)
		}
	}
	return have
}

// confirm asks a launch for its health, where it can be asked.
func (p *Platform) confirm(ctx context.Context, l *launches.Launch) error {
	id := l.Current()
	if _, ok := p.registry.catalog.Endpoint(id.RuntimeID()); !ok {
		return nil // it only calls others
	}
	provider, err := p.router.providerAt(p.hub(), id.RuntimeID())
	if err != nil {
		return fmt.Errorf("reach it: %w", err)
	}
	report, err := provider.ask(ctx, id)
	switch {
	case err != nil:
		return fmt.Errorf("reach it: %w", err)
	case report.Health == catalog.HealthUnhealthy:
		return fmt.Errorf("%w: %q", errNotHealthy, printable(report.Reason))
	}
	return nil
}

// errOtherThanConfigured says that a plugin says of itself what the host was not told.
var errOtherThanConfigured = errors.New("the plugin is other than configured")

// compare holds what a plugin says of itself against the configuration.
func (c PluginConfig) compare(info *connectpluginv1.GetPluginInfoResponse) error {
	differs := func(what, is, want any) error {
		return fmt.Errorf("%w: %s is %q, configured is %q", errOtherThanConfigured, what, is, want)
	}
	provides, wantProvides := c.compareProvides(info.GetProvides())
	requires, wantRequires := c.compareRequires(info.GetRequires())
	switch {
	case info.GetSelfId() != c.SelfID:
		return differs("its self id", printable(info.GetSelfId()), c.SelfID)
	case c.SelfVersion != "" && info.GetSelfVersion() != c.SelfVersion:
		return differs("its version", printable(info.GetSelfVersion()), c.SelfVersion)
	case len(wantProvides) > 0 && !slices.Equal(provides, wantProvides):
		return differs("what it provides", provides, wantProvides)
	case len(wantRequires) > 0 && !slices.Equal(requires, wantRequires):
		return differs("what it requires", requires, wantRequires)
	}
	return nil
}

// compareProvides returns as text what a plugin says that it provides, and what is configured; the path
// where the configuration has one.
func (c PluginConfig) compareProvides(all []*connectpluginv1.ServiceDeclaration) (said, want []string) {
	paths := map[string]bool{}
	path := func(declared string) string { return " " + strings.TrimSuffix(servicePath(declared), "/") }
	for _, d := range c.Metadata.Provides {
		line := d.Type + " " + d.Version
		if d.Path != "" {
			paths[d.Type], line = true, line+path(d.Path)
		}
		want = append(want, line)
	}
	for _, d := range all {
		line := d.GetType() + " " + d.GetVersion()
		if paths[d.GetType()] {
			line += path(d.GetPath())
		}
		said = append(said, printable(line))
	}
	return sorted(said), sorted(want)
}

// compareRequires does the same for what it requires, with the versions where the configuration has some.
func (c PluginConfig) compareRequires(all []*connectpluginv1.ServiceDependency) (said, want []string) {
	versions := map[string]bool{}
	for _, d := range c.Metadata.Requires {
		versions[d.Type] = d.MinVersion != ""
		want = append(want, strings.TrimSpace(d.Type+" "+d.MinVersion))
	}
	for _, d := range all {
		line := d.GetType()
		if versions[d.GetType()] {
			line = strings.TrimSpace(line + " " + d.GetMinVersion())
		}
		said = append(said, printable(line))
	}
	return sorted(said), sorted(want)
}

func sorted(lines []string) []string {
	slices.Sort(lines)
	return lines
}

// release puts a launch into service, in the place of an old instance, empty for none.
func (p *Platform) release(l *launches.Launch, old string) error {
	id := l.Current()
	if id == nil {
		return errEndedEarly
	}
	if old != "" { // before the old one is out of service, so that no call finds neither
		if err := p.spare(l, old); err != nil {
			return err
		}
		p.router.succeed(old, id.RuntimeID())
	}
	own, denied := ofRuntime(id.RuntimeID()), func(reg catalog.Registration) bool { return !p.hub().mayProvide(id, reg.Type) }
	var kept, aside []catalog.Registration
	for _, reg := range l.Release() {
		if denied(reg) { // what it may provide may have changed since it registered
			aside = append(aside, reg)
		} else {
			kept = append(kept, reg)
		}
	}
	if err := p.registry.catalog.Supersede(old, kept); err != nil {
		p.router.unsucceed(id.RuntimeID())
		if errors.Is(err, catalog.ErrLimit) {
			err = fmt.Errorf("%w: %s", err, met(err, tooManyServices, tooManyServicesOfFleet, tooManyOfType, tooManyServicesInAll))
		}
		return fmt.Errorf("put into service: %w", err)
	}
	p.registry.setAside(aside)
	p.registry.withhold(func(reg catalog.Registration) bool { return own(reg) && denied(reg) }) // and meanwhile
	p.registry.giveBack(own)
	if id.Ended() {
		p.registry.catalog.RemoveRuntime(id.RuntimeID())
		return errEndedEarly
	}
	return nil
}

// askToStop asks a plugin to end, where it can be asked, and tells it where that is the last call
// that it gets.
func (p *Platform) askToStop(ctx context.Context, runtimeID string, grace time.Duration, reason string, last bool) error {
	if runtimeID == "" {
		return errNoEndpoint
	}
	way := p.callPlugin(runtimeID)
	way.last = last
	client := NewPluginControlClient(pluginBase, way)
	seconds := int32(min(max(grace/time.Second, 1), math.MaxInt32))
	acknowledged, err := client.Shutdown(ctx, seconds, reason)
	if err == nil && !acknowledged {
		err = errors.New("the plugin does not want to stop")
	}
	return err
}

// pluginBase stands for the plugin that an HTTP client of the host reaches, whatever URL
// that has.
const pluginBase = "https://plugin.invalid"

// callPlugin returns an HTTP client that reaches one plugin's control services.
func (p *Platform) callPlugin(runtimeID string) *providerClient {
	return &providerClient{router: p.router, target: func(path string) (string, string, error) { return runtimeID, path, nil }}
}

// result is what a strategy hands out for one instance.
func (p *Platform) result(runtimeID func() string, cleanup func()) LaunchResult {
	client := &providerClient{router: p.router, target: func(path string) (string, string, error) {
		return p.instancePath(runtimeID(), path)
	}}
	r := LaunchResult{Endpoint: pluginBase, HTTPClient: client, Cleanup: cleanup}
	return r
}

var errNotProvided = errors.New("the plugin provides nothing at that path")

// instancePath lets calls pass to what an instance registered, and to nothing else of it.
func (p *Platform) instancePath(runtimeID, path string) (id, there string, err error) {
	for _, reg := range p.registry.catalog.ByRuntime(runtimeID) {
		if reg.Path == "" || below(reg.Path, path) {
			return runtimeID, path, nil
		}
	}
	return "", "", errNotProvided
}

// Waits between attempts to give a plugin its identity back, and attempts that succeed without one.
const firstReturn, lastReturn, freeReturns = time.Minute, 30 * time.Minute, 3

// newReturns spaces the attempts to give a plugin back the identity that it had: one that crashes again has it again.
func newReturns() backoff.Sparing {
	return backoff.Sparing{Waits: backoff.Waits{Initial: firstReturn, Max: lastReturn, Factor: 2}, Free: freeReturns}
}

// readopt gives an adopted plugin that came back, and has no identity, the one that it had, and reports whether it did.
func (p *Platform) readopt(ctx context.Context, a *adoption) bool {
	ctx, cancel := context.WithTimeout(ctx, adoptTimeout)
	defer cancel()
	var info *connectpluginv1.GetPluginInfoResponse
	err := p.handByCertificate(a, func(way *providerClient) (err error) {
		if err = hasNoIdentity(ctx, a.id, way); err == nil {
			info, err = NewPluginIdentityClient(pluginBase, way).GetPluginInfo(ctx)
		}
		return err
	})
	if err == nil {
		err = a.config.compare(info)
	}
	if err == nil {
		a.narrow(info)
		err = p.renewOnce(ctx, a)
	}
	if err == nil {
		err = p.back(ctx, a)
	}
	known := declared(a.id).adopted
	switch {
	case errors.Is(err, errItself):
		known.met()
		return false
	case err != nil && !a.failed(err):
		return false
	case err != nil:
		p.log().Warn("another process answers in the place of an adopted plugin, and does not get its identity; "+
			"trying again when it is asked for its health then, or adopt it with AddPlugin",
			keySelfID, a.config.SelfID, keyRuntimeID, a.id.RuntimeID(), keyAddr, a.config.Endpoint,
			keyWait, a.returns.Next().String(), keyError, err)
		return false
	}
	known.met()
	a.returns.Succeeded()
	p.log().Info("an adopted plugin was started again; it has its identity back",
		keySelfID, a.config.SelfID, keyRuntimeID, a.id.RuntimeID(), keyAddr, a.config.Endpoint)
	return true
}

// failed counts an attempt that failed, and reports whether the log is to say so. Whoever is somebody else by its certificate
// was given nothing, and has the plugin itself not wait.
func (a *adoption) failed(err error) bool {
	if !errors.Is(err, errAnotherKey) && !errors.Is(err, errNoMark) {
		a.returns.Failed()
		return true
	}
	due := a.strangers.Due(time.Now())
	if due {
		a.strangers.Failed()
	}
	return due
}

// back asks a plugin that got its identity back how it is, which it is asked by that identity.
func (p *Platform) back(ctx context.Context, a *adoption) error {
	provider, err := p.router.providerAt(p.hub(), a.id.RuntimeID())
	if err == nil {
		_, err = provider.ask(ctx, a.id)
	}
	if err != nil {
		return fmt.Errorf("it took the identity, and does not answer by it: %w", err)
	}
	return nil
}

var (
	errHasIdentity = errors.New("it has an identity already, and not this one: another host may have adopted it, " +
		"or another plugin took its address")
	errItself = errors.New("it has this identity")
)

// hasNoIdentity asks a plugin for a proof of its identity, whichever that is. An error says that it gives one.
func hasNoIdentity(ctx context.Context, id *tokenstore.Identity, way *providerClient) error {
	challenge := make([]byte, challengeBytes)
	_, _ = rand.Read(challenge)
	control := newPluginService(connectpluginv1connect.NewPluginControlClient, pluginBase, way)
	resp, err := askPlugin(ctx, control, &connectpluginv1.GetHealthRequest{Challenge: challenge},
		connectpluginv1connect.PluginControlClient.GetHealth)
	switch {
	case err != nil:
		return err
	case len(resp.GetProof()) == 0:
		return nil
	case id.Possesses(healthProofMessage(id.RuntimeID(), challenge), resp.GetProof()):
		return errItself
	}
	return errHasIdentity
}

func (p *Platform) renewOnce(ctx context.Context, a *adoption) error {
	hostURL, err := p.hostURL(a.config.HostURL)
	if err != nil {
		return err
	}
	a.mu.Lock()
	current, untold := a.token, a.untold
	a.mu.Unlock()
	if !untold {
		if _, current, err = p.hub().store.Renew(a.id.RuntimeID(), current, a.id.Fingerprint()); err != nil {
			return err
		}
		a.mu.Lock()
		a.token, a.untold = current, true
		a.mu.Unlock()
	}
	if err := p.hand(a, func(way *providerClient) error {
		return NewPluginIdentityClient(pluginBase, way).set(ctx, a.id.RuntimeID(), current, hostURL, a.id.ExpiresAt())
	}); err != nil {
		return err
	}
	a.mu.Lock()
	a.untold = false
	a.mu.Unlock()
	return nil
}
