package platform_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// guestPlugin is a plugin in memory whose code does what a test says.
type guestPlugin struct {
	memoryPlugin

	metadata func() connectplugin.PluginMetadata
	serve    func(impl any) (string, http.Handler, error)
}

func (p guestPlugin) Metadata() connectplugin.PluginMetadata {
	if p.metadata == nil {
		return p.memoryPlugin.Metadata()
	}
	return p.metadata()
}

func (p guestPlugin) ConnectServer(impl any) (string, http.Handler, error) {
	if p.serve == nil {
		return p.memoryPlugin.ConnectServer(impl)
	}
	return p.serve(impl)
}

// closeFunc is an implementation that is closed as a test says.
type closeFunc struct {
	http.Handler

	close func() error
}

func (c closeFunc) Close() error { return c.close() }

// guestStrategy launches as a test says.
type guestStrategy func(context.Context, connectplugin.PluginSpec) (connectplugin.LaunchResult, error)

func (guestStrategy) Name() string { return "guest" }

func (s guestStrategy) Launch(ctx context.Context, spec connectplugin.PluginSpec) (connectplugin.LaunchResult, error) {
	return s(ctx, spec)
}

// locked is a buffer for a log.
type locked struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// guestHost is a host with a launcher that has the strategy "guest" and one plugin, "echo".
func guestHost(t *testing.T, spec connectplugin.PluginSpec, launch guestStrategy) (*hosttest.Host, *locked) {
	t.Helper()
	log := &locked{}
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"echo": {Provides: []string{"echo"}}}}
		c.Logger = slog.New(slog.NewTextHandler(log, nil))
	})
	h.Launcher().RegisterStrategy(launch)
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec})
	return h, log
}

func guestSpec() connectplugin.PluginSpec {
	return connectplugin.PluginSpec{
		Provides: []string{"echo"}, Plugin: guestPlugin{memoryPlugin: memoryPlugin{path: echoPath}},
		ImplFactory: func() any { return echoHandler() },
	}
}

func served() (connectplugin.LaunchResult, error) {
	return connectplugin.LaunchResult{Endpoint: "http://guest", HTTPClient: http.DefaultClient}, nil
}

// A panic of the user's code in a launch is the error of it, which names the code, and ends nothing else.
func TestPanicInALaunchIsItsError(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		edit   func(*connectplugin.PluginSpec)
		launch guestStrategy
		want   string
	}{
		"factory": {func(s *connectplugin.PluginSpec) { s.ImplFactory = func() any { panic("boom") } }, nil, `PluginSpec["echo"].ImplFactory panicked: boom`},
		"metadata": {func(s *connectplugin.PluginSpec) {
			s.Plugin = guestPlugin{metadata: func() connectplugin.PluginMetadata { panic("boom") }}
		}, nil, `PluginSpec["echo"].Plugin.Metadata panicked: boom`},
		"server": {func(s *connectplugin.PluginSpec) {
			s.Plugin = guestPlugin{serve: func(any) (string, http.Handler, error) { panic("boom") }}
		}, nil, `PluginSpec["echo"].Plugin.ConnectServer panicked: boom`},
		"strategy": {func(s *connectplugin.PluginSpec) { s.Strategy = "guest" }, func(context.Context, connectplugin.PluginSpec) (connectplugin.LaunchResult, error) {
			panic("boom")
		}, `the strategy "guest": Launch panicked: boom`},
		"nothing": {func(s *connectplugin.PluginSpec) { s.Strategy = "guest" }, func(context.Context, connectplugin.PluginSpec) (connectplugin.LaunchResult, error) {
			return connectplugin.LaunchResult{}, nil
		}, `the strategy "guest": Launch returned a LaunchResult without Endpoint or HTTPClient`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec := guestSpec()
			tt.edit(&spec)
			h, _ := guestHost(t, spec, tt.launch)
			if err := h.Launcher().Start(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			if got := h.Plugins(); len(got) != 0 {
				t.Errorf("left: %+v", got)
			}
		})
	}
}

// A replacement whose code panics is an error, and the old instance goes on.
func TestPanicInAReplacement(t *testing.T) {
	t.Parallel()
	h, _ := guestHost(t, guestSpec(), nil)
	if err := h.Launcher().Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	spec := guestSpec()
	spec.Plugin = guestPlugin{metadata: func() connectplugin.PluginMetadata { panic("boom") }}
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec})
	const want = `PluginSpec["echo"].Plugin.Metadata panicked: boom`
	if err := h.Launcher().Replace(t.Context(), "echo"); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
	if got := h.Plugins(); len(got) != 1 {
		t.Errorf("there are %+v", got)
	}
}

// A panic at the end of a plugin is the error of its stop, or stands in the log with its stack; the plugin has ended.
func TestPanicAtTheEndOfAPlugin(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		edit func(*connectplugin.PluginSpec)
		want string // of the error
	}{
		"close": {func(s *connectplugin.PluginSpec) {
			s.ImplFactory = func() any { return closeFunc{echoHandler(), func() error { panic("boom") }} }
		}, `PluginSpec["echo"].ImplFactory: Close of the implementation panicked: boom`},
		"cleanup": {func(s *connectplugin.PluginSpec) { s.Strategy = "guest" }, `the strategy "guest": LaunchResult.Cleanup panicked: boom`},
		"exit":    {func(s *connectplugin.PluginSpec) { s.OnExit = func(connectplugin.PluginExit) { panic("boom") } }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec := guestSpec()
			tt.edit(&spec)
			h, log := guestHost(t, spec, func(context.Context, connectplugin.PluginSpec) (connectplugin.LaunchResult, error) {
				r, err := served()
				r.Cleanup = func() { panic("boom") }
				return r, err
			})
			if err := h.Launcher().Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			err := h.Launcher().Stop(t.Context(), "echo")
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if said := log.String(); !strings.Contains(said, "panicked: boom") || !strings.Contains(said, "guest_test.go") || !strings.Contains(said, "stack=") {
				t.Errorf("log: %s", said)
			}
			if err := h.Launcher().Stop(t.Context(), "echo"); !errors.Is(err, connectplugin.ErrPluginNotRunning) {
				t.Errorf("it runs: %v", err)
			}
		})
	}
}

// blocking are the places in which code of the user's does not return until block is closed.
func blocking(block <-chan struct{}, closed chan<- string) map[string]func(*connectplugin.PluginSpec) guestStrategy {
	closes := func(what string) func() error {
		return func() error {
			closed <- what
			return nil
		}
	}
	return map[string]func(*connectplugin.PluginSpec) guestStrategy{
		"ImplFactory has": func(s *connectplugin.PluginSpec) guestStrategy {
			s.ImplFactory = func() any { <-block; return closeFunc{echoHandler(), closes("late")} }
			return nil
		},
		"Plugin.ConnectServer has": func(s *connectplugin.PluginSpec) guestStrategy {
			s.Plugin = guestPlugin{serve: func(any) (string, http.Handler, error) { <-block; return "", nil, nil }}
			return nil
		},
		"Launch has": func(s *connectplugin.PluginSpec) guestStrategy {
			s.Strategy = "guest"
			return func(context.Context, connectplugin.PluginSpec) (connectplugin.LaunchResult, error) {
				<-block
				r, err := served()
				r.Cleanup = func() { _ = closes("late")() }
				return r, err
			}
		},
	}
}

// A launch whose code does not return fails within ReadyTimeout; what the code makes later is closed.
func TestLaunchThatBlocksHoldsUpNobody(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"ImplFactory has", "Plugin.ConnectServer has", "Launch has"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			block, closed := make(chan struct{}), make(chan string, 1)
			spec := guestSpec()
			spec.ReadyTimeout = 50 * time.Millisecond
			launch := blocking(block, closed)[what](&spec)
			h, _ := guestHost(t, spec, launch)
			err := h.Launcher().Start(t.Context())
			if err == nil || !strings.Contains(err.Error(), what+" not returned") || !strings.Contains(err.Error(), "ReadyTimeout is over (50ms)") {
				t.Errorf("got %v", err)
			}
			if err := h.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			close(block)
			if what != "Plugin.ConnectServer has" {
				<-closed
			}
		})
	}
}

// A stop ends a launch that does not return, whatever its ReadyTimeout.
func TestStopOfALaunchThatBlocks(t *testing.T) {
	t.Parallel()
	block, closed := make(chan struct{}), make(chan string, 1)
	began := make(chan struct{})
	spec := guestSpec()
	spec.ReadyTimeout = time.Hour
	spec.ImplFactory = func() any { close(began); <-block; closed <- ""; return nil }
	h, _ := guestHost(t, spec, nil)
	failed := make(chan error, 1)
	go func() { failed <- h.Launcher().Start(t.Context()) }()
	<-began
	if err := h.Launcher().Stop(t.Context(), "echo"); err != nil {
		t.Error(err)
	}
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "ImplFactory has not returned") {
		t.Errorf("got %v", err)
	}
	close(block)
	<-closed
}

// The end of a plugin whose code does not return takes StopGrace, or a moment more than ctx lasts, and says what still runs.
func TestEndThatBlocksHoldsUpNobody(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		edit  func(*connectplugin.PluginSpec, func())
		grace time.Duration
		stop  func(context.Context, *hosttest.Host) error
		want  string // empty: only the log says it
	}{
		"close, grace": {
			func(s *connectplugin.PluginSpec, block func()) {
				s.ImplFactory = func() any { return closeFunc{echoHandler(), func() error { block(); return nil }} }
			}, 50 * time.Millisecond,
			func(ctx context.Context, h *hosttest.Host) error { return h.Launcher().Stop(ctx, "echo") }, "Close of the implementation has not returned",
		},
		"close, shutdown": {
			func(s *connectplugin.PluginSpec, block func()) {
				s.ImplFactory = func() any { return closeFunc{echoHandler(), func() error { block(); return nil }} }
			}, 50 * time.Millisecond,
			func(ctx context.Context, h *hosttest.Host) error { return h.Shutdown(ctx) }, "Close of the implementation has not returned",
		},
		"close, ctx": {
			func(s *connectplugin.PluginSpec, block func()) {
				s.ImplFactory = func() any { return closeFunc{echoHandler(), func() error { block(); return nil }} }
			}, 15 * time.Second,
			func(ctx context.Context, h *hosttest.Host) error {
				ctx, cancel := context.WithCancel(ctx)
				cancel()
				return h.Launcher().Stop(ctx, "echo")
			}, "Close of the implementation has not returned",
		},
		"cleanup": {
			func(s *connectplugin.PluginSpec, _ func()) { s.Strategy = "guest" }, 50 * time.Millisecond,
			func(ctx context.Context, h *hosttest.Host) error { return h.Launcher().Stop(ctx, "echo") }, "LaunchResult.Cleanup has not returned",
		},
		"exit": {
			func(s *connectplugin.PluginSpec, block func()) { s.OnExit = func(connectplugin.PluginExit) { block() } }, 50 * time.Millisecond,
			func(ctx context.Context, h *hosttest.Host) error { return h.Launcher().Stop(ctx, "echo") }, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gate, over := make(chan struct{}), make(chan struct{})
			block := func() {
				<-gate
				close(over)
			}
			spec := guestSpec()
			spec.StopGrace = tt.grace
			tt.edit(&spec, block)
			h, log := guestHost(t, spec, func(context.Context, connectplugin.PluginSpec) (connectplugin.LaunchResult, error) {
				r, err := served()
				r.Cleanup = block
				return r, err
			})
			if err := h.Launcher().Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			err := tt.stop(t.Context(), h)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if tt.want == "" && !strings.Contains(log.String(), "Exit has not returned") {
				t.Errorf("log: %s", log)
			}
			close(gate)
			<-over
		})
	}
}

// slowObserver does not return from what tells of a plugin until it is released.
type slowObserver struct {
	connectplugin.NopObserver

	gate chan struct{}
}

func (o slowObserver) Launch(connectplugin.LaunchEvent) { <-o.gate }
func (o slowObserver) Exit(connectplugin.ExitEvent)     { <-o.gate }

// An observer that blocks in Launch or Exit, which it must not, holds up no launcher for longer than a plugin may take to end.
func TestAnObserverThatBlocksHoldsUpNoLauncher(t *testing.T) {
	t.Parallel()
	o, log := slowObserver{gate: make(chan struct{})}, new(locked)
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Observer, c.Logger = o, slog.New(slog.NewTextHandler(log, nil))
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"echo": {Provides: []string{"*"}}}}
	})
	defer close(o.gate)
	sp, _ := memorySpec()
	sp.StopGrace = 50 * time.Millisecond
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
	if got, err := caller(t, h, "echo")("hello"); got != "hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if err := h.Launcher().Stop(t.Context(), "echo"); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"Observer.Launch has not returned", "Observer.Exit has not returned"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q: %s", want, log)
		}
	}
}
