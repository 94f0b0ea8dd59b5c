package connectplugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/backoff"
	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/goplugin"
	"github.com/masegraye/connect-plugin-go/internal/launches"
	"github.com/masegraye/connect-plugin-go/internal/procgroup"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
	"github.com/masegraye/connect-plugin-go/internal/verify"
)

// GoPluginSpec says what a host of hashicorp/go-plugin would say of a plugin in its
// ClientConfig.
type GoPluginSpec struct {
	// CookieKey and CookieValue are the MagicCookieKey and MagicCookieValue of the plugin's
	// HandshakeConfig. Required; they are no secret.
	CookieKey, CookieValue string
	// Versions are the protocol versions that callers understand: the ProtocolVersion of the
	// HandshakeConfig, or the keys of VersionedPlugins. The plugin chooses its highest. Empty
	// means 1.
	Versions []int
	// Services names the gRPC service behind a service type: "kv": "proto.KV". A type of
	// PluginSpec.Provides that is not in it is the name of its gRPC service itself. Where
	// PluginSpec.Provides is empty, the plugin provides what is in it.
	Services map[string]string
	// Version is the version of what it provides. Empty means "0.0.0".
	Version string
}

func (g *GoPluginSpec) clone() *GoPluginSpec {
	if g == nil {
		return nil
	}
	out := *g
	out.Versions, out.Services = slices.Clone(g.Versions), maps.Clone(g.Services)
	if len(out.Versions) == 0 {
		out.Versions = []int{1}
	}
	out.Version = cmp.Or(out.Version, defaultPluginVersion)
	return &out
}

// validateGoPlugin names what is wrong with GoPlugin, and what makes no sense beside it.
func (s PluginSpec) validateGoPlugin(field func(name, format string, args ...any) error) error {
	switch g := s.GoPlugin; {
	case s.Port != 0:
		return field("Port", "is set; a plugin of go-plugin listens on a Unix socket")
	case s.HostURL != "":
		return field("HostURL", "is set; a plugin of go-plugin calls no host")
	case g.CookieKey == "" || strings.ContainsAny(g.CookieKey, "=\x00"):
		return field("GoPlugin.CookieKey", "%q is no name of an environment variable; write the MagicCookieKey of the plugin's HandshakeConfig",
			g.CookieKey)
	case g.CookieValue == "":
		return field("GoPlugin.CookieValue", "is empty; write the MagicCookieValue of the plugin's HandshakeConfig")
	case g.Version != "" && ValidateVersion(g.Version) != nil:
		return field("GoPlugin.Version", "%v", ValidateVersion(g.Version))
	}
	provides := s.goPluginProvides()
	if len(provides) == 0 {
		return field("Provides", "is empty, and so is GoPlugin.Services; name the services")
	}
	for _, t := range slices.Sorted(maps.Keys(s.GoPlugin.Services)) {
		if !slices.ContainsFunc(provides, func(d ServiceDeclaration) bool { return d.Type == t }) {
			return field(fmt.Sprintf("GoPlugin.Services[%q]", t), "is not among Provides")
		}
	}
	for _, d := range provides {
		service := strings.Trim(d.Path, "/")
		if err := errors.Join(d.validate(), validGRPCService(service)); err != nil {
			return field(fmt.Sprintf("GoPlugin.Services[%q]", d.Type), "%v", err)
		}
	}
	return nil
}

// validGRPCService refuses what is no name of a gRPC service, and the services that every
// plugin of go-plugin has: they are its host's alone.
func validGRPCService(service string) error {
	if service == "" || strings.Contains(service, "/") {
		return fmt.Errorf("%q is no name of a gRPC service such as proto.KV", service)
	}
	for _, own := range []string{"plugin.", "grpc."} {
		if strings.HasPrefix(service, own) {
			return fmt.Errorf("%q is for the host alone; name a service of the plugin's own", service)
		}
	}
	return nil
}

// goPluginProvides is what the spec says that the plugin provides.
func (s PluginSpec) goPluginProvides() []ServiceDeclaration {
	types := s.Provides
	if len(types) == 0 {
		types = slices.Sorted(maps.Keys(s.GoPlugin.Services))
	}
	out := make([]ServiceDeclaration, 0, len(types))
	for _, t := range types {
		service := cmp.Or(s.GoPlugin.Services[t], t)
		out = append(out, ServiceDeclaration{Type: t, Version: cmp.Or(s.GoPlugin.Version, defaultPluginVersion), Path: "/" + service + "/"})
	}
	return out
}

// GoPluginStrategy runs a gRPC plugin that was built with hashicorp/go-plugin, 1.6 to 1.8, as
// it is. Such a plugin knows no host: the strategy gives it an identity of its own within
// policy, registers what [PluginSpec.GoPlugin] names, and passes calls on over mutual TLS on a
// Unix socket that nobody else may enter. Program, supervision, replacement, policy, audit and
// limits are those of any launched plugin.
//
// Callers speak gRPC (connect.WithGRPC), because the plugin speaks nothing else, and reach the
// named services alone, never those of go-plugin itself. What the plugin cannot do: take a
// request above its own limit, which is 4 MiB unless it says otherwise; tell its streams that
// it stops; be heard in its very last moment, because what it prints passes through itself; call
// back, or be called back, over go-plugin's broker, which is not offered: its Dial ends with an error
// after 5 s, go-plugin's own time for it, and the log warns when its Accept is tried; serve net/rpc, or
// without AutoMTLS. Calls in flight at the end may finish within [PluginSpec.StopGrace]. Use one
// strategy for one launcher; it is safe for concurrent use.
type GoPluginStrategy struct{ processes }

// NewGoPluginStrategy makes a strategy for plugins of go-plugin. A [PluginLauncher] has one
// already.
func NewGoPluginStrategy() *GoPluginStrategy {
	s := &GoPluginStrategy{}
	s.starter.Guard = &s.guard
	return s
}

// Name returns "go-plugin".
func (s *GoPluginStrategy) Name() string { return strategyGoPlugin }

// Launch starts a plugin and returns when it serves. Nobody watches over it: that does a
// [PluginLauncher].
func (s *GoPluginStrategy) Launch(ctx context.Context, spec PluginSpec) (LaunchResult, error) {
	host, err := s.platform()
	if err != nil {
		return LaunchResult{}, err
	}
	return launchAlone(ctx, s, host, spec)
}

// start launches one instance.
func (s *GoPluginStrategy) start(ctx context.Context, p *Platform, spec PluginSpec, hold bool) (*instance, error) {
	l := &goPluginLaunch{childProcess: childProcess{processes: &s.processes, platform: p, spec: spec}}
	i, err := l.run(ctx, hold)
	if err != nil {
		l.killAndWait()
		l.cleanUp()
		return nil, fmt.Errorf("launch %q: %w", spec.Name, err)
	}
	return i, nil
}

// goPluginLaunch is one launch of a plugin of go-plugin.
type goPluginLaunch struct {
	childProcess

	// Set on the way.
	dir     string // of its socket
	host    *goplugin.Identity
	hello   *goplugin.Hello
	control *goplugin.Control

	reading     sync.WaitGroup // of what it prints
	stopReading context.CancelFunc
}

// run takes the steps of a launch: verify, start, understand, ask, enrol.
func (l *goPluginLaunch) run(ctx context.Context, hold bool) (*instance, error) {
	if l.spec.GoPlugin == nil {
		return nil, fieldError(fmt.Sprintf("PluginSpec[%q].GoPlugin", l.spec.Name), "is nil; the strategy %q needs it", strategyGoPlugin)
	}
	binary, giveBack, err := l.processes.binary(l.platform, l.spec)
	if err != nil {
		return nil, err
	}
	defer giveBack()
	l.launch = launches.New("", l.spec.Name, l.spec.Provides)
	if hold {
		l.launch.Hold()
	}
	line, err := l.startProcess(binary)
	if err != nil {
		return nil, err
	}
	if err := l.understand(ctx, line); err != nil {
		return nil, l.describe(ctx, err)
	}
	id, err := l.enrol(ctx)
	if err != nil {
		return nil, l.describe(ctx, err)
	}
	i := l.instance(id)
	l.platform.log().Info("plugin launched", keyPlugin, l.spec.Name, keyPid, l.proc.Pid(), keyRuntimeID, id.RuntimeID())
	return i, nil
}

// startProcess starts the process and returns where its first line comes.
func (l *goPluginLaunch) startProcess(binary *verify.Binary) (<-chan string, error) {
	var err error
	if l.dir, err = l.socketDir(); err != nil {
		return nil, err
	}
	if l.host, err = goplugin.NewIdentity(time.Now()); err != nil {
		return nil, err
	}
	g := l.spec.GoPlugin
	env := goplugin.Offer{CookieKey: g.CookieKey, CookieValue: g.CookieValue, Versions: g.Versions, SocketDir: l.dir}.Environment(l.host)
	line, said := make(chan string, 1), false
	log := l.platform.logOutput(l.spec.Name)
	cfg, err := l.config(binary, env, func(out procgroup.Line) {
		if out.Stream == procgroup.Stdout && !said { // one goroutine reads it
			said = true
			line <- out.Text
			return
		}
		log(out)
	})
	if err != nil {
		return nil, err
	}
	if l.proc, err = l.begin(cfg); err != nil {
		return nil, err
	}
	return line, nil
}

// understand waits for the first line, reads from then on what the plugin prints, and returns
// when it says that it serves.
func (l *goPluginLaunch) understand(ctx context.Context, line <-chan string) error {
	var err error
	select {
	case said := <-line:
		l.hello, err = goplugin.ParseHello(said, l.dir, l.spec.GoPlugin.Versions)
	case <-l.proc.Done():
		err = errEndedEarly
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	l.control = goplugin.NewControl(l.hello, l.host.TLS(l.hello))
	var life context.Context
	life, l.stopReading = context.WithCancel(context.Background())
	l.reading.Go(func() { l.read(life) })
	l.reading.Go(func() { l.refuseCallbacks(life) })
	for {
		err := l.control.Health(ctx)
		if !errors.Is(err, goplugin.ErrNotServing) {
			return err
		}
		if !backoff.Wait(ctx, renewFloor) {
			return ctx.Err()
		}
	}
}

// read passes on what the plugin prints.
func (l *goPluginLaunch) read(ctx context.Context) {
	log := l.platform.logOutput(l.spec.Name)
	stdout, stderr := l.proc.Lines(procgroup.Stdout, log), l.proc.Lines(procgroup.Stderr, log)
	err := l.control.Output(ctx, func(isStderr bool, data []byte) {
		to := stdout
		if isStderr {
			to = stderr
		}
		_, _ = to.Write(data) // it has no error
	})
	_, _ = stdout.Close(), stderr.Close()
	select {
	case <-l.proc.Done():
	case <-ctx.Done():
	default:
		l.platform.log().Debug("what a plugin prints is not read any more", keyPlugin, l.spec.Name, keyError, err)
	}
}

// refuseCallbacks says that what the plugin offers over its broker is not taken up.
func (l *goPluginLaunch) refuseCallbacks(ctx context.Context) {
	said := false
	_ = l.control.Callbacks(ctx, func() { // it ends with the plugin, and has no other error of interest
		if !said {
			l.platform.log().Warn("a plugin offers to be called back over go-plugin's broker, which is not offered here: nobody will call",
				keyPlugin, l.spec.Name)
		}
		said = true
	})
}

// enrol gives the plugin an identity and registers what it provides.
func (l *goPluginLaunch) enrol(ctx context.Context) (*tokenstore.Identity, error) {
	p, provides := l.platform, l.spec.goPluginProvides()
	metadata := PluginMetadata{Provides: provides}
	id, token, err := p.hub().issueOwn(l.spec.Name, provides[0].Version, metadata, func(d *declaration) { d.launch = l.launch })
	if err != nil {
		return nil, err
	}
	l.launch.Enrolled(id)
	if err := p.keepAlive(id, token); err != nil {
		return nil, err
	}
	if err := p.router.settle(id.RuntimeID(), place{own: l.place(id)}); err != nil {
		return nil, err
	}
	if err := p.registerFor(ctx, id, provides, l.spec.Metadata); err != nil {
		return nil, err
	}
	healthy := catalog.HealthReport{Health: catalog.HealthHealthy, At: time.Now()}
	return id, p.lifecycle.take(id.RuntimeID(), id, func(v *healthView) { v.reported = healthy })
}

// place is where the router finds the plugin, and how it asks for its health.
func (l *goPluginLaunch) place(id *tokenstore.Identity) *ownPlace {
	return &ownPlace{
		name: "go-plugin:" + l.hello.Socket + "#",
		open: func(d *pluginDialer) (*proxy.Provider, error) {
			cfg := d.config(l.platform.hub(), id, onlyPlace)
			cfg.Dial, cfg.TLS = dialSocket(l.hello.Socket), l.host.TLS(l.hello)
			cfg.Name = "unix:" + l.hello.Socket
			return proxy.New(cfg)
		},
		ask: func(ctx context.Context) (catalog.HealthReport, error) {
			err := l.control.Health(ctx)
			if errors.Is(err, goplugin.ErrNotServing) {
				return catalog.HealthReport{Health: catalog.HealthUnhealthy, Reason: err.Error()}, nil
			}
			return catalog.HealthReport{Health: catalog.HealthHealthy}, err
		},
	}
}

// instance returns the plugin as the launcher sees it, and watches for its end.
func (l *goPluginLaunch) instance(id *tokenstore.Identity) *instance {
	l.exited = make(chan struct{})
	revoked := make(chan struct{})
	id.OnEnd(func() { close(revoked) })
	go func() {
		select {
		case <-l.proc.Done():
		case <-revoked: // it has no other one, and cannot enrol again
			l.stop(context.Background(), l.askToStop)
			<-l.proc.Done()
		}
		l.cleanUp()
		close(l.exited)
	}()
	i := &instance{
		pid: l.proc.Pid(), exited: l.exited, exit: l.exit, begun: time.Now(), runtimeID: l.runtimeID,
		stop: func(ctx context.Context, _ string) error {
			l.noteAsked()
			l.stop(ctx, l.askToStop)
			<-l.exited
			return nil
		},
		release: func(old string) error { return l.platform.release(l.launch, old) },
	}
	i.result = l.platform.result(l.runtimeID, func() { _ = i.stop(context.Background(), "cleanup") })
	return i
}

// askToStop lets the calls in flight finish, which the plugin would not, and then has it end.
func (l *goPluginLaunch) askToStop(ctx context.Context) error {
	l.platform.registry.catalog.RemoveWhere(ofRuntime(l.runtimeID()))
	drain, cancel := context.WithTimeout(ctx, l.spec.StopGrace)
	defer cancel()
	if err := l.platform.router.drainProvider(drain, l.runtimeID()); err != nil {
		l.platform.log().Warn("calls to a plugin were cut off", keyPlugin, l.spec.Name, keyError, err)
	}
	ctx, cancelCall := context.WithTimeout(ctx, controlTimeout)
	defer cancelCall()
	l.control.Shutdown(ctx)
	l.vacate() // while the process ends
	return ctx.Err()
}

// cleanUp leaves nothing of a plugin whose process has ended.
func (l *goPluginLaunch) cleanUp() {
	l.endIdentity()
	if l.control != nil {
		l.stopReading()
		l.reading.Wait()
		l.control.Close()
	}
	l.vacate()
}

// vacate removes the directory of the plugin's socket, to which nobody connects any more.
func (l *goPluginLaunch) vacate() {
	if l.dir != "" {
		_ = os.RemoveAll(l.dir)
	}
}
