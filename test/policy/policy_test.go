package policy_test

import (
	"errors"
	"net"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

func TestSetPolicy_RefusesWhatIsWrongAndChangesNothing(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	c := host.Enrol(t, "logger", hosttest.Providing("logger"))
	if _, err := hosttest.Register(t, c, "logger", "1.0.0"); err != nil {
		t.Fatal(err)
	}
	err := host.SetPolicy(&connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"x": {Provides: []string{"no spaces"}}}})
	if !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), `Policy.Plugins["x"].Provides[0]`) {
		t.Errorf("error %v", err)
	}
	if !host.Registered("logger", c.RuntimeID()) || host.Audit.Has(connectplugin.AuditPolicyChanged) {
		t.Error("a refused policy changed something")
	}
}

// The policy that a host was given is copied.
func TestSetPolicy_CopiesThePolicy(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, nil)
	p := hosttest.LoggerPolicy()
	hosttest.SetPolicy(t, host, p)
	delete(p.Plugins, "logger")
	if _, err := hosttest.Register(t, host.Enrol(t, "logger", hosttest.Providing("logger")), "logger", "1.0.0"); err != nil {
		t.Errorf("after the caller changed its own copy: %v", err)
	}
}

// Registrations that policy no longer allows are gone when SetPolicy returns;
// others of the same plugin stay, and those who watch are told.
func TestAudit_REG1_PolicyWithdrawsRegistrations(t *testing.T) {
	t.Parallel()
	policy := func(provides ...string) *connectplugin.Policy {
		return hosttest.Rights(map[string][2][]string{"p": {provides, nil}, "c": {nil, {"a", "b"}}})
	}
	host := hosttest.Start(t, hosttest.WithPolicy(policy("a", "b")))
	p, c := host.Enrol(t, "p", hosttest.Declaring([]string{"a", "b"}, nil)), host.Enrol(t, "c", hosttest.Declaring(nil, []string{"a", "b"}))
	for _, serviceType := range []string{"a", "b"} {
		if _, err := hosttest.Register(t, p, serviceType, "1.0.0"); err != nil {
			t.Fatal(err)
		}
	}
	onA := hosttest.Watch(t, c, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "a"})
	onB := hosttest.Watch(t, c, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "b"})
	onA.Until(t, hosttest.IsState(hosttest.Available))
	onB.Until(t, hosttest.IsState(hosttest.Available))
	hosttest.SetPolicy(t, host, policy("b"))
	if host.Registered("a", p.RuntimeID()) || !host.Registered("b", p.RuntimeID()) {
		t.Error("the wrong registrations are left")
	}
	onA.Until(t, hosttest.IsState(hosttest.Unavailable))
	if code := onB.Code(hosttest.Moment); code != 0 || len(onB.Events) != 0 {
		t.Errorf("the other type: code %v, %d events", code, len(onB.Events))
	}
	if _, err := hosttest.Register(t, p, "a", "1.0.0"); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("registering again: %v", err)
	}
	hosttest.SetPolicy(t, host, policy("a", "b"))
	if _, err := hosttest.Register(t, p, "a", "1.0.0"); err != nil {
		t.Errorf("registering when it is allowed again: %v", err)
	}
	onA.Until(t, hosttest.IsState(hosttest.Available))
}

// A type that policy no longer opens to several plugins stays with the first.
func TestAudit_REG2_PolicyClosesATypeToSeveralProviders(t *testing.T) {
	t.Parallel()
	policy := func(multiple ...string) *connectplugin.Policy {
		p := hosttest.Rights(map[string][2][]string{"first": {{"a", "b"}, nil}, "second": {{"a", "b"}, nil}})
		p.AllowMultiple = multiple
		return p
	}
	host := hosttest.Start(t, hosttest.WithPolicy(policy("a", "b")))
	first, second := host.Enrol(t, "first", hosttest.Providing("a", "b")), host.Enrol(t, "second", hosttest.Providing("a", "b"))
	for _, serviceType := range []string{"a", "b"} {
		for _, c := range []*connectplugin.Client{first, second} {
			if _, err := hosttest.Register(t, c, serviceType, "1.0.0"); err != nil {
				t.Fatal(err)
			}
		}
	}
	hosttest.SetPolicy(t, host, policy("b"))
	for serviceType, want := range map[string][2]bool{"a": {true, false}, "b": {true, true}} {
		if got := [2]bool{host.Registered(serviceType, first.RuntimeID()), host.Registered(serviceType, second.RuntimeID())}; got != want {
			t.Errorf("type %s: registered %v, want %v", serviceType, got, want)
		}
	}
	if _, err := hosttest.Register(t, second, "a", "1.0.0"); connect.CodeOf(err) != connect.CodeAlreadyExists {
		t.Errorf("the second registers again: %v", err)
	}
}

// An endpoint that policy no longer approves is not dialled any more, and calls
// that go there end.
func TestAudit_PROTO52_PolicyWithdrawsEndpoints(t *testing.T) {
	t.Parallel()
	policy := func(edit func(*connectplugin.PluginPolicy)) *connectplugin.Policy {
		p := hosttest.Rights(map[string][2][]string{"p": {{"a"}, nil}, "c": {nil, {"a"}}})
		rules := p.Plugins["p"]
		edit(&rules)
		p.Plugins["p"] = rules
		return p
	}
	own := func(p *connectplugin.PluginPolicy) { p.AllowOwnAddress = true }
	none := func(p *connectplugin.PluginPolicy) { p.AllowOwnAddress = false }
	for name, c := range map[string]struct {
		first, then func(*connectplugin.PluginPolicy)
		hostSets    bool
		lives       bool
	}{
		"own address, still allowed":    {own, own, false, true},
		"own address, not any more":     {own, none, false, false},
		"set by the host":               {none, none, true, true},
		"set by the host, own withheld": {own, none, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var router *connectplugin.ServiceRouter
			host := hosttest.Start(t, func(cfg *connectplugin.ServeConfig) {
				cfg.Policy = policy(c.first)
				router = connectplugin.NewServiceRouter(connectplugin.NewHandshakeServer(cfg), nil, nil)
				cfg.ServiceRouter = router
			})
			s := &hosttest.Streamer{}
			l := hosttest.Listen(t)
			p := host.StartPlugin(t, "p", func(cfg *connectplugin.PluginServerConfig) {
				cfg.Services = []connectplugin.PluginService{s.Service("a")}
				cfg.Listener = l
				if c.hostSets {
					cfg.Listener = unspecified{l} // names no address
				}
			})
			if c.hostSets {
				router.RegisterPluginEndpoint(p.Client.RuntimeID(), "https://"+l.Addr().String())
			}
			caller := host.Enrol(t, "c", hosttest.Declaring(nil, []string{"a"}))
			stream := hosttest.Streaming(t, caller, host, "a", p.Client.RuntimeID())
			hosttest.SetPolicy(t, host, policy(c.then))
			if c.lives {
				if code := stream.Code(hosttest.Moment); code != 0 {
					t.Errorf("the stream ended: %v", code)
				}
				hosttest.Streaming(t, caller, host, "a", p.Client.RuntimeID())
				return
			}
			if code := stream.Code(hosttest.Wait); code != connect.CodeUnavailable {
				t.Errorf("the stream ended with %v, want unavailable", code)
			}
			base := host.URL + "/services/a/" + p.Client.RuntimeID() + "/a"
			_, err := connectpluginv1connect.NewHealthServiceClient(caller.HTTPClient(), base).Check(t.Context(), connect.NewRequest(&connectpluginv1.HealthCheckRequest{}))
			if connect.CodeOf(err) != connect.CodeUnavailable {
				t.Errorf("a new call: %v, want unavailable", err)
			}
		})
	}
}

// An endpoint that policy moves is followed.
func TestSetPolicy_MovesAnEndpoint(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.Rights(map[string][2][]string{"p": {{"a"}, nil}, "c": {nil, {"a"}}})))
	s := &hosttest.Streamer{}
	l := hosttest.Listen(t)
	p := host.StartPlugin(t, "p", func(cfg *connectplugin.PluginServerConfig) {
		cfg.Services, cfg.Listener = []connectplugin.PluginService{s.Service("a")}, l
	})
	caller := host.Enrol(t, "c", hosttest.Declaring(nil, []string{"a"}))
	stream := hosttest.Streaming(t, caller, host, "a", p.Client.RuntimeID())
	moved := hosttest.Rights(map[string][2][]string{"p": {{"a"}, nil}, "c": {nil, {"a"}}})
	rules := moved.Plugins["p"]
	rules.Endpoint = "https://localhost:" + strings.TrimPrefix(l.Addr().String(), "127.0.0.1:")
	moved.Plugins["p"] = rules
	hosttest.SetPolicy(t, host, moved)
	if code := stream.Code(hosttest.Wait); code != connect.CodeUnavailable {
		t.Errorf("the stream to the former endpoint ended with %v, want unavailable", code)
	}
	hosttest.Streaming(t, caller, host, "a", p.Client.RuntimeID())
}

// unspecified is a listener that names no address of its own.
type unspecified struct{ net.Listener }

func (l unspecified) Addr() net.Addr {
	_, port, _ := net.SplitHostPort(l.Listener.Addr().String())
	addr, _ := net.ResolveTCPAddr("tcp", "0.0.0.0:"+port)
	return addr
}
