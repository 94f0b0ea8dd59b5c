package platform_test

import (
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
	h := start(t, "app", "cache", "store", "log")
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
	if got := h.Plugins(); len(got) != 4 {
		t.Errorf("%d plugins", len(got))
	}
	if err := h.Launcher().Start(t.Context()); err != nil || len(order) != 4 {
		t.Errorf("again: %v, %v", order, err)
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
