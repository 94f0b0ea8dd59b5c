package connectplugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
	"github.com/masegraye/connect-plugin-go/internal/supervise"
)

// LaunchState is where a launched plugin stands.
type LaunchState string

// The states of a launched plugin.
const (
	LaunchStarting LaunchState = "starting" // an instance was started and is not healthy yet
	LaunchRunning  LaunchState = "running"  // an instance is in service
	LaunchBackoff  LaunchState = "backoff"  // the last instance failed, another one is started later
	LaunchBroken   LaunchState = "broken"   // it failed too often: the next start is put off
	LaunchStopping LaunchState = "stopping" // it is being stopped
	LaunchStopped  LaunchState = "stopped"  // it ended and is not started again
)

// launchedPlugin is one plugin of a launcher, with one goroutine that watches over it.
type launchedPlugin struct {
	// Fixed at creation.
	launcher *PluginLauncher
	name     string
	life     context.Context //nolint:containedctx // ends with the plugin, which owns the goroutine
	end      context.CancelCauseFunc
	grace    context.Context //nolint:containedctx // ends when the end may take no longer
	hurry    context.CancelFunc
	done     chan struct{}  // closed when nothing is left of it
	swap     chan *swapping // instances that take over

	supervisor *supervise.Supervisor // of that goroutine alone

	replacing sync.Mutex // held during a replacement; guards nothing

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at each change
	spec     PluginSpec
	state    LaunchState
	current  *instance   // nil unless it is running
	leaving  []*instance // that are asked to end, and may have calls in flight
	err      error       // why it is not
	next     supervise.Next
	restarts int
	lastExit *PluginExit
	reason   string // why it is being stopped
	stuck    error  // what of the user's code panicked or still runs after that
}

// swapping is an instance that takes over from the current one.
type swapping struct {
	spec   PluginSpec
	fresh  *instance
	wanted func() error // why nobody wants it any more, nil as long as somebody does
	taken  chan succession
}

// succession is what came of it: whose place it took, nil for nobody's, or why it did not.
type succession struct {
	old *instance
	err error
}

func newLaunchedPlugin(l *PluginLauncher, name string, spec PluginSpec) *launchedPlugin {
	p := &launchedPlugin{
		launcher: l, name: name, spec: spec, state: LaunchStarting,
		done: make(chan struct{}), swap: make(chan *swapping), changed: make(chan struct{}),
		supervisor: supervise.New(spec.Restart.supervision()),
	}
	p.life, p.end = context.WithCancelCause(context.Background())
	p.grace, p.hurry = context.WithCancel(context.Background()) //nolint:gosec // whoever stops the plugin may call it
	return p
}

// run starts the plugin and watches over it until it is stopped.
func (p *launchedPlugin) run() {
	defer close(p.done)
	defer p.launcher.forgetPlugin(p)
	i, err := p.launcher.start(p.life, p.specNow(), false)
	if err != nil { // rolled back whole: whoever wants the plugin tries again
		p.launcher.forgetPlugin(p)
		p.set(LaunchStopped, nil, err)
		return
	}
	p.set(LaunchRunning, i, nil)
	for i != nil {
		exit, ran, unasked := p.watch(i)
		if !unasked {
			return
		}
		next := p.supervisor.Failed(time.Now(), ran)
		if p.specNow().Restart.Never {
			p.launcher.forgetPlugin(p)
			p.set(LaunchStopped, nil, exitError(exit))
			p.note(exit, supervise.Next{}, ran)
			return
		}
		p.down(next, exitError(exit))
		p.note(exit, next, ran)
		i = p.again(next, exitError(exit))
	}
	p.set(LaunchStopped, nil, ErrPluginNotRunning)
}

// again returns an instance that runs in the place of one that failed: one that was started when
// it was due, or another that took its place before. Nil is the end of the plugin.
func (p *launchedPlugin) again(next supervise.Next, why error) *instance {
	for {
		i, alive := p.rest(next, why)
		if i != nil || !alive {
			return i
		}
		i, err := p.startAgain()
		if err == nil {
			p.set(LaunchRunning, i, nil)
			return i
		}
		next, why = p.supervisor.Failed(time.Now(), 0), err
		p.down(next, why)
	}
}

// startAgain starts an instance with the spec that is configured now. Without one the plugin keeps
// the one that it has.
func (p *launchedPlugin) startAgain() (*instance, error) {
	if spec, ok := p.launcher.configured(p.name); ok {
		p.mu.Lock()
		p.spec = spec
		p.mu.Unlock()
	}
	spec := p.specNow()
	if err := spec.validate(); err != nil { // it may have come after the plugin
		return nil, err
	}
	p.supervisor.Configure(spec.Restart.supervision())
	return p.launcher.start(p.life, spec, false)
}

// watch returns when the current instance, or one that took its place, ended by itself, or
// was stopped.
func (p *launchedPlugin) watch(i *instance) (exit PluginExit, ran time.Duration, unasked bool) {
	for {
		select {
		case <-i.exited:
			return i.exit(), time.Since(i.begun), true
		case s := <-p.swap:
			i = p.takeOver(i, s)
		case <-p.life.Done():
			p.mu.Lock()
			p.state, p.current, p.leaving = LaunchStopping, nil, append(p.leaving, i)
			reason := p.reason
			p.tellLocked()
			p.mu.Unlock()
			err := i.stop(p.grace, reason)
			p.mu.Lock()
			p.stuck = err
			p.mu.Unlock()
			p.left(i)
			p.note(i.exit(), supervise.Next{}, time.Since(i.begun))
			p.set(LaunchStopped, nil, ErrPluginNotRunning)
			return PluginExit{}, 0, false
		}
	}
}

// takeOver puts a fresh instance into service, in the place of another or of none, and returns
// the one that is in service then. What failed before it is forgotten.
func (p *launchedPlugin) takeOver(old *instance, s *swapping) *instance {
	former := ""
	if old != nil {
		former = old.runtimeID()
	}
	err := s.wanted()
	if p.life.Err() != nil {
		err = ErrPluginNotRunning
	}
	if err == nil {
		err = s.fresh.release(former)
	}
	if err != nil {
		s.taken <- succession{err: err}
		return old
	}
	p.supervisor.Configure(s.spec.Restart.supervision())
	p.supervisor.Reset()
	p.mu.Lock()
	p.spec, p.next = s.spec, supervise.Next{}
	if old != nil {
		p.leaving = append(p.leaving, old) // whoever replaces it has it end
	}
	p.mu.Unlock()
	p.set(LaunchRunning, s.fresh, nil)
	s.taken <- succession{old: old}
	return s.fresh
}

// replace starts an instance beside the current one, if there is one, and lets it take over. It does nothing once ctx has
// ended, but what it has begun: an instance whose place was taken has its grace.
func (p *launchedPlugin) replace(ctx context.Context, spec PluginSpec) error {
	if err := spec.validate(); err != nil {
		return err
	}
	p.replacing.Lock()
	defer p.replacing.Unlock()
	if err := calledOff(ctx); err != nil {
		return err
	}
	current, err := p.standing(ctx)
	if err != nil {
		return err
	}
	fresh, err := p.startBeside(ctx, spec)
	if err != nil {
		return err
	}
	old, err := p.handOver(ctx, current, &swapping{
		spec: spec, fresh: fresh, wanted: func() error { return calledOff(ctx) }, taken: make(chan succession, 1),
	})
	if err != nil {
		end, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(p.grace, cancel)()
		return errors.Join(err, fresh.stop(end, "it could not take over"))
	}
	if old == nil {
		return nil
	}
	err = old.stop(p.grace, "replaced")
	p.left(old)
	p.note(old.exit(), supervise.Next{}, time.Since(old.begun))
	if err != nil {
		err = fmt.Errorf("it is replaced; the old instance: %w", err)
	}
	return err
}

// calledOff is an error once ctx has ended.
func calledOff(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return fmt.Errorf("it was called off, and nothing has changed: %w", context.Cause(ctx))
}

// standing returns the instance in service, and nil where the plugin is down until its next start.
func (p *launchedPlugin) standing(ctx context.Context) (*instance, error) {
	p.mu.Lock()
	down := p.state == LaunchBackoff || p.state == LaunchBroken
	p.mu.Unlock()
	if down {
		return nil, nil //nolint:nilnil // documented
	}
	return p.await(ctx)
}

// startBeside starts an instance whose registrations are held back.
func (p *launchedPlugin) startBeside(ctx context.Context, spec PluginSpec) (*instance, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.life, cancel)()
	return p.launcher.start(ctx, spec, true)
}

// handOver gives the watcher the instance that takes over, and returns the one whose place it
// took. An end of the current one meanwhile is the end of that.
func (p *launchedPlugin) handOver(ctx context.Context, current *instance, s *swapping) (*instance, error) {
	var exited <-chan struct{}
	if current != nil {
		exited = current.exited
	}
	select {
	case p.swap <- s:
		came := <-s.taken
		return came.old, came.err
	case <-exited:
		return nil, fmt.Errorf("the old instance ended meanwhile: %w", ErrPluginNotRunning)
	case <-p.life.Done():
		return nil, ErrPluginNotRunning
	case <-ctx.Done():
		return nil, calledOff(ctx)
	}
}

// rest waits until the next start is due, or another instance takes the plugin's place, which it
// returns. It reports false at the end of the plugin.
func (p *launchedPlugin) rest(next supervise.Next, why error) (taken *instance, alive bool) {
	text := "starting it again"
	if next.Broken {
		text = "it fails again and again; the next start is put off"
	}
	wait := time.Until(next.At)
	p.launcher.platform.log().Warn("a plugin is down: "+text,
		keyPlugin, p.specNow().Name, keyWait, wait.Round(time.Millisecond).String(), keyError, why)
	due := time.NewTimer(wait)
	defer due.Stop()
	for taken == nil {
		select {
		case s := <-p.swap:
			taken = p.takeOver(nil, s)
			continue
		case <-due.C:
		case <-p.life.Done():
			return nil, false
		}
		p.mu.Lock()
		p.restarts++
		p.mu.Unlock()
		p.set(LaunchStarting, nil, why)
		return nil, true
	}
	return taken, true
}

// down says that the plugin is not running and when it is started again.
func (p *launchedPlugin) down(next supervise.Next, why error) {
	state := LaunchBackoff
	if next.Broken {
		state = LaunchBroken
	}
	p.mu.Lock()
	p.next = next
	p.mu.Unlock()
	p.set(state, nil, why)
}

// note tells of an exit of an instance that ran for some time.
func (p *launchedPlugin) note(exit PluginExit, next supervise.Next, ran time.Duration) {
	exit.Name, exit.RestartAt, exit.CrashLoop = p.name, next.At, next.Broken
	p.mu.Lock()
	p.lastExit = &exit
	onExit := p.spec.OnExit
	p.mu.Unlock()
	p.launcher.platform.log().Info("plugin ended", keyPlugin, p.name, keyPid, exit.Pid, keyRuntimeID, exit.RuntimeID, keyReason, exit.Reason)
	spec := p.specNow()
	if o := p.launcher.platform.hub().observer(); o != nil {
		e := ExitEvent{Name: p.name, RuntimeID: exit.RuntimeID, Pid: exit.Pid, Unasked: !exit.Requested, CrashLoop: exit.CrashLoop, Ran: ran}
		p.launcher.platform.tell(p.grace, spec, "Observer.Exit", func() { o.Exit(e) })
	}
	if onExit != nil {
		p.launcher.platform.tell(p.grace, spec, fmt.Sprintf("PluginSpec[%q].OnExit", spec.Name), func() { onExit(exit) })
	}
}

func exitError(exit PluginExit) error {
	err := fmt.Errorf("%w: it ended by itself: %s", ErrPluginNotRunning, exit.Reason)
	if len(exit.Output) > 0 {
		err = fmt.Errorf("%w; it said: %s", err, printableLines(exit.Output))
	}
	return err
}

// await returns the instance in service, and waits for one where it is about to come.
func (p *launchedPlugin) await(ctx context.Context) (*instance, error) {
	patience := time.NewTimer(p.specNow().ReadyTimeout)
	defer patience.Stop()
	for {
		enough := patience.C
		p.mu.Lock()
		current, state, err, changed, next := p.current, p.state, p.err, p.changed, p.next
		p.mu.Unlock()
		switch state {
		case LaunchRunning:
			return current, nil
		case LaunchStopped, LaunchStopping:
			if err == nil {
				err = ErrPluginNotRunning
			}
			return nil, err
		case LaunchBroken:
			return nil, fmt.Errorf("%w: it failed %d times and is started again at %s: %w",
				ErrPluginNotRunning, next.Failures, next.At.Format(time.TimeOnly), err)
		case LaunchStarting:
			enough = nil // its own time bounds the start
		case LaunchBackoff:
		}
		select {
		case <-changed:
			continue
		case <-enough:
		case <-ctx.Done():
		}
		if err == nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("%w yet: %w", ErrPluginNotRunning, err)
	}
}

// stop ends the plugin and waits for its end. An error says what of the user's code panicked or still runs.
func (p *launchedPlugin) stop(ctx context.Context, reason string) error {
	p.mu.Lock()
	p.reason = cmp.Or(p.reason, reason)
	p.mu.Unlock()
	defer context.AfterFunc(ctx, p.hurry)() // whoever has least patience
	p.end(ErrPluginNotRunning)
	<-p.done
	p.replacing.Lock()   // until a replacement that was under way has ended, too
	p.replacing.Unlock() //nolint:gocritic,staticcheck // guards nothing, is only waited for
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stuck
}

func (p *launchedPlugin) set(state LaunchState, i *instance, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state, p.current, p.err = state, i, err
	p.tellLocked()
}

// left notes that nothing is left of an instance which was asked to end.
func (p *launchedPlugin) left(i *instance) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leaving = slices.DeleteFunc(p.leaving, func(l *instance) bool { return l == i })
}

func (p *launchedPlugin) tellLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *launchedPlugin) running() *instance {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current
}

func (p *launchedPlugin) specNow() PluginSpec {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.spec
}

// defaultService returns the first service of an instance.
func (p *launchedPlugin) defaultService(i *instance) string {
	if spec := p.specNow(); len(spec.Provides) > 0 {
		return spec.Provides[0]
	}
	if regs := p.launcher.platform.registry.catalog.ByRuntime(i.runtimeID()); len(regs) > 0 {
		return regs[0].Type
	}
	return ""
}

// servicePath finds where a call of one service goes: to the instance that is in service now.
func (p *launchedPlugin) servicePath(serviceType, path string) (runtimeID, there string, err error) {
	i := p.running()
	if i == nil {
		return "", "", ErrPluginNotRunning
	}
	reg, ok := p.launcher.platform.registry.catalog.Provider(serviceType, i.runtimeID())
	if !ok { // another instance is just taking its place
		reg, ok = p.launcher.platform.router.successor(serviceType, i.runtimeID())
	}
	if !ok {
		return "", "", errNotProvided
	}
	there, err = proxy.JoinPath(reg.Path, path)
	return reg.RuntimeID, there, err
}
