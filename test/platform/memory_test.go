package platform_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// memoryPlugin is the echo service as a plugin of the host's own process.
type memoryPlugin struct {
	metadata connectplugin.PluginMetadata
	path     string
	err      error
}

func (p memoryPlugin) Metadata() connectplugin.PluginMetadata { return p.metadata }

func (p memoryPlugin) ConnectServer(impl any) (string, http.Handler, error) {
	handler, _ := impl.(http.Handler)
	return p.path, handler, p.err
}

func (p memoryPlugin) ConnectClient(string, connect.HTTPClient) (any, error) {
	return nil, errors.ErrUnsupported
}

// memoryImpl is an implementation that notes its end.
type memoryImpl struct {
	http.Handler

	closed atomic.Bool
}

func (m *memoryImpl) Close() error {
	m.closed.Store(true)
	return nil
}

// memorySpec launches the echo service in memory.
func memorySpec() (connectplugin.PluginSpec, *memoryImpl) {
	impl := &memoryImpl{Handler: echoHandler()}
	return connectplugin.PluginSpec{
		Provides: []string{"echo"}, Plugin: memoryPlugin{path: echoPath, metadata: connectplugin.PluginMetadata{Version: "1.2.0"}},
		ImplFactory: func() any { return impl },
	}, impl
}

func TestAudit_H56_InMemoryPluginIsAPlugin(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	sp, impl := memorySpec()
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
	call := caller(t, h, "echo")
	if got, err := call("hello"); got != "hello" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	p := h.Plugins()
	if len(p) != 1 || p[0].Launch == nil || p[0].Health != connectpluginv1.HealthState_HEALTH_STATE_HEALTHY || p[0].SelfVersion != "1.2.0" {
		t.Errorf("plugins %+v", p)
	}
	url, client, err := h.Launcher().GetServiceClient("echo", "")
	if err != nil {
		t.Fatal(err)
	}
	s := connect.NewClient[text, text](client, url+echoStream).CallBidiStream(t.Context())
	for _, word := range []string{"a", "b", "c"} {
		if err := s.Send(wrapperspb.String(word)); err != nil {
			t.Fatal(err)
		}
		if m, err := s.Receive(); err != nil || m.GetValue() != word {
			t.Fatalf("stream: %v, %v", m, err)
		}
	}
	_ = errors.Join(s.CloseRequest(), s.CloseResponse())
	if !slices.ContainsFunc(h.Audit.Events(), func(e connectplugin.AuditEvent) bool {
		return e.Kind == connectplugin.AuditRegistered && e.Subject == "echo" && e.SelfID == "echo" && e.RuntimeID == p[0].RuntimeID
	}) {
		t.Errorf("the audit does not say who registered: %v", h.Audit.Events())
	}
	if !h.Revoke(p[0].RuntimeID) {
		t.Error("it cannot be revoked")
	}
	hosttest.Eventually(t, "a new instance", func() bool {
		got, err := call("again")
		return err == nil && got == "again" && impl.closed.Load()
	})
	if err := h.Launcher().Stop(t.Context(), "echo"); err != nil {
		t.Fatal(err)
	}
	if got := h.Plugins(); len(got) != 0 || len(h.Registry().GetAllProviders("echo")) != 0 {
		t.Errorf("left: %+v", got)
	}
}

func TestAudit_H56_InMemoryPluginIsValidatedAndAllowed(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		edit func(*connectplugin.PluginSpec)
		want string
	}{
		"no plugin": {
			func(s *connectplugin.PluginSpec) { s.Plugin = nil },
			`PluginSpec["echo"].BinaryPath: is empty, and so is Plugin; write the path of a program, or set Plugin and ImplFactory`,
		},
		"no plugin for a strategy that was asked for": {func(s *connectplugin.PluginSpec) {
			s.Plugin, s.Strategy, s.BinaryPath = nil, "in-memory", "/bin/echo"
		}, `PluginSpec["echo"].Plugin: is nil; the strategy "in-memory" needs it: set it, or leave Strategy empty to run BinaryPath`},
		"no factory": {
			func(s *connectplugin.PluginSpec) { s.ImplFactory = nil },
			`ImplFactory: is nil; the strategy "in-memory", which a spec without BinaryPath has, makes the implementation with it: set it, or write BinaryPath`,
		},
		"waits the wrong way round": {func(s *connectplugin.PluginSpec) {
			s.Restart.MinBackoff, s.Restart.MaxBackoff = time.Minute, time.Second
		}, `PluginSpec["echo"].Restart.MinBackoff: 1m0s is more than MaxBackoff, 1s; write that or less`},
		"a bare number for a wait": {
			func(s *connectplugin.PluginSpec) { s.Restart.Cooldown = 60 },
			`PluginSpec["echo"].Restart.Cooldown: 60ns is too short; write 1ms or more`,
		},
		"a bare number for an end": {func(s *connectplugin.PluginSpec) { s.StopGrace = 5 }, `PluginSpec["echo"].StopGrace: 5ns is too short`},
		"a directory of nowhere": {
			func(s *connectplugin.PluginSpec) { s.Dir = "run" },
			`PluginSpec["echo"].Dir: "run" is not absolute; write the whole path, or leave it empty`,
		},
		"a zero byte":              {func(s *connectplugin.PluginSpec) { s.Env = []string{"A=1", "K=a secret\x00"} }, `["echo"].Env[1]: has a zero byte`},
		"a zero byte of arguments": {func(s *connectplugin.PluginSpec) { s.Args = []string{"a secret\x00"} }, `["echo"].Args[0]: has a zero byte`},
		"no implementation":        {func(s *connectplugin.PluginSpec) { s.ImplFactory = func() any { return nil } }, "ImplFactory"},
		"no handler":               {func(s *connectplugin.PluginSpec) { s.ImplFactory = func() any { return 1 } }, "no handler"},
		"unclean path":             {func(s *connectplugin.PluginSpec) { s.Plugin = memoryPlugin{path: "/a/../b"} }, "dot segments"},
		"an error":                 {func(s *connectplugin.PluginSpec) { s.Plugin = memoryPlugin{path: echoPath, err: errors.New("broken")} }, "broken"},
		"another service": {func(s *connectplugin.PluginSpec) {
			s.Plugin = memoryPlugin{path: echoPath, metadata: connectplugin.PluginMetadata{
				Version: "1.0.0", Provides: []connectplugin.ServiceDeclaration{{Type: "other", Version: "1.0.0"}},
			}}
		}, "other"},
		"a bad version": {func(s *connectplugin.PluginSpec) {
			s.Plugin = memoryPlugin{path: echoPath, metadata: connectplugin.PluginMetadata{Version: "one"}}
		}, "version"},
		"a bad type":              {func(s *connectplugin.PluginSpec) { s.Provides = []string{"a/b"} }, "Provides"},
		"bad metadata":            {func(s *connectplugin.PluginSpec) { s.Metadata = map[string]string{"authorization": "x"} }, "Metadata"},
		"not allowed":             {func(s *connectplugin.PluginSpec) { s.Provides = []string{"denied"} }, "policy does not allow"},
		"not known":               {func(s *connectplugin.PluginSpec) { s.Name = "stranger" }, "policy does not know"},
		"an unregistered way":     {func(s *connectplugin.PluginSpec) { s.Strategy = "container" }, "Strategy"},
		"owned by another plugin": {func(s *connectplugin.PluginSpec) { s.Name = "rival" }, "another plugin provides"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
				c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
					"echo": {Provides: []string{"echo"}}, "first": {Provides: []string{"echo"}}, "rival": {Provides: []string{"echo"}},
				}}
			})
			first, _ := memorySpec()
			bad, _ := memorySpec()
			tt.edit(&bad)
			specs := map[string]connectplugin.PluginSpec{"echo": bad}
			want := 0
			if bad.Name == "rival" {
				specs["first"], want = first, 1
			}
			h.Launcher().Configure(specs)
			if want == 1 {
				caller(t, h, "first")
			}
			_, err := h.Launcher().GetDefaultService("echo")
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "a secret") {
				t.Errorf("error %v, want one about %q", err, tt.want)
			}
			if got := h.Plugins(); len(got) != want {
				t.Errorf("left: %+v", got)
			}
		})
	}
}

func TestAudit_H41_InMemoryLaunchNotifies(t *testing.T) {
	t.Parallel()
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"echo": {Provides: []string{"echo"}}, "user": hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Requires = []string{"echo"} }),
		}}
	})
	sp, _ := memorySpec()
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
	user := h.Enrol(t, "user", func(c *connectplugin.ClientConfig) { c.Metadata.Requires = hosttest.Requires("echo") })
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	var states []connectpluginv1.ServiceState
	for event, err := range user.WatchService(ctx, "echo") {
		if err != nil {
			t.Fatal(err)
		}
		states = append(states, event.State)
		switch len(states) {
		case 1:
			caller(t, h, "echo")
		case 2:
			conn, err := user.Service(ctx, "echo", "^1")
			if err != nil {
				t.Fatal(err)
			}
			c := connect.NewClient[text, text](conn.HTTPClient(), conn.BaseURL()+echoSay)
			if resp, err := c.CallUnary(ctx, connect.NewRequest(wrapperspb.String("x"))); err != nil || resp.Msg.GetValue() != "x" {
				t.Errorf("routed: %v", err)
			}
			go func() { _ = h.Launcher().Stop(context.Background(), "echo") }()
		}
		if len(states) == 3 {
			break
		}
	}
	const available, unavailable = connectpluginv1.ServiceState_SERVICE_STATE_AVAILABLE, connectpluginv1.ServiceState_SERVICE_STATE_UNAVAILABLE
	if len(states) != 3 || states[0] != unavailable || states[1] != available || states[2] != unavailable {
		t.Errorf("states %v", states)
	}
}

func TestAudit_H56_InMemoryPluginDrains(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	entered, leave := make(chan struct{}), make(chan struct{})
	sp, _ := memorySpec()
	sp.ImplFactory = func() any {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(entered)
			<-leave
			echoHandler().ServeHTTP(w, r)
		})
	}
	sp.StopGrace = time.Minute
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
	call := caller(t, h, "echo")
	answered := make(chan error, 1)
	go func() {
		_, err := call("x")
		answered <- err
	}()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- h.Launcher().Stop(context.Background(), "echo") }()
	hosttest.Eventually(t, "it gets no new calls", func() bool { return len(h.Registry().GetAllProviders("echo")) == 0 })
	close(leave)
	if err := errors.Join(<-answered, <-stopped); err != nil {
		t.Error(err)
	}
}

// A plugin in memory is degraded while something is away that it watches for, in a version that will do, as one elsewhere is.
func TestInMemoryPluginIsDegradedWithoutWhatItWatchesFor(t *testing.T) {
	t.Parallel()
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"echo": {Provides: []string{"echo"}, Requires: []string{"*"}}, "logger": hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Provides = []string{"logger"} }),
		}}
	})
	sp, _ := memorySpec()
	sp.Plugin = memoryPlugin{path: echoPath, metadata: connectplugin.PluginMetadata{Version: "1.2.0", Requires: []connectplugin.ServiceDependency{
		{Type: "logger", MinVersion: "1.0.0", WatchForChanges: true}, {Type: "other"},
	}}}
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
	if err := h.Launcher().Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	is := func(state connectpluginv1.HealthState, reason string) func() bool {
		return func() bool {
			return slices.ContainsFunc(h.Plugins(), func(p connectplugin.PluginStatus) bool {
				return p.SelfID == "echo" && p.Health == state && p.Reason == reason
			})
		}
	}
	const degraded, missing = connectpluginv1.HealthState_HEALTH_STATE_DEGRADED, "a required service is not available"
	if !is(degraded, missing)() {
		t.Errorf("without it: %+v", h.Plugins())
	}
	provider := func(version string) *hosttest.Plugin {
		return h.StartPlugin(t, "logger", func(c *connectplugin.PluginServerConfig) {
			service := hosttest.LoggerService(&hosttest.RecordingLogger{})
			service.Version = version
			c.Services = []connectplugin.PluginService{service}
		})
	}
	old := provider("0.9.0")
	for range 2 {
		if !is(degraded, missing)() {
			t.Errorf("with a version that will not do: %+v", h.Plugins())
		}
		if old != nil {
			old.Stop(t)
			old = nil
		}
		good := provider("1.1.0")
		hosttest.Eventually(t, "it is healthy", is(connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, ""))
		good.Stop(t)
		hosttest.Eventually(t, "it is degraded again", is(degraded, missing))
	}
	if err := h.Launcher().Stop(t.Context(), "echo"); err != nil {
		t.Error(err)
	}
}
