package connectplugin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/depgraph"
	"github.com/masegraye/connect-plugin-go/internal/guest"
)

// Names of the strategies.
const (
	strategyProcess  = "process"
	strategyMemory   = "in-memory"
	strategyGoPlugin = "go-plugin"
)

// LaunchStrategy is a way to start plugins. Implementations are safe for concurrent use.
type LaunchStrategy interface {
	// Name is what [PluginSpec.Strategy] calls it.
	Name() string
	// Launch starts one instance of a plugin and returns when it can be called, or when ctx
	// ends; what it makes after that is cleaned up. An error says that nothing is left of it, and
	// a panic is one.
	Launch(ctx context.Context, spec PluginSpec) (LaunchResult, error)
}

// LaunchResult is a running instance.
type LaunchResult struct {
	// Endpoint is the base URL for generated clients, together with HTTPClient. Required.
	Endpoint string
	// HTTPClient reaches the instance. Required.
	HTTPClient connect.HTTPClient
	// Cleanup ends the instance and returns when nothing is left of it, within
	// [PluginSpec.StopGrace]: after that nobody waits for it. Later calls do nothing. May be nil.
	Cleanup func()
}

// boundStrategy is a strategy that works with a host, and whose instances the launcher can
// watch, hold back and drain.
type boundStrategy interface {
	LaunchStrategy
	start(ctx context.Context, p *Platform, spec PluginSpec, hold bool) (*instance, error)
}

// instance is one running instance of a launched plugin.
type instance struct {
	// Fixed at creation.
	result    LaunchResult
	pid       int
	runtimeID func() string // empty before it enrolled, and for strategies of others
	exited    <-chan struct{}
	exit      func() PluginExit // once exited is closed
	// stop ends the instance gracefully and waits for its end. Later calls wait, too. An error says what
	// of the user's code panicked or still runs.
	stop func(ctx context.Context, reason string) error
	// release puts the registrations that were held back into service, in the place of
	// those of another instance, empty for none.
	release func(old string) error
	begun   time.Time
}

// foreignLaunch has a strategy of somebody else start an instance, which runs until it is cleaned up.
func (l *PluginLauncher) foreignLaunch(ctx context.Context, strategy LaunchStrategy, spec PluginSpec) (*instance, error) {
	what := fmt.Sprintf("the strategy %q: ", spec.Strategy)
	cleanUp := func(result LaunchResult) error {
		if result.Cleanup != nil {
			result.Cleanup()
		}
		return nil
	}
	result, err := guest.Within(ctx, what+"Launch", func() (LaunchResult, error) {
		return strategy.Launch(ctx, spec)
	}, func(result LaunchResult) { _ = cleanUp(result) })
	if err != nil {
		return nil, launchFault(spec, err)
	}
	end := &lastCall{
		name: spec.Name, what: what + "LaunchResult.Cleanup", call: func() error { return cleanUp(result) }, grace: spec.StopGrace,
		log: l.platform.log, over: make(chan struct{}),
	}
	if result.Endpoint == "" || result.HTTPClient == nil {
		err := fmt.Errorf("%sLaunch returned a LaunchResult without Endpoint or HTTPClient, with which nobody can call the plugin", what)
		return nil, launchFault(spec, errors.Join(err, end.wait(ctx)))
	}
	return &instance{
		result: result, exited: end.over, begun: time.Now(),
		runtimeID: func() string { return "" },
		exit:      func() PluginExit { return PluginExit{At: time.Now(), Reason: "ended", ExitCode: -1} },
		stop:      func(ctx context.Context, _ string) error { return end.wait(ctx) },
		release:   func(string) error { return nil },
	}, nil
}

// Start launches every configured plugin that is not running: each after those that provide
// what it requires, as far as [PluginSpec.Plugin] says so, and all others at the same time. A
// plugin whose spec says nothing waits itself for the services that it cannot start without; for one
// whose spec says so the host waits, as long as [PluginSpec.ReadyTimeout] lasts, whatever its strategy.
// If one of them fails, those that Start launched are stopped again, and the error says what
// each said. Plugins that require each other with RequiredForStartup are an error before anything was
// launched; where one of them starts without, that is the first.
//
// Programs are launched when the host serves ([Host.Serve]): Start waits for that, as long as ctx lasts,
// and may be called before. In-memory plugins do not wait.
func (l *PluginLauncher) Start(ctx context.Context) error {
	l.made().mu.Lock()
	specs := maps.Clone(l.specs)
	maps.DeleteFunc(specs, func(name string, _ PluginSpec) bool { return l.plugins[name] != nil })
	l.mu.Unlock()
	before, err := startAfter(ctx, specs)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	s := &joinedStart{launcher: l, up: map[string]chan struct{}{}}
	s.ctx, s.cancel = context.WithCancel(ctx)
	defer s.cancel()
	for name := range specs {
		s.up[name] = make(chan struct{})
	}
	for name := range specs {
		s.starting.Go(func() { s.start(name, before[name]) })
	}
	s.starting.Wait()
	if s.errs == nil && len(s.started) < len(specs) { // one that waited for another gave up
		s.errs = append(s.errs, context.Cause(ctx))
	}
	if s.errs == nil {
		return nil
	}
	var stopping sync.WaitGroup
	for _, name := range s.started {
		stopping.Go(func() { // one that ended meanwhile is what is wanted
			if err := l.Stop(ctx, name); usersFault(err) {
				s.fail(err)
			}
		})
	}
	stopping.Wait()
	return fmt.Errorf("start: %w", errors.Join(s.errs...))
}

// joinedStart starts several plugins, all or none.
type joinedStart struct {
	// Fixed at creation.
	launcher *PluginLauncher
	ctx      context.Context //nolint:containedctx // ends with the first failure
	cancel   context.CancelFunc
	up       map[string]chan struct{} // closed when the plugin runs

	starting sync.WaitGroup

	mu      sync.Mutex
	started []string
	errs    []error
}

func (s *joinedStart) start(name string, after []string) {
	for _, other := range after {
		select {
		case <-s.up[other]:
		case <-s.ctx.Done():
			return
		}
	}
	var p *launchedPlugin
	err := s.launcher.awaitHost(s.ctx, name)
	if err == nil {
		err = s.ctx.Err()
	}
	if err == nil {
		p, err = s.launcher.plugin(name)
	}
	if err == nil {
		_, err = p.await(s.ctx)
	}
	if err == nil {
		err = s.ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p != nil {
		s.started = append(s.started, name)
	}
	if err != nil {
		s.errs = append(s.errs, fmt.Errorf("plugin %q: %w", clipped(name), err))
		s.cancel()
		return
	}
	close(s.up[name])
}

// fail adds what was not stopped to why.
func (s *joinedStart) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.errs = append(s.errs, err)
}

// awaitHost waits until the host serves, where the plugin of a name is a program that has to reach it.
func (l *PluginLauncher) awaitHost(ctx context.Context, name string) error {
	spec, _ := l.configured(name)
	if spec.Strategy != strategyProcess || spec.HostURL != "" || l.platform.hub().settings().authority == nil {
		return nil
	}
	_, err := l.platform.awaitHostURL(ctx, "")
	return err
}

// startAfter returns, for each plugin, those that it is started after.
func startAfter(ctx context.Context, specs map[string]PluginSpec) (map[string][]string, error) {
	nodes, providers := map[string]depgraph.Node{}, map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(specs)) {
		n, err := specNode(ctx, name, specs[name])
		if err != nil {
			return nil, err
		}
		nodes[name] = n
		for _, p := range n.Provides {
			providers[p.Type] = append(providers[p.Type], name)
		}
	}
	var g depgraph.Graph
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		n := nodes[name]
		n.Requires = slices.DeleteFunc(n.Requires, func(r depgraph.Requirement) bool { return len(providers[r.Type]) == 0 })
		nodes[name] = n // what nobody here provides may come from elsewhere
		g.Add(n)
	}
	order, err := g.StartupOrder()
	if errors.Is(err, depgraph.ErrCycle) {
		err = fmt.Errorf("%w: none of them can be the first: take RequiredForStartup from one of these requirements, "+
			"with WatchForChanges if that plugin is to be degraded until the other is there", err)
	}
	if err != nil {
		return nil, err
	}
	after := map[string][]string{}
	for i, name := range order {
		for _, r := range nodes[name].Requires {
			for _, provider := range providers[r.Type] {
				if slices.Contains(order[:i], provider) {
					after[name] = append(after[name], provider)
				}
			}
		}
	}
	return after, nil
}

// specNode draws a plugin that is not running yet.
func specNode(ctx context.Context, name string, spec PluginSpec) (depgraph.Node, error) {
	var m PluginMetadata
	if spec.Plugin != nil {
		var err error
		if m, err = spec.pluginMetadata(ctx); err != nil {
			return depgraph.Node{}, err
		}
	}
	n := graphNode(name, spec.Name, m.Provides, m.Requires)
	for _, t := range spec.Provides {
		if !slices.ContainsFunc(n.Provides, func(p depgraph.Provision) bool { return p.Type == t }) {
			n.Provides = append(n.Provides, depgraph.Provision{Type: t, Version: m.Version})
		}
	}
	return n, nil
}

// pluginMetadata asks the plugin what it says of itself.
func (s PluginSpec) pluginMetadata(ctx context.Context) (PluginMetadata, error) {
	return guest.Within(ctx, fmt.Sprintf("PluginSpec[%q].Plugin.Metadata", s.Name), func() (PluginMetadata, error) {
		return s.Plugin.Metadata().clone(), nil
	}, nil)
}
