package connectplugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"
)

// PluginLauncher starts plugins, watches over them, replaces and stops them. It is safe for
// concurrent use. Stop it with [PluginLauncher.Shutdown]; the host's own ends with the host.
type PluginLauncher struct {
	// Fixed at creation.
	platform *Platform
	registry *ServiceRegistry
	life     context.Context //nolint:containedctx // ends with the launcher, which owns the goroutines
	end      context.CancelFunc
	tasks    sync.WaitGroup

	mu         sync.Mutex
	strategies map[string]LaunchStrategy
	specs      map[string]PluginSpec
	plugins    map[string]*launchedPlugin
	closed     bool
}

// NewPluginLauncher makes a launcher for the plugins of a platform, with the process, the
// in-memory and the go-plugin strategy. Nil makes a platform. A host has a launcher already: see
// [Host.Launcher].
func NewPluginLauncher(platform *Platform, registry *ServiceRegistry) *PluginLauncher {
	if platform == nil {
		platform = NewPlatform(registry, nil, nil)
	}
	mustBeMade("NewPluginLauncher: the platform", platform.router != nil, "NewPlatform")
	l := &PluginLauncher{
		platform: platform, registry: cmp.Or(registry, platform.registry),
		strategies: map[string]LaunchStrategy{}, specs: map[string]PluginSpec{}, plugins: map[string]*launchedPlugin{},
	}
	l.life, l.end = context.WithCancel(context.Background())
	l.RegisterStrategy(NewProcessStrategy())
	l.RegisterStrategy(NewInMemoryStrategy(l.registry))
	l.RegisterStrategy(NewGoPluginStrategy())
	platform.mu.Lock()
	platform.owners = append(platform.owners, l)
	platform.mu.Unlock()
	return l
}

// RegisterStrategy adds a way to start plugins, in the place of one of the same name. A nil
// strategy is a programming error and panics. A [ProcessStrategy] or [GoPluginStrategy] that another launcher has launches
// nothing for this one, and says so.
func (l *PluginLauncher) RegisterStrategy(strategy LaunchStrategy) {
	s, own := strategy.(interface{ bind(l *PluginLauncher) bool })
	if strategy == nil || own && isNil(strategy) { // a nil pointer of the user's may do
		panic("connectplugin: RegisterStrategy: strategy is nil")
	}
	if own {
		s.bind(l.made())
	}
	l.made().mu.Lock()
	defer l.mu.Unlock()
	l.strategies[strategy.Name()] = strategy
}

// Configure says how plugins are launched, by name, in the place of what was said before. It
// starts nothing and stops nothing: a running plugin keeps the spec that it was started with
// until it is replaced, or ended by itself and is started again. A plugin without a spec any more
// keeps its last one. A spec that is wrong is an error of whoever wants the plugin.
func (l *PluginLauncher) Configure(specs map[string]PluginSpec) {
	next := make(map[string]PluginSpec, len(specs))
	for name, spec := range specs {
		next[name] = spec.withDefaults(name)
	}
	l.made().mu.Lock()
	defer l.mu.Unlock()
	l.specs = next
}

// GetService returns the base URL of a service of a plugin, which it launches unless it is
// running. Only the instance that was launched provides it, whoever else provides the same
// type. The plugin is reached with the client that [PluginLauncher.GetServiceClient] returns
// with the URL. It waits at most for [PluginSpec.ReadyTimeout].
func (l *PluginLauncher) GetService(pluginName string, serviceType string) (string, error) {
	url, _, err := l.GetServiceClient(pluginName, serviceType)
	return url, err
}

// GetDefaultService is [PluginLauncher.GetService] for the first service of a plugin.
func (l *PluginLauncher) GetDefaultService(pluginName string) (string, error) {
	return l.GetService(pluginName, "")
}

// GetServiceClient returns the base URL of a service of a plugin, as GetService does, and the
// HTTP client that reaches it there, which follows the plugin when it is started again or
// replaced. The client reaches nothing but that service.
func (l *PluginLauncher) GetServiceClient(pluginName string, serviceType string) (string, connect.HTTPClient, error) {
	p, err := l.made().plugin(pluginName)
	if err != nil {
		return "", nil, err
	}
	i, err := p.await(l.life)
	if err != nil {
		return "", nil, fmt.Errorf("plugin %q: %w", clipped(pluginName), err)
	}
	if i.runtimeID() == "" {
		return i.result.Endpoint, i.result.HTTPClient, nil // of a strategy that only knows its own
	}
	if serviceType == "" {
		if serviceType = p.defaultService(i); serviceType == "" {
			return "", nil, fmt.Errorf("plugin %q: %w: it provides no service", clipped(pluginName), ErrPluginNotFound)
		}
	}
	if _, ok := l.platform.registry.catalog.Provider(serviceType, i.runtimeID()); !ok {
		return "", nil, fmt.Errorf("plugin %q: %w: it does not provide %q", clipped(pluginName), ErrPluginNotFound, clipped(serviceType))
	}
	client := &providerClient{router: l.platform.router, target: func(path string) (string, string, error) {
		return p.servicePath(serviceType, path)
	}}
	return i.result.Endpoint, client, nil
}

// Shutdown stops every plugin that the launcher started, in parallel, and waits for their
// end. Nothing is launched any more. What of the user's code does not return within the
// StopGrace of its plugin is left running, and logged.
func (l *PluginLauncher) Shutdown() { _ = l.made().shutdown(context.Background()) } // the log has it

// Stop stops a plugin, by name, and returns when nothing is left of it; the end of ctx
// cuts its grace short. It can be launched again. The error wraps [ErrPluginNotRunning] where it
// does not run. Any other says that the plugin is stopped, and which code of the user's in this
// process panicked, or has not returned within StopGrace, or a second after the end of ctx: its
// goroutine is left to it.
func (l *PluginLauncher) Stop(ctx context.Context, pluginName string) error {
	l.made().mu.Lock()
	p := l.plugins[pluginName]
	l.mu.Unlock()
	if p == nil {
		return fmt.Errorf("stop %q: %w", clipped(pluginName), ErrPluginNotRunning)
	}
	if err := p.stop(ctx, "stopped"); err != nil {
		return fmt.Errorf("stop %q: %w", clipped(pluginName), err)
	}
	return nil
}

// Replace starts a new instance of a running plugin beside the old one, with the spec that is
// configured now, lets the services pass over to it in one step when it is healthy, and then
// stops the old one, whose calls in flight may finish within its StopGrace. If the new
// instance fails, or ctx ends before it is in service, nothing has changed, and the error says why. Once it is, the old one has its
// StopGrace however long ctx lasts. So it is where the old instance alone provides what
// another plugin requires with RequiredForStartup, and the new one has no version that will do: both have to be there beside each
// other, or that plugin has to accept both; [PluginLauncher.Stop] and [PluginLauncher.Start] ask nobody. Of plugins that
// start without it, or that have no connection to the host any more, the log warns. A plugin that is not running is
// launched now, also one that was to be started again later. How often it failed before is
// forgotten.
func (l *PluginLauncher) Replace(ctx context.Context, pluginName string) error {
	l.made().mu.Lock()
	spec, ok := l.specs[pluginName]
	p := l.plugins[pluginName]
	l.mu.Unlock()
	if !ok {
		return fmt.Errorf("replace: %w", l.unknown(pluginName))
	}
	err := calledOff(ctx)
	switch {
	case err != nil:
	case p == nil:
		err = l.launchNow(ctx, pluginName)
	default:
		err = p.replace(ctx, spec)
	}
	if err != nil {
		return fmt.Errorf("replace %q: %w", clipped(pluginName), err)
	}
	return nil
}

// made returns a launcher that NewPluginLauncher made.
func (l *PluginLauncher) made() *PluginLauncher {
	mustBeMade("the PluginLauncher", l != nil && l.platform != nil, "NewPluginLauncher")
	return l
}

// launchNow launches a plugin that is not running. It does not run where ctx ended before it did, unless somebody else
// launched it meanwhile.
func (l *PluginLauncher) launchNow(ctx context.Context, name string) error {
	p, begun, err := l.begin(name)
	if err != nil {
		return err
	}
	if _, err = p.await(ctx); ctx.Err() == nil {
		return err
	}
	err = cmp.Or(err, context.Cause(ctx))
	if begun {
		err = errors.Join(err, p.stop(ctx, "it was called off"))
	}
	return err
}

// shutdown is Shutdown that has no more patience than ctx lasts. An error says what still runs.
func (l *PluginLauncher) shutdown(ctx context.Context) error {
	l.mu.Lock()
	l.closed = true
	plugins := slices.Collect(maps.Values(l.plugins))
	strategies := slices.Collect(maps.Values(l.strategies))
	l.mu.Unlock()
	l.end()
	var stopping sync.WaitGroup
	errs := make([]error, len(plugins))
	for i, p := range plugins {
		stopping.Go(func() { errs[i] = p.stop(ctx, "the host shuts down") })
	}
	stopping.Wait()
	l.tasks.Wait()
	for _, s := range strategies {
		if c, ok := s.(interface {
			bind(l *PluginLauncher) bool
			close()
		}); ok && c.bind(l) {
			c.close()
		}
	}
	return errors.Join(errs...)
}

// configured returns the spec of a name as it is now.
func (l *PluginLauncher) configured(name string) (PluginSpec, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	spec, ok := l.specs[name]
	return spec, ok
}

// programs are those that a plugin may yet be started with.
func (l *PluginLauncher) programs() map[string]bool {
	all := map[string]bool{}
	l.mu.Lock()
	for _, spec := range l.specs {
		all[spec.program()] = true
	}
	plugins := slices.Collect(maps.Values(l.plugins))
	l.mu.Unlock()
	for _, p := range plugins {
		all[p.specNow().program()] = true
	}
	return all
}

func (l *PluginLauncher) unknown(name string) error {
	return fmt.Errorf("%w: no spec is configured for %q: see PluginLauncher.Configure", ErrPluginNotFound, clipped(name))
}

// plugin returns the plugin of a name, and launches it unless it was.
func (l *PluginLauncher) plugin(name string) (*launchedPlugin, error) {
	p, _, err := l.begin(name)
	return p, err
}

// begin does the same, and reports whether it launches it.
func (l *PluginLauncher) begin(name string) (p *launchedPlugin, begun bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, false, ErrHostClosed
	}
	if p := l.plugins[name]; p != nil {
		return p, false, nil
	}
	spec, ok := l.specs[name]
	if !ok {
		return nil, false, l.unknown(name)
	}
	if err := spec.validate(); err != nil {
		return nil, false, err
	}
	p = newLaunchedPlugin(l, name, spec)
	l.plugins[name] = p
	l.tasks.Go(p.run)
	return p, true, nil
}

// forgetPlugin takes a plugin out that is over.
func (l *PluginLauncher) forgetPlugin(p *launchedPlugin) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.plugins[p.name] == p {
		delete(l.plugins, p.name)
	}
}

// start starts one instance with the strategy of a spec, and tells the observer.
func (l *PluginLauncher) start(ctx context.Context, spec PluginSpec, hold bool) (*instance, error) {
	begun := time.Now()
	i, err := l.startInstance(ctx, spec, hold)
	if o := l.platform.hub().observer(); o != nil {
		e := LaunchEvent{Name: spec.Name, Failed: err != nil, Duration: time.Since(begun)}
		if err == nil {
			e.RuntimeID, e.Pid = i.runtimeID(), i.pid
		}
		l.platform.tell(ctx, spec, "Observer.Launch", func() { o.Launch(e) })
	}
	return i, err
}

func (l *PluginLauncher) startInstance(ctx context.Context, spec PluginSpec, hold bool) (*instance, error) {
	l.mu.Lock()
	strategy, known := l.strategies[spec.Strategy], slices.Sorted(maps.Keys(l.strategies))
	l.mu.Unlock()
	if strategy == nil {
		return nil, fieldError(fmt.Sprintf("PluginSpec[%q].Strategy", spec.Name),
			"%q is not registered; write one of %q, or add it with RegisterStrategy", clipped(spec.Strategy), known)
	}
	if l.platform.hub().launches.Barred(spec.Name) {
		return nil, errBarred
	}
	ctx, cancel := context.WithTimeoutCause(ctx, spec.ReadyTimeout, errReadyTime)
	defer cancel()
	if err := l.platform.awaitRequired(ctx, spec); err != nil {
		return nil, launchFault(spec, err)
	}
	if s, ok := strategy.(interface{ bind(l *PluginLauncher) bool }); ok && !s.bind(l) {
		return nil, fieldError(fmt.Sprintf("PluginSpec[%q].Strategy", spec.Name),
			"%q is a %T that was given to another launcher, which ends what it starts; give RegisterStrategy one of this launcher's own",
			clipped(spec.Strategy), s)
	}
	var i *instance
	var err error
	if bound, ok := strategy.(boundStrategy); ok {
		i, err = bound.start(ctx, l.platform, spec, hold)
	} else {
		i, err = l.foreignLaunch(ctx, strategy, spec)
	}
	if err != nil {
		return nil, err
	}
	return i.inTime(ctx, spec)
}

// launcherOf returns who launched a plugin.
func (p *Platform) launcherOf(runtimeID string) (l *PluginLauncher, name string, ok bool) {
	p.mu.Lock()
	owners := slices.Clone(p.owners)
	p.mu.Unlock()
	for _, l := range owners {
		l.mu.Lock()
		plugins := slices.Collect(maps.Values(l.plugins))
		l.mu.Unlock()
		for _, lp := range plugins {
			if i := lp.running(); i != nil && i.runtimeID() == runtimeID {
				return l, lp.name, true
			}
		}
	}
	return nil, "", false
}
