package platform_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// chain configures plugins of memory; each requires what the words after its name say, and
// begun is told when its implementation is made.
func chain(begun func(string) any, lines ...string) map[string]connectplugin.PluginSpec {
	specs := map[string]connectplugin.PluginSpec{}
	for _, line := range lines {
		words := strings.Fields(line)
		name := words[0]
		m := connectplugin.PluginMetadata{
			Version: "1.0.0", Provides: []connectplugin.ServiceDeclaration{{Type: name, Version: "1.0.0"}},
		}
		for _, r := range words[1:] {
			m.Requires = append(m.Requires, connectplugin.ServiceDependency{Type: r, RequiredForStartup: true})
		}
		specs[name] = connectplugin.PluginSpec{
			Plugin: memoryPlugin{path: "/" + name + ".v1/", metadata: m}, ImplFactory: func() any { return begun(name) },
		}
	}
	return specs
}

func TestStartInDependencyOrder(t *testing.T) {
	t.Parallel()
	h := start(t, "app", "cache", "store", "log", "elsewhere")
	h.Launcher().Configure(chain(func(string) any { return echoHandler() }, "elsewhere"))
	if err := h.Launcher().Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var order []string
	begun := func(name string) any {
		mu.Lock()
		defer mu.Unlock()
		order = append(order, name)
		return echoHandler()
	}
	h.Launcher().Configure(chain(begun, "app cache log elsewhere", "cache store", "store", "log"))
	if err := h.Launcher().Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	at := func(name string) int { return slices.Index(order, name) }
	if len(order) != 4 || at("store") > at("cache") || at("cache") > at("app") || at("log") > at("app") {
		t.Errorf("order %v", order)
	}
	if got := h.Plugins(); len(got) != 5 {
		t.Errorf("%d plugins", len(got))
	}
	if err := h.Launcher().Start(t.Context()); err != nil || len(order) != 4 {
		t.Errorf("again: %v, %v", order, err)
	}
	if err := h.Launcher().Stop(t.Context(), "elsewhere"); err != nil {
		t.Fatal(err)
	}
	live, err := h.Platform().GetStartupOrder()
	if err == nil || !strings.Contains(err.Error(), "elsewhere") {
		t.Errorf("live order %v, %v", live, err)
	}
}

func TestStartIsAllOrNothing(t *testing.T) {
	t.Parallel()
	h := start(t, "app", "cache", "store")
	begun := func(name string) any {
		if name == "cache" {
			return errors.New("no handler")
		}
		return echoHandler()
	}
	h.Launcher().Configure(chain(begun, "app cache", "cache store", "store"))
	if err := h.Launcher().Start(t.Context()); err == nil || !strings.Contains(err.Error(), `"cache"`) || strings.Contains(err.Error(), `"app"`) {
		t.Errorf("error %v", err)
	}
	if got := h.Plugins(); len(got) != 0 {
		t.Errorf("left: %+v", got)
	}
	h.Launcher().Configure(chain(func(string) any { t.Error("it started"); return nil }, "app cache", "cache app"))
	if err := h.Launcher().Start(t.Context()); err == nil || !strings.Contains(err.Error(), "cycle") {
		t.Errorf("a circle: %v", err)
	}
	hosttest.Eventually(t, "nothing runs", func() bool { return len(h.Plugins()) == 0 })
}

// Plugins that do not need each other start at the same time.
func TestStartTogetherWhatTheGraphAllows(t *testing.T) {
	t.Parallel()
	h := start(t, "app", "cache", "log")
	meeting := map[string]chan struct{}{"cache": make(chan struct{}), "log": make(chan struct{})}
	other := map[string]string{"cache": "log", "log": "cache"}
	begun := func(name string) any {
		if mine := meeting[name]; mine != nil { // neither goes on before the other one is there
			close(mine)
			select {
			case <-meeting[other[name]]:
			case <-time.After(wait):
				t.Errorf("%q waits for %q to be there", other[name], name)
			}
		}
		return echoHandler()
	}
	h.Launcher().Configure(chain(begun, "app cache log", "cache", "log"))
	if err := h.Launcher().Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := h.Plugins(); len(got) != 3 {
		t.Errorf("%d plugins", len(got))
	}
}

// Start may be called before the host serves: what runs in the host's process begins, programs wait, and so does who adopts. At
// the end of its context Start says why nothing came, and leaves nothing.
func TestStartBeforeTheHostServes(t *testing.T) {
	t.Parallel()
	authority := hosttest.NewAuthority(t)
	host, err := connectplugin.NewHost(&connectplugin.ServeConfig{
		Authority: authority, Logger: hosttest.Logger(t), Limits: connectplugin.Limits{DialTimeout: wait},
		HealthProbe: connectplugin.HealthProbeConfig{Disabled: true},
		Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"store": {Provides: []string{"*"}}, "program": {Provides: []string{"*"}}, "echo": {Provides: []string{"own"}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	specs := chain(func(string) any { return echoHandler() }, "store")
	specs["program"] = spec()
	host.Launcher().Configure(specs)
	running := func() bool { return len(host.Registry().GetAllProviders("store")) == 1 }
	ctx, cancel := context.WithCancel(t.Context())
	started, adopted := make(chan error, 1), make(chan error, 1)
	there := adoption(sidecar(t, &hosttest.Host{Authority: authority}, "echo", func(c *connectplugin.PluginServerConfig) { c.Services[0].Type = "own" }))
	there.Metadata.Provides = hosttest.Provides("own")
	go func() { started <- host.Launcher().Start(ctx) }()
	go func() { adopted <- host.Platform().AddPlugin(ctx, there) }()
	hosttest.Eventually(t, "the plugin in the host's process runs", running)
	cancel()
	for what, ended := range map[string]chan error{"Start": started, "AddPlugin": adopted} {
		if err := <-ended; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "the host does not serve yet") {
			t.Errorf("%s of a host that never serves: %v", what, err)
		}
	}
	if running() {
		t.Error("something is left")
	}
	go func() { started <- host.Launcher().Start(t.Context()) }()
	go func() { adopted <- host.Platform().AddPlugin(t.Context(), there) }()
	hosttest.Eventually(t, "the plugin in the host's process runs again", running)
	serving, end := context.WithCancel(context.Background())
	served, l := make(chan error, 1), hosttest.Listen(t)
	go func() { served <- host.Serve(serving, l) }()
	if err := errors.Join(<-started, <-adopted); err != nil {
		t.Error(err)
	}
	if all := host.Plugins(); len(all) != 3 {
		t.Errorf("plugins %+v", all)
	}
	end()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// A strategy that starts processes is one launcher's, whose end is the end of what it starts: another one says what to write. One
// for plugins in memory may be several launchers'.
func TestAStrategyOfTwoLaunchers(t *testing.T) {
	t.Parallel()
	for name, strategy := range map[string]connectplugin.LaunchStrategy{
		"process": connectplugin.NewProcessStrategy(), "go-plugin": connectplugin.NewGoPluginStrategy(), "in-memory": connectplugin.NewInMemoryStrategy(nil),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			launch := func(h *hosttest.Host) error {
				sp, _ := memorySpec()
				if name != "in-memory" {
					sp = spec()
				}
				sp.Strategy = name
				h.Launcher().RegisterStrategy(strategy)
				h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
				return h.Launcher().Start(t.Context())
			}
			first, second := start(t, "echo"), start(t, "echo")
			const belongs = "was given to another launcher"
			if err := launch(first); err != nil && (name != "go-plugin" || strings.Contains(err.Error(), belongs)) { // it is none
				t.Fatal(err)
			}
			err := launch(second)
			if name == "in-memory" {
				first.Stop(t)
				if got, failed := caller(t, second, "echo")("hello"); err != nil || got != "hello" {
					t.Errorf("%q, %v, %v", got, err, failed)
				}
				return
			}
			if want := `PluginSpec["echo"].Strategy: "` + name + `"`; err == nil || !strings.Contains(err.Error(), belongs) || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %s", err, want)
			}
			second.Stop(t) // ends nothing of the first one's
			if name == "process" {
				if err := first.Launcher().Replace(t.Context(), "echo"); err != nil {
					t.Errorf("afterwards: %v", err)
				}
			}
		})
	}
}

// However long a name is, errors of launches name the beginning of it.
func TestErrorsOfLaunchesAreShort(t *testing.T) {
	t.Parallel()
	h, long := start(t, "echo"), strings.Repeat("echo", 10_000)
	sp, _ := memorySpec()
	other := sp
	other.Strategy = long
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{long: sp, "echo": other})
	_, unknown := h.Launcher().GetService(long+"s", "echo")
	_, invalid := h.Launcher().GetService(long, "echo")
	_, strategy := h.Launcher().GetService("echo", "echo")
	for name, err := range map[string]error{
		"unknown": unknown, "invalid": invalid, "strategy": strategy, "start": h.Launcher().Start(t.Context()),
		"stop": h.Launcher().Stop(t.Context(), long), "replace": h.Launcher().Replace(t.Context(), long+"s"),
		"remove": h.Platform().RemovePlugin(t.Context(), long), "replace adopted": h.Platform().ReplacePlugin(t.Context(), long, adoption("https://127.0.0.1:1")),
	} {
		if err == nil || len(err.Error()) > 1_000 || !strings.Contains(err.Error(), "echoecho") {
			t.Errorf("%s: %.200v", name, err)
		}
	}
}
