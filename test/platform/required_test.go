package platform_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// memory makes a plugin of the host's process, which provides its own name in a version.
func memory(name, version string, requires ...connectplugin.ServiceDependency) connectplugin.PluginSpec {
	return connectplugin.PluginSpec{
		Plugin: memoryPlugin{path: "/" + name + ".v1/", metadata: connectplugin.PluginMetadata{
			Version: version, Provides: []connectplugin.ServiceDeclaration{{Type: name, Version: version}}, Requires: requires,
		}},
		ImplFactory: func() any { return echoHandler() }, ReadyTimeout: wait,
	}
}

// forStart requires a version of a type for the start.
func forStart(serviceType, version string) connectplugin.ServiceDependency {
	return connectplugin.ServiceDependency{Type: serviceType, MinVersion: version, RequiredForStartup: true}
}

func says(err error, parts ...string) bool {
	for _, part := range parts {
		if err == nil || !strings.Contains(err.Error(), part) {
			return false
		}
	}
	return true
}

// A plugin that cannot ask its host itself does not start either before what it requires is there, in the version that it
// requires; the error says what is there instead.
func TestALaunchWaitsForWhatItRequires(t *testing.T) {
	t.Parallel()
	h := start(t, "db", "web")
	impatient := memory("web", "1.0.0", forStart("db", ">=9"))
	impatient.ReadyTimeout = 50 * time.Millisecond
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"db": memory("db", "1.5.0")})
	if err := h.Launcher().Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, strategy := range []string{"in-memory", "go-plugin", "process"} { // each before it starts anything
		impatient.Strategy = strategy
		h.Launcher().Configure(map[string]connectplugin.PluginSpec{"web": impatient})
		err := h.Launcher().Start(t.Context())
		if !says(err, "it requires db >=9 for its start", `"1.5.0"`, "PluginSpec.ReadyTimeout") {
			t.Errorf("%s: %v", strategy, err)
		}
	}
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"web": memory("web", "1.0.0", forStart("db", ">=9")), "db": memory("db", "9.0.0")})
	started := make(chan error, 1)
	go func() { started <- h.Launcher().Start(t.Context()) }()
	if err := h.Launcher().Replace(t.Context(), "db"); err != nil {
		t.Fatal(err)
	}
	if err := <-started; err != nil || len(h.Registry().GetAllProviders("web")) != 1 {
		t.Errorf("%v, %+v", err, h.Plugins())
	}
}

// Whoever gave up is named: the launcher's patience, or that of who called.
func TestWhoseTimeWasOver(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec()})
	if err := h.Launcher().Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec("hang")})
	if err := h.Launcher().Replace(ctx, "echo"); !says(err, "the context of whoever launches it ended", "it has not enrolled") || says(err, "ReadyTimeout") {
		t.Errorf("the caller's time: %v", err)
	}
	sp := spec("hang")
	sp.ReadyTimeout = 50 * time.Millisecond
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
	if err := h.Launcher().Replace(t.Context(), "echo"); !says(err, "PluginSpec.ReadyTimeout", "it has not enrolled") {
		t.Errorf("its own time: %v", err)
	}
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec("unhealthy=no disk")})
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	replaced := make(chan error, 1)
	go func() { replaced <- h.Launcher().Replace(ctx, "echo") }()
	hosttest.Eventually(t, "it says how it is", func() bool {
		return slices.ContainsFunc(h.Plugins(), func(p connectplugin.PluginStatus) bool { return p.Reason == "no disk" })
	})
	cancel()
	if err := <-replaced; !says(err, "it was called off", `it says that it is unhealthy: "no disk"`) {
		t.Errorf("never healthy: %v", err)
	}
	if got, err := caller(t, h, "echo")("x"); got != "x" || err != nil {
		t.Errorf("the old one: %q, %v", got, err)
	}
}

// A circle of requirements says what to do, and is none where one of them starts without.
func TestACircleOfRequirements(t *testing.T) {
	t.Parallel()
	h := start(t, "db", "web")
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{
		"db": memory("db", "1.0.0", forStart("web", "")), "web": memory("web", "1.0.0", forStart("db", "")),
	})
	if err := h.Launcher().Start(t.Context()); !says(err, "db -> web -> db", "take RequiredForStartup from one") || says(err, "depgraph") {
		t.Errorf("%v", err)
	}
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{
		"db":  memory("db", "1.0.0", connectplugin.ServiceDependency{Type: "web", WatchForChanges: true}),
		"web": memory("web", "1.0.0", forStart("db", "")),
	})
	if err := h.Launcher().Start(t.Context()); err != nil {
		t.Error(err)
	}
	hosttest.Eventually(t, "both run", func() bool { return len(h.Plugins()) == 2 })
}

// A replacement does not take from others what they cannot start without, and the log says from whom it takes anything else.
func TestAReplacementThatServesNobody(t *testing.T) {
	t.Parallel()
	log := &hosttest.Buffer{}
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = &connectplugin.Policy{AllowMultiple: []string{"queue"}, Plugins: map[string]connectplugin.PluginPolicy{}}
		for _, name := range []string{"queue", "runner", "looker", "other"} {
			c.Policy.Plugins[name] = connectplugin.PluginPolicy{Provides: []string{"*"}, Requires: []string{"*"}}
		}
		c.Policy.Plugins["upstart"] = connectplugin.PluginPolicy{Provides: []string{"*"}}
		c.Logger = slog.New(slog.NewTextHandler(log, nil))
	})
	specs := map[string]connectplugin.PluginSpec{
		"queue": memory("queue", "1.0.0"), "runner": memory("runner", "1.0.0", forStart("queue", "^1")),
		"looker":  memory("looker", "1.0.0", connectplugin.ServiceDependency{Type: "queue", MinVersion: "<2"}),
		"upstart": memory("upstart", "1.0.0", forStart("queue", "1.0.0 - 3.0.0")), // which policy does not let it
	}
	l := h.Launcher()
	version := func() string { return h.Registry().GetAllProviders("queue")[0].Version }
	replace := func(spec connectplugin.PluginSpec) error {
		specs["queue"] = spec
		l.Configure(specs)
		return l.Replace(t.Context(), "queue")
	}
	l.Configure(specs)
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for what, spec := range map[string]connectplugin.PluginSpec{"another version": memory("queue", "4.0.0"), "another type": memory("stack", "1.0.0")} {
		if err := replace(spec); !says(err, `"runner" requires queue ^1`) || says(err, "upstart") || says(err, "looker") || version() != "1.0.0" {
			t.Errorf("%s: %v, and %s is there", what, err, version())
		}
	}
	if err := replace(memory("queue", "1.2.0")); err != nil || version() != "1.2.0" {
		t.Errorf("one that will do: %v", err)
	}
	specs["other"] = memory("other", "1.0.0")
	specs["other"].Plugin.(memoryPlugin).metadata.Provides[0] = connectplugin.ServiceDeclaration{Type: "queue", Version: "1.9.0"}
	l.Configure(specs)
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := replace(memory("queue", "4.0.0")); err != nil {
		t.Errorf("beside another that will do: %v", err)
	}
	if strings.Contains(log.String(), "will do for others") {
		t.Error("it warns where another provider is left")
	}
	if err := replace(memory("queue", "1.9.1")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"runner", "other"} {
		if err := l.Stop(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if err := replace(memory("queue", "4.0.0")); err != nil || version() != "4.0.0" {
		t.Errorf("nobody needs the old one for its start: %v", err)
	}
	if said := log.String(); !strings.Contains(said, "will do for others") || !strings.Contains(said, `\"looker\" requires queue <2`) {
		t.Errorf("it does not warn:\n%s", said)
	}
}

// An adopted plugin is not replaced by one in whose version a plugin that runs cannot use what it requires for its start: nothing
// has changed then.
func TestAnAdoptedReplacementThatServesNobody(t *testing.T) {
	t.Parallel()
	h := startForAdoption(t)
	p := h.Platform()
	if err := p.AddPlugin(t.Context(), adoption(sidecar(t, h, "echo", nil))); err != nil {
		t.Fatal(err)
	}
	user := h.Enrol(t, "user", func(c *connectplugin.ClientConfig) {
		c.Metadata.Requires = []connectplugin.ServiceDependency{{Type: "echo", MinVersion: "^1", RequiredForStartup: true}}
	})
	call, first := echoCall(t, user), p.Instances()
	other := adoption(sidecar(t, h, "echo", func(c *connectplugin.PluginServerConfig) { c.Services[0].Version = "2.0.0" }))
	other.Metadata.Provides[0].Version = "2.0.0"
	if err := p.ReplacePlugin(t.Context(), first[0].RuntimeID, other); !says(err, "it provides nothing that will do for others", `"user" requires`) {
		t.Errorf("%v", err)
	}
	if err := call(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if now := p.Instances(); len(now) != 1 || now[0].RuntimeID != first[0].RuntimeID || len(h.Plugins()) != 2 {
		t.Errorf("instances %v, plugins %+v", now, h.Plugins())
	}
	if err := user.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	other.Endpoint = sidecar(t, h, "echo", func(c *connectplugin.PluginServerConfig) { c.Services[0].Version = "2.0.0" })
	if err := p.ReplacePlugin(t.Context(), first[0].RuntimeID, other); err != nil {
		t.Errorf("when nobody requires it: %v", err)
	}
}

// Plugins that wait for each other, or for what nobody provides, say so to their host and their operator, and the host names
// each circle once. They start as soon as somebody breaks it.
func TestPluginsThatWaitForEachOther(t *testing.T) {
	t.Parallel()
	log := &hosttest.Buffer{}
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Rights(map[string][2][]string{
			"x": {{"func"}, {"pipe"}}, "y": {{"pipe"}, {"func"}}, "lonely": {{"web"}, {"db", "cache"}}, "spare": {{"func"}, nil},
		})
		c.Policy.AllowMultiple = []string{"func"}
		for name, p := range c.Policy.Plugins {
			p.AllowOwnAddress = true
			c.Policy.Plugins[name] = p
		}
		c.Logger = slog.New(slog.NewTextHandler(log, nil))
	})
	logs := map[string]*hosttest.Buffer{}
	for name, requires := range map[string][]connectplugin.ServiceDependency{
		"x": {forStart("pipe", ">=1")}, "y": {forStart("func", "1.0.0")}, "lonely": {forStart("db", ">=2"), forStart("cache", "")},
	} {
		logs[name] = &hosttest.Buffer{}
		waitingPlugin(t, h, name, map[string]string{"x": "func", "y": "pipe", "lonely": "web"}[name], logs[name], requires...)
	}
	reason := func(name string) string {
		for _, p := range h.Plugins() {
			if p.SelfID == name {
				return strings.TrimPrefix(p.Health.String(), "HEALTH_STATE_") + " " + p.Reason
			}
		}
		return ""
	}
	for name, what := range map[string]string{"x": "pipe >=1", "y": "func 1.0.0", "lonely": "db >=2, cache"} {
		hosttest.Eventually(t, name+" tells the host", func() bool { return reason(name) == "UNHEALTHY waiting for required services: "+what })
		hosttest.Eventually(t, name+" warns its operator", func() bool {
			return strings.Contains(logs[name].String(), `level=WARN msg="waiting for required services"`)
		})
	}
	const circle = "plugins wait for each other"
	hosttest.Eventually(t, "the host tells of it", func() bool { return strings.Contains(log.String(), circle) })
	if said := log.String(); !strings.Contains(said, `\"x\" requires pipe of \"y\"`) || !strings.Contains(said, `\"y\" requires func of \"x\"`) {
		t.Errorf("the host says %q", said)
	}
	waitingPlugin(t, h, "spare", "func", &hosttest.Buffer{})
	for _, name := range []string{"x", "y"} {
		hosttest.Eventually(t, name+" starts", func() bool { return reason(name) == "HEALTHY " })
	}
	hosttest.Eventually(t, "calls go to them", func() bool {
		return len(h.Registry().GetAllProviders("func")) == 2 && len(h.Registry().GetAllProviders("pipe")) == 1
	})
	if n := strings.Count(log.String(), circle); n != 1 || strings.Contains(log.String(), "lonely\\\" requires") {
		t.Errorf("the host tells of %d circles: %s", n, log)
	}
}

// waitingPlugin runs a plugin until the test ends.
func waitingPlugin(t *testing.T, h *hosttest.Host, selfID, provides string, log *hosttest.Buffer, requires ...connectplugin.ServiceDependency) {
	t.Helper()
	tls, err := h.Authority.PluginTLS(selfID)
	if err != nil {
		t.Fatal(err)
	}
	cfg := &connectplugin.PluginServerConfig{
		Client: h.ClientConfig(t, selfID), HealthInterval: 20 * time.Millisecond,
		Services: []connectplugin.PluginService{{Type: provides, Version: "1.0.0", Path: "/echo.v1.Echo/", Handler: echoHandler()}},
	}
	cfg.Client.TLS, cfg.Client.Metadata.Requires = tls, requires
	cfg.Client.Logger = slog.New(slog.NewTextHandler(log, nil))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- connectplugin.ServePlugin(ctx, cfg) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", selfID, err)
		}
	})
}

// Who cannot start before it has started is told at once, wherever it says so.
func TestAPluginThatRequiresItself(t *testing.T) {
	t.Parallel()
	h := start(t, "web")
	tls, err := h.Authority.PluginTLS("web")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		requires connectplugin.ServiceDependency
		refused  bool
	}{
		"any version":          {forStart("web", ""), true},
		"its version":          {forStart("web", ">=1.2, <2"), true},
		"another version":      {forStart("web", "^1.0.0, <1.5"), false},
		"another type":         {forStart("db", ""), false},
		"not before its start": {connectplugin.ServiceDependency{Type: "web", WatchForChanges: true}, false},
	} {
		own := connectplugin.ServiceDeclaration{Type: "web", Version: "1.5.0", Path: "/web.v1.Web/"}
		m := connectplugin.PluginMetadata{Path: own.Path, Version: own.Version, Requires: []connectplugin.ServiceDependency{c.requires}}
		serve := &connectplugin.PluginServerConfig{
			Client:   h.ClientConfig(t, "web"),
			Services: []connectplugin.PluginService{{Type: own.Type, Version: own.Version, Path: own.Path, Handler: echoHandler()}},
		}
		serve.Client.Metadata, serve.Client.TLS = m, tls
		served := serve.Validate()
		m.Provides = []connectplugin.ServiceDeclaration{own}
		declares := h.ClientConfig(t, "web")
		declares.Metadata = m
		_, made := connectplugin.NewClient(declares)
		for what, err := range map[string]error{
			"PluginServerConfig": served, "NewClient": made, "PluginSet": connectplugin.PluginSet{"web": memoryPlugin{path: own.Path, metadata: m}}.Validate(),
		} {
			wrong := errors.Is(err, connectplugin.ErrInvalidConfig)
			if wrong != c.refused || wrong && !says(err, "Requires[0].RequiredForStartup", "wait for itself") {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
	}
}

// A plugin whose connections are gone, and with them maybe its process, is warned of and holds up nobody; one that is there does.
func TestAReplacementHeedsWhoIsThere(t *testing.T) {
	t.Parallel()
	log := &hosttest.Buffer{}
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"queue": {Provides: []string{"queue"}}, "runner": hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Requires = []string{"queue"} }),
		}}
		c.Logger = slog.New(slog.NewTextHandler(log, nil))
	})
	l := h.Launcher()
	l.Configure(map[string]connectplugin.PluginSpec{"queue": memory("queue", "1.0.0")})
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	runner := h.Enrol(t, "runner", func(c *connectplugin.ClientConfig) {
		c.Metadata.Requires = []connectplugin.ServiceDependency{forStart("queue", "=1.0.0")}
	})
	l.Configure(map[string]connectplugin.PluginSpec{"queue": memory("queue", "2.0.0")})
	if err := l.Replace(t.Context(), "queue"); !says(err, `"runner" requires queue =1.0.0`) {
		t.Errorf("it is there: %v", err)
	}
	if err := runner.Close(); err != nil { // without leaving
		t.Fatal(err)
	}
	hosttest.Eventually(t, "the replacement", func() bool { return l.Replace(t.Context(), "queue") == nil })
	if said := log.String(); !strings.Contains(said, "has no connection open") {
		t.Errorf("it does not warn:\n%s", said)
	}
	if len(h.Plugins()) != 2 {
		t.Errorf("plugins %+v", h.Plugins())
	}
}
