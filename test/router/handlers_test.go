package router_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// What cannot be registered leaves nothing behind, and what was registered for an
// identity ends with it.
func TestRouter_HandlersEndWithTheirIdentity(t *testing.T) {
	t.Parallel()
	service := echo.Service{}.Handler()
	var log hosttest.Buffer
	rig := newMemoryRig(t, service, func(c *connectplugin.ServeConfig) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	runtimes := rig.Usage().Plugins
	ended := rig.enrolInProcess(t, "other")
	rig.Revoke(ended)
	for name, c := range map[string]struct {
		id      string
		handler http.Handler
	}{"unknown": {"nobody", service}, "empty": {"", service}, "ended": {ended, service}, "no handler": {rig.providerID, nil}} {
		if err := rig.router.RegisterPluginHandler(c.id, c.handler); err == nil {
			t.Errorf("%s: was registered", name)
		}
	}
	rig.router.RegisterPluginEndpoint("nobody", "https://127.0.0.1:1")
	rig.router.RegisterPluginEndpoint(ended, "https://127.0.0.1:1")
	if n := strings.Count(log.String(), "endpoint of a plugin ignored"); n != 2 {
		t.Errorf("the log says %d times that an endpoint is ignored, want 2", n)
	}
	check := func(when string, handlers, want int) {
		t.Helper()
		n, m := rig.Usage().Handlers, rig.Usage().Plugins
		if n != handlers || m != want {
			t.Errorf("%s: %d handlers and %d runtimes, want %d and %d", when, n, m, handlers, want)
		}
	}
	check("after what was refused", 1, runtimes)
	if out := echo.CallUnary(t.Context(), rig.toMemory(), nil, nil); out.Err != nil {
		t.Errorf("the provider: %v", out.Err)
	}
	rig.router.RegisterPluginEndpoint(rig.providerID, "")
	if out := echo.CallUnary(t.Context(), rig.toMemory(), nil, nil); connect.CodeOf(out.Err) != connect.CodeUnavailable {
		t.Errorf("without its handler: %v, want unavailable", out.Err)
	}
	check("without its handler", 0, runtimes)
	if err := rig.router.RegisterPluginHandler(rig.providerID, service); err != nil {
		t.Fatal(err)
	}
	rig.Revoke(rig.providerID)
	check("after the end of the provider", 0, runtimes-1)
}

// An identity that ends while its handler is being registered takes it along.
func TestRouter_HandlersRaceWithTheEnd(t *testing.T) {
	t.Parallel()
	service := echo.Service{}.Handler()
	rig := newMemoryRig(t, service, func(c *connectplugin.ServeConfig) { c.Logger = nil })
	runtimes := rig.Usage().Plugins
	for range 200 {
		id := rig.enrolInProcess(t, "other")
		var both sync.WaitGroup
		both.Go(func() { rig.Revoke(id) })
		both.Go(func() {
			_ = rig.router.RegisterPluginHandler(id, service)
			rig.router.RegisterPluginEndpoint(id, "https://127.0.0.1:1")
			_ = rig.router.RegisterPluginHandler(id, service)
		})
		both.Wait()
	}
	if n, m := rig.Usage().Handlers, rig.Usage().Plugins; n != 1 || m != runtimes {
		t.Errorf("%d handlers and %d runtimes, want 1 and %d", n, m, runtimes)
	}
	if out := echo.CallUnary(t.Context(), rig.toMemory(), nil, nil); out.Err != nil {
		t.Errorf("the provider: %v", out.Err)
	}
}

// answering is a service that answers who it is, and echoes streams.
func answering(name string) http.Handler {
	return echo.Service{Unary: func(context.Context, *connect.Request[echo.Text]) (*connect.Response[echo.Text], error) {
		return connect.NewResponse(&echo.Text{Value: name}), nil
	}}.Handler()
}

// A handler and an endpoint take each other's place; calls to the one before finish,
// those to the one before that do not.
func TestRouter_HandlerAndEndpointTakeTurns(t *testing.T) {
	t.Parallel()
	rig := newMemoryRig(t, answering("first"), nil)
	providerTLS, err := rig.Authority.PluginTLS("provider")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := echo.NewTrap(t, "127.0.0.1", providerTLS)
	elsewhere.Next = answering("elsewhere")
	handler := func(name string) {
		if err := rig.router.RegisterPluginHandler(rig.providerID, answering(name)); err != nil {
			t.Fatal(err)
		}
	}
	echo.EachOption(t, func(t *testing.T, opts []connect.ClientOption) {
		var streams []*connect.BidiStreamForClient[echo.Text, echo.Text]
		for i, move := range []func() string{
			func() string { handler("second"); return "second" },
			func() string {
				rig.router.RegisterPluginEndpoint(rig.providerID, "https://"+elsewhere.Addr)
				return "elsewhere"
			},
			func() string { handler("third"); return "third" },
			func() string { handler("fourth"); return "fourth" },
		} {
			want := move()
			if out := echo.CallUnary(t.Context(), rig.toMemory(), opts, nil); out.Err != nil || out.Messages[0] != want {
				t.Fatalf("move %d: %v %v, want %s", i, out.Messages, out.Err, want)
			}
			stream := echo.NewClient(rig.toMemory(), echo.Bidi, opts...).CallBidiStream(t.Context())
			echo.SendWant(t, stream, "begun", "begun")
			if streams = append(streams, stream); i > 0 {
				echo.SendWant(t, streams[i-1], "goes on", "goes on")
			}
			if i > 1 {
				if err := echo.StreamEnd(t, streams[i-2]); connect.CodeOf(err) != connect.CodeUnavailable {
					t.Errorf("move %d: two back: %v, want unavailable", i, err)
				}
			}
		}
		for _, stream := range streams {
			_ = stream.CloseRequest()
			_ = stream.CloseResponse()
		}
	})
	if n := rig.Usage().Handlers; n != 1 {
		t.Errorf("%d handlers", n)
	}
}

// Nobody names the handler of a plugin as the endpoint of another one.
func TestAudit_PROTO52_HandlersAreNoEndpointsToName(t *testing.T) {
	t.Parallel()
	seen := &echo.Recorder{Next: echo.Service{}.Handler()}
	rig := newMemoryRig(t, seen, nil)
	thief := echo.EnrolProvider(t, rig.Host, "other")
	if err := echo.Register(t, thief, nil); err != nil {
		t.Fatal(err)
	}
	// The host notes the handlers of plugins under these names.
	for _, endpoint := range []string{"memory:1", "memory:2", "memory:3", "memory:", "memory:" + rig.providerID} {
		if err := echo.Register(t, thief, map[string]string{"base_url": endpoint}); connect.CodeOf(err) != connect.CodePermissionDenied {
			t.Errorf("base_url %q: %v, want permission_denied", endpoint, err)
		}
		rig.router.RegisterPluginEndpoint(thief.RuntimeID(), endpoint)
		if out := echo.CallUnary(t.Context(), rig.Route(thief.RuntimeID()), nil, nil); connect.CodeOf(out.Err) != connect.CodeUnavailable {
			t.Errorf("the handler of another plugin, %q: %v %v, want unavailable", endpoint, out.Messages, out.Err)
		}
	}
	wantNone(t, seen)
	if out := echo.CallUnary(t.Context(), rig.toMemory(), nil, nil); out.Err != nil {
		t.Errorf("the plugin itself: %v", out.Err)
	}
}

// A plugin in the host's process whose services are withdrawn is drained: what is
// under way finishes, nothing new comes.
func TestRouter_MemoryProvidersAreDrained(t *testing.T) {
	t.Parallel()
	begun, release := make(chan context.Context), make(chan struct{})
	finished := errors.New("finished")
	rig := newMemoryRig(t, hanging(func(ctx context.Context) error {
		begun <- ctx
		select {
		case <-release:
			return connect.NewError(connect.CodeDataLoss, finished)
		case <-ctx.Done():
			return ctx.Err()
		}
	}).Handler(), nil)
	var calls []<-chan echo.Outcome
	for _, opts := range hosttest.Protocols {
		for kind := range echo.Kinds {
			ended, _ := hangsAt(t.Context(), t, rig.toMemory(), begun, kind, opts)
			calls = append(calls, ended)
		}
	}
	rig.Registry().UnregisterPluginServices(rig.providerID)
	for _, opts := range hosttest.Protocols {
		if out := echo.CallUnary(t.Context(), rig.toMemory(), opts, nil); connect.CodeOf(out.Err) != connect.CodeUnavailable {
			t.Errorf("a new call: %v, want unavailable", out.Err)
		}
	}
	close(release)
	for _, ended := range calls {
		if out := hosttest.Arrival(t, ended); connect.CodeOf(out.Err) != connect.CodeDataLoss {
			t.Errorf("a call under way: %v, want what the provider said", out.Err)
		}
	}
}

// memoryControl is what a plugin in the host's process answers when asked how it is.
type memoryControl struct {
	connectpluginv1connect.UnimplementedPluginControlHandler

	state atomic.Int32
	hangs chan struct{} // where set, the answer does not come before it is closed
	asked atomic.Int64
}

func (c *memoryControl) GetHealth(context.Context, *connect.Request[connectpluginv1.GetHealthRequest]) (*connect.Response[connectpluginv1.GetHealthResponse], error) {
	c.asked.Add(1)
	if c.hangs != nil {
		<-c.hangs
	}
	return connect.NewResponse(&connectpluginv1.GetHealthResponse{State: connectpluginv1.HealthState(c.state.Load()), Reason: "said so"}), nil
}

// newProbedRig is a memory rig whose provider is asked how it is.
func newProbedRig(t *testing.T, control *memoryControl, timeout time.Duration) *memoryRig {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(connectpluginv1connect.NewPluginControlHandler(control))
	mux.Handle("/", echo.Service{}.Handler())
	return newMemoryRig(t, mux, func(c *connectplugin.ServeConfig) {
		c.HealthProbe = connectplugin.HealthProbeConfig{Interval: 20 * time.Millisecond, Timeout: timeout, FailureThreshold: 3, Lease: time.Hour}
	})
}

// A plugin in the host's process is asked how it is as any other, and its answer
// counts; only the host asks.
func TestAudit_H56_MemoryProviderIsAskedForItsHealth(t *testing.T) {
	t.Parallel()
	control := &memoryControl{}
	control.state.Store(int32(connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY))
	rig := newProbedRig(t, control, hosttest.Wait)
	hosttest.Eventually(t, "it is unhealthy", func() bool { return !rig.Lifecycle().ShouldRouteTraffic(rig.providerID) })
	if out := echo.CallUnary(t.Context(), rig.toMemory(), nil, nil); connect.CodeOf(out.Err) != connect.CodeUnavailable {
		t.Errorf("an unhealthy provider: %v, want unavailable", out.Err)
	}
	control.state.Store(int32(connectpluginv1.HealthState_HEALTH_STATE_HEALTHY))
	hosttest.Eventually(t, "it is healthy", func() bool { return rig.Lifecycle().ShouldRouteTraffic(rig.providerID) })
	if out := echo.CallUnary(t.Context(), rig.toMemory(), nil, nil); out.Err != nil {
		t.Errorf("a healthy provider: %v", out.Err)
	}
}

// A plugin in the host's process that hangs when it is asked holds up neither the
// host's other work nor its end, and is asked once at a time.
func TestAudit_H60_HungMemoryProviderHoldsUpNobody(t *testing.T) {
	t.Parallel()
	control := &memoryControl{hangs: make(chan struct{})}
	t.Cleanup(func() { close(control.hangs) })
	rig := newProbedRig(t, control, 100*time.Millisecond)
	hosttest.Eventually(t, "it is unhealthy", func() bool { return !rig.Lifecycle().ShouldRouteTraffic(rig.providerID) })
	if n := control.asked.Load(); n != 1 {
		t.Errorf("%d questions hang", n)
	}
	begun := time.Now()
	rig.Stop(t)
	if d := time.Since(begun); d > hosttest.Wait/2 {
		t.Errorf("shutdown took %v", d)
	}
}

// Where a plugin provides its service at the root, its control services are not part
// of it: only the host calls them, in the host's process and elsewhere.
func TestAudit_H28_ControlServicesAreTheHostsOnly(t *testing.T) {
	t.Parallel()
	control := &memoryControl{}
	control.state.Store(int32(connectpluginv1.HealthState_HEALTH_STATE_HEALTHY))
	mux := http.NewServeMux()
	mux.Handle(connectpluginv1connect.NewPluginControlHandler(control))
	mux.Handle("/", echo.Service{}.Handler())
	rig := newMemoryRig(t, mux, nil)
	rig.registerAt(t, "/")
	remote := rig.Provide(t, "other", mux, func(c *connectplugin.PluginServerConfig) { c.Services[0].Path = "/" })
	for what, to := range map[string]echo.Endpoint{"in the host's process": rig.toMemory(), "elsewhere": rig.Route(remote.Client.RuntimeID())} {
		for protocol, opts := range hosttest.Protocols {
			client := connectpluginv1connect.NewPluginControlClient(to.Client, to.Base, opts...)
			_, asked := client.GetHealth(t.Context(), connect.NewRequest(&connectpluginv1.GetHealthRequest{}))
			_, stopped := client.Shutdown(t.Context(), connect.NewRequest(&connectpluginv1.ShutdownRequest{}))
			_, named := connectpluginv1connect.NewPluginIdentityClient(to.Client, to.Base, opts...).SetRuntimeIdentity(t.Context(),
				connect.NewRequest(&connectpluginv1.SetRuntimeIdentityRequest{RuntimeId: "x", RuntimeToken: "y", HostUrl: rig.URL}))
			for _, err := range []error{asked, stopped, named} {
				if connect.CodeOf(err) != connect.CodeNotFound {
					t.Errorf("%s, %s: %v, want not_found", what, protocol, err)
				}
			}
			for kind, call := range echo.Kinds {
				echo.Want(t, kind, call(t.Context(), to, opts, nil))
			}
		}
	}
	if n := control.asked.Load(); n != 0 {
		t.Errorf("the plugin was asked %d times", n)
	}
}

// registerAt registers the type echo at a path for the plugin in the host's process.
func (r *memoryRig) registerAt(t *testing.T, path string) {
	t.Helper()
	req := connect.NewRequest(&connectpluginv1.RegisterServiceRequest{ServiceType: echo.Type, Version: "1.0.0", EndpointPath: path})
	req.Header().Set("X-Plugin-Runtime-ID", r.providerID)
	if _, err := r.Registry().RegisterService(t.Context(), req); err != nil {
		t.Fatal(err)
	}
}

// A plugin in the host's process takes over idempotent calls to one that cannot be
// reached.
func TestRouter_MemoryProviderIsASubstitute(t *testing.T) {
	t.Parallel()
	seen := &echo.Recorder{Next: echo.Service{}.Handler()}
	rig := newMemoryRig(t, seen, func(c *connectplugin.ServeConfig) { c.Policy.Idempotent = []string{echo.Look} })
	dead := echo.EnrolProvider(t, rig.Host, "other")
	if err := echo.Register(t, dead, map[string]string{"base_url": "https://" + hosttest.FreeAddr(t)}); err != nil {
		t.Fatal(err)
	}
	to := rig.Route(dead.RuntimeID())
	for protocol, opts := range hosttest.Protocols {
		if err := lookAt(t.Context(), to, false, opts...); err != nil {
			t.Errorf("%s, idempotent: %v", protocol, err)
		}
		if out := echo.CallUnary(t.Context(), to, opts, nil); connect.CodeOf(out.Err) != connect.CodeUnavailable {
			t.Errorf("%s, not idempotent: %v, want unavailable", protocol, out.Err)
		}
	}
	for _, r := range seen.Take() {
		if !strings.HasSuffix(r.URL.Path, echo.Look) {
			t.Errorf("%s was sent to another provider", r.URL.Path)
		}
	}
}
