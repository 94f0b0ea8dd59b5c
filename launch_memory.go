package connectplugin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/backoff"
	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/guest"
	"github.com/masegraye/connect-plugin-go/internal/launches"
	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// InMemoryStrategy runs a plugin in the host's own process: [PluginSpec.Plugin] serves what
// [PluginSpec.ImplFactory] makes. It is validated, allowed by policy, given an identity,
// announced, drained and ended as any other plugin; only its calls are dispatched directly.
// An implementation that has a method Close, with or without an error, is closed at the end, which may
// take [PluginSpec.StopGrace]. A panic of Plugin, ImplFactory or Close is an error of the launch or of
// [PluginLauncher.Stop]; one of them that does not return holds up nobody for longer than ReadyTimeout or
// StopGrace, and its goroutine is left to it. It is safe for concurrent use.
type InMemoryStrategy struct {
	registry *ServiceRegistry // fixed at creation

	mu   sync.Mutex
	host *Platform
}

// NewInMemoryStrategy makes an in-memory strategy. Register it with
// [PluginLauncher.RegisterStrategy].
func NewInMemoryStrategy(registry *ServiceRegistry) *InMemoryStrategy {
	return &InMemoryStrategy{registry: registry}
}

// Name returns "in-memory".
func (s *InMemoryStrategy) Name() string { return strategyMemory }

// Launch puts a plugin into service in the host's own process.
func (s *InMemoryStrategy) Launch(ctx context.Context, spec PluginSpec) (LaunchResult, error) {
	s.mu.Lock()
	host := s.host
	s.mu.Unlock()
	if host == nil {
		return LaunchResult{}, errNoLauncher
	}
	return launchAlone(ctx, s, host, spec)
}

// bind ties the strategy to a launcher; several may have it, as nothing of it ends with one.
func (s *InMemoryStrategy) bind(l *PluginLauncher) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.host = l.platform
	return true
}

func (s *InMemoryStrategy) start(ctx context.Context, p *Platform, spec PluginSpec, hold bool) (*instance, error) {
	if s.registry != nil && s.registry != p.registry {
		return nil, fmt.Errorf("launch %q: the strategy has the registry of another host", spec.Name)
	}
	m := &memoryLaunch{platform: p, spec: spec}
	m.closing = &lastCall{
		name: spec.Name, what: m.field("ImplFactory") + ": Close of the implementation", call: m.close, grace: spec.StopGrace,
		log: p.log, over: make(chan struct{}),
	}
	if err := m.run(ctx, hold); err != nil {
		return nil, launchFault(spec, errors.Join(err, m.end(ctx, reasonRemoved)))
	}
	return m.instance(), nil
}

// memoryLaunch is one plugin in the host's own process.
type memoryLaunch struct {
	// Fixed at creation.
	platform *Platform
	spec     PluginSpec
	closing  *lastCall

	launch *launches.Launch
	id     *tokenstore.Identity // nil before it has one
	impl   any
	begun  time.Time

	mu    sync.Mutex
	asked bool
	at    time.Time
}

// run makes the handler and takes it through the same doors as any other plugin.
func (m *memoryLaunch) run(ctx context.Context, hold bool) error {
	metadata, handler, err := m.make(ctx)
	if err == nil {
		err = stillWanted(ctx)
	}
	if err != nil {
		return err
	}
	hub := m.platform.hub()
	m.launch = launches.New("", m.spec.Name, m.spec.Provides)
	id, token, err := hub.issueOwn(m.spec.Name, metadata.Version, metadata, func(d *declaration) { d.launch = m.launch })
	if err != nil {
		return err
	}
	if hold {
		m.launch.Hold()
	}
	m.id, m.begun = id, time.Now()
	m.launch.Enrolled(id)
	if err := m.platform.keepAlive(id, token); err != nil {
		return err
	}
	if err := m.platform.registerFor(ctx, id, metadata.Provides, m.spec.Metadata); err != nil {
		return err
	}
	if err := m.platform.router.RegisterPluginHandler(id.RuntimeID(), handler); err != nil {
		return err
	}
	return m.platform.serves(id, metadata.Requires)
}

// field names a field of the spec.
func (m *memoryLaunch) field(name string) string {
	return fmt.Sprintf("PluginSpec[%q].%s", m.spec.Name, name)
}

// make asks the plugin for its handler and checks what it says of itself.
func (m *memoryLaunch) make(ctx context.Context) (PluginMetadata, http.Handler, error) {
	switch {
	case m.spec.Plugin == nil && m.spec.BinaryPath == "":
		return PluginMetadata{}, nil, fieldError(m.field("BinaryPath"), "is empty, and so is Plugin; write the path of a program, "+
			"or set Plugin and ImplFactory for a plugin in the host's own process")
	case m.spec.Plugin == nil:
		return PluginMetadata{}, nil, fieldError(m.field("Plugin"),
			"is nil; the strategy %q needs it: set it, or leave Strategy empty to run BinaryPath", strategyMemory)
	case m.spec.ImplFactory == nil:
		return PluginMetadata{}, nil, fieldError(m.field("ImplFactory"), "is nil; the strategy %q, which a spec without BinaryPath has, "+
			"makes the implementation with it: set it, or write BinaryPath to run a program", strategyMemory)
	case m.spec.GoPlugin != nil:
		return PluginMetadata{}, nil, fieldError(m.field("GoPlugin"), "is for the strategy %q", strategyGoPlugin)
	}
	metadata, err := m.spec.pluginMetadata(ctx)
	if err == nil {
		err = metadata.validate(m.field("Plugin.Metadata"))
	}
	if err != nil {
		return metadata, nil, err
	}
	path, handler, err := m.serve(ctx)
	if err != nil {
		return metadata, nil, err
	}
	path = servicePath(path)
	if err := ValidateEndpointPath(path); err != nil {
		return metadata, nil, fmt.Errorf("%w: %w", ErrInvalidPluginImpl, err)
	}
	m.declare(&metadata, path)
	have, want := policy.NewSet(typesOf(metadata.Provides)).List(), policy.NewSet(m.spec.Provides).List()
	if len(want) > 0 && !slices.Equal(have, want) {
		return metadata, nil, fieldError(m.field("Provides"), "is %q; the plugin provides %q", want, have)
	}
	return metadata, handler, nil
}

// serve makes the implementation and asks the plugin for the handler that serves it. What comes too late is closed.
func (m *memoryLaunch) serve(ctx context.Context) (string, http.Handler, error) {
	type served struct {
		path    string
		handler http.Handler
	}
	var (
		made served
		err  error
	)
	m.impl, err = guest.Within(ctx, m.field("ImplFactory"), func() (any, error) { return m.spec.ImplFactory(), nil },
		func(impl any) { _ = closeImpl(impl) })
	if late := stillWanted(ctx); err == nil && late != nil {
		return "", nil, late
	}
	if err == nil && m.impl == nil {
		err = errors.New("ImplFactory made nothing")
	}
	if err == nil {
		impl := m.impl
		made, err = guest.Within(ctx, m.field("Plugin.ConnectServer"), func() (s served, err error) {
			s.path, s.handler, err = m.spec.Plugin.ConnectServer(impl)
			return s, err //nolint:wrapcheck // the caller wraps it
		}, nil)
	}
	if err == nil && isOwnPath(servicePath(made.path)) {
		err = fmt.Errorf("ConnectServer returned the path %q of one of this library's own services", clipped(made.path))
	}
	if err == nil && isNil(made.handler) {
		err = errors.New("ConnectServer returned no handler")
	}
	if err != nil {
		return "", nil, fmt.Errorf("%w: %w", ErrInvalidPluginImpl, err)
	}
	return made.path, made.handler, nil
}

// declare completes what the plugin provides: one that says nothing provides what the spec
// says, at the path of its handler.
func (m *memoryLaunch) declare(metadata *PluginMetadata, path string) {
	if metadata.Version == "" {
		metadata.Version = defaultPluginVersion
	}
	if len(metadata.Provides) == 0 {
		for _, t := range m.spec.Provides {
			metadata.Provides = append(metadata.Provides, ServiceDeclaration{Type: t, Version: metadata.Version})
		}
	}
	for i := range metadata.Provides {
		if metadata.Provides[i].Path = servicePath(metadata.Provides[i].Path); metadata.Provides[i].Path == "" {
			metadata.Provides[i].Path = path
		}
	}
}

// defaultPluginVersion is the version of a plugin that says none.
const defaultPluginVersion = "0.0.0"

// instance returns the plugin as the launcher sees it.
func (m *memoryLaunch) instance() *instance {
	// Whatever ends the identity ends the plugin; whoever ended it does not wait for that.
	m.id.OnEnd(m.closing.begin)
	runtimeID := func() string { return m.id.RuntimeID() }
	i := &instance{
		exited: m.closing.over, begun: m.begun, runtimeID: runtimeID, exit: m.exit, stop: m.stop,
		release: func(old string) error { return m.platform.release(m.launch, old) },
	}
	i.result = m.platform.result(runtimeID, func() { _ = m.stop(context.Background(), "cleanup") }) // the log has it
	return i
}

// stop withdraws the plugin, lets its calls finish and ends it.
func (m *memoryLaunch) stop(ctx context.Context, _ string) error {
	m.mu.Lock()
	m.asked = true
	m.mu.Unlock()
	m.platform.registry.catalog.RemoveWhere(ofRuntime(m.id.RuntimeID()))
	drain, cancel := context.WithTimeout(ctx, m.spec.StopGrace)
	defer cancel()
	if err := m.platform.router.drainProvider(drain, m.id.RuntimeID()); err != nil {
		m.platform.log().Warn("calls to a plugin were cut off", keyPlugin, m.spec.Name, keyError, err)
	}
	return m.end(ctx, reasonRemoved)
}

// end ends the plugin at once, and waits until its implementation is closed.
func (m *memoryLaunch) end(ctx context.Context, reason tokenstore.Reason) error {
	if m.id != nil {
		m.platform.hub().store.Revoke(m.id.RuntimeID(), reason)
	}
	return m.closing.wait(ctx)
}

// close closes the implementation of a plugin whose identity has ended.
func (m *memoryLaunch) close() error {
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.at = time.Now()
	}()
	return closeImpl(m.impl)
}

// closeImpl closes an implementation that can be closed.
func closeImpl(impl any) error {
	switch impl := impl.(type) {
	case interface{ Close() error }:
		return impl.Close() //nolint:wrapcheck // the log has it as it is
	case interface{ Close() }:
		impl.Close()
	}
	return nil
}

// exit says how the plugin ended: now, where its implementation is not closed yet.
func (m *memoryLaunch) exit() PluginExit {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := m.at
	if at.IsZero() {
		at = time.Now()
	}
	return PluginExit{
		Name: m.spec.Name, RuntimeID: m.id.RuntimeID(), At: at, ExitCode: -1, Requested: m.asked,
		Reason: "identity ended: " + string(m.id.Reason()),
	}
}

// registerFor registers what a plugin provides that the host gave its identity, within its
// rights.
func (p *Platform) registerFor(ctx context.Context, id *tokenstore.Identity, provides []ServiceDeclaration, metadata map[string]string) error {
	c := &caller{id: id, hub: p.hub()}
	for _, d := range provides {
		req := &connectpluginv1.RegisterServiceRequest{ServiceType: d.Type, Version: d.Version, EndpointPath: d.Path, Metadata: metadata}
		if err := validateRegistration(id.RuntimeID(), req); err != nil {
			return fmt.Errorf("register %q: %w", d.Type, err)
		}
		reg := catalog.Registration{
			ID: "reg-" + strings.ToLower(rand.Text()), RuntimeID: id.RuntimeID(), Type: d.Type, Version: d.Version, Path: d.Path,
			Metadata: metadata, Weight: declaredWeight(metadata), RegisteredAt: time.Now(),
		}
		if err := p.registry.registerFor(ctx, c, reg, ""); err != nil {
			return fmt.Errorf("register %q: policy does not allow it, or another plugin provides it: %w", d.Type, err)
		}
		p.registry.note(ctx, AuditEvent{
			Kind: AuditRegistered, RuntimeID: id.RuntimeID(), SelfID: id.SelfID(), Right: RightProvides, Subject: d.Type,
		})
	}
	return nil
}

// keepAlive renews the token of an identity that only the host knows, until the identity
// ends.
func (p *Platform) keepAlive(id *tokenstore.Identity, token string) error {
	life, stop := context.WithCancel(p.life)
	id.OnEnd(stop)
	started := p.task(func() {
		defer stop()
		for backoff.Wait(life, max(renewIn(id), renewFloor)) {
			_, next, err := p.hub().store.Renew(id.RuntimeID(), token, id.Fingerprint())
			if err != nil {
				p.log().Warn("the identity of a plugin is not renewed", keyRuntimeID, id.RuntimeID(), keyError, err)
				continue
			}
			token = next
		}
	})
	if !started {
		stop()
		return ErrHostClosed
	}
	return nil
}
