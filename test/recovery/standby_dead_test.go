package recovery_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// seldom are rounds of questions that no test waits for: what is asked sooner is asked for a reason.
var seldom = connectplugin.HealthProbeConfig{Interval: 5 * time.Minute}

// member is one of several that provide a type, and can lose its connection and its endpoint each by itself.
type member struct {
	*life

	selfID string
	asked  atomic.Int64 // how often the host did
	fails  atomic.Int64 // how many of the next questions it does not answer
	close  func()       // its endpoint
	reopen func()
}

// GetHealth answers, unless the member is to seem frozen.
func (m *member) answer(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if m.asked.Add(1); m.fails.Add(-1) >= 0 {
		panic(http.ErrAbortHandler)
	}
	next.ServeHTTP(w, r)
}

// join starts a member and registers it.
func join(t *testing.T, host *hosttest.Restartable, selfID string, standby bool) *member {
	t.Helper()
	return joinAs(t, host, selfID, standby, func(*connectplugin.ClientConfig) {})
}

// joinAs starts one that proves itself in another way.
func joinAs(t *testing.T, host *hosttest.Restartable, selfID string, standby bool, prove func(*connectplugin.ClientConfig)) *member {
	t.Helper()
	m := &member{selfID: selfID}
	c := host.Enrol(t, selfID, func(c *connectplugin.ClientConfig) { hosttest.Providing(echoType)(c); prove(c) })
	tls, err := host.Authority.PluginTLS(selfID)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/echo.v1.Echo/", echoHandler())
	path, questions := connectpluginv1connect.NewPluginControlHandler(control{id: c.RuntimeID})
	mux.Handle(path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.answer(w, r, questions) }))
	l := hosttest.Listen(t)
	at := l.Addr().String()
	m.close = hosttest.ServeOn(t, l, tls, mux)
	m.reopen = func() {
		hosttest.Eventually(t, "its address is free", func() bool {
			l, err := net.Listen("tcp", at)
			if err == nil {
				m.close = hosttest.ServeOn(t, l, tls, mux)
			}
			return err == nil
		})
	}
	m.life = &life{client: c, at: "https://" + at, crash: func() { m.close(); _ = c.Close() }}
	metadata := map[string]string{"base_url": m.at}
	if standby {
		metadata["standby"] = "true"
	}
	err = hosttest.RegisterWith(t, c, &connectpluginv1.RegisterServiceRequest{
		ServiceType: echoType, Version: "1.0.0", EndpointPath: "/", Metadata: metadata,
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *member) provides(host *hosttest.Restartable) bool {
	return host.Registered(echoType, m.client.RuntimeID())
}

// reason is what the host says of it.
func (m *member) reason(host *hosttest.Restartable) string {
	for _, p := range host.Plugins() {
		if p.RuntimeID == m.client.RuntimeID() {
			return p.Reason
		}
	}
	return "it is gone"
}

// wantAskedInVain waits until the host asked a plugin in vain for longer than one may be silent who lives.
func wantAskedInVain(t *testing.T, host *hosttest.Restartable, runtimeID string) {
	t.Helper()
	began := time.Now()
	hosttest.Eventually(t, "the host asked it in vain for long", func() bool {
		return status(t, host, runtimeID).LastErrorAt.Sub(began) > 3*time.Second
	})
}

func pairHost(t *testing.T, probe connectplugin.HealthProbeConfig) *hosttest.Restartable {
	t.Helper()
	return start(t, func(c *connectplugin.ServeConfig) { c.Policy, c.HealthProbe = pair(echoType), probe })
}

// takeovers are why plugins that stood by took over.
func takeovers(host *hosttest.Restartable, selfID string) (reasons []string) {
	for _, e := range host.Audit.Events() {
		if e.Kind == connectplugin.AuditRegistered && e.SelfID == selfID && strings.Contains(e.Reason, "takes over") {
			reasons = append(reasons, e.Reason)
		}
	}
	return reasons
}

// A plugin that stands by takes over from one that was killed, as soon as the host finds that its
// endpoint is dead, also where the dead one would have stood by itself, or died while nobody waited.
func TestAudit_USE39_AStandbyTakesOverFromTheDead(t *testing.T) {
	t.Parallel()
	for name, standby := range map[string]bool{"both stand by": true, "the dead one did not": false} {
		for when, diesFirst := range map[string]bool{"it waits already": false, "it comes later": true} {
			t.Run(name+", "+when, func(t *testing.T) {
				t.Parallel()
				host := pairHost(t, seldom)
				blue := join(t, host, "blue", standby)
				conn := service(t, caller(t, host))
				if diesFirst {
					blue.crash()
				}
				green := join(t, host, "green", true)
				if !diesFirst {
					if green.provides(host) {
						t.Fatal("it does not wait")
					}
					blue.crash()
				}
				hosttest.Eventually(t, "the second provides", func() bool { return green.provides(host) && !blue.provides(host) })
				hosttest.Eventually(t, "calls reach it", func() bool { return once(t.Context(), conn) == nil })
				why := takeovers(host, "green")
				if len(why) != 1 || !strings.Contains(why[0], `from "blue", which is dead`) {
					t.Errorf("the audit says %q", why)
				}
			})
		}
	}
}

// A new life of a plugin that may stand by waits behind no dead life of its own, whether that
// provided or stood by, and whether or not the host asks how plugins are.
func TestAudit_USE43_NobodyStandsByForItsOwnDead(t *testing.T) {
	t.Parallel()
	for name, probe := range map[string]connectplugin.HealthProbeConfig{"asked": seldom, "not asked": {Disabled: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := pairHost(t, probe)
			gone := func(m *member) func() bool { // the host noticed that its connection closed
				open, _ := host.Connections()
				m.crash()
				return func() bool { now, _ := host.Connections(); return now < open }
			}
			for range 3 {
				m := join(t, host, "blue", true)
				if !m.provides(host) {
					t.Fatal("it waits behind its dead predecessor")
				}
				hosttest.Eventually(t, "its connection closed", gone(m))
			}
			blue := join(t, host, "blue", true)
			dead := join(t, host, "green", true)
			hosttest.Eventually(t, "the one that waits is dead", gone(dead))
			green := join(t, host, "green", true)
			if dead.reason(host) != "it is gone" {
				t.Error("a dead life goes on waiting")
			}
			host.Revoke(blue.client.RuntimeID())
			if !green.provides(host) {
				t.Error("the one that lives does not take over at once")
			}
		})
	}
}

// Who has the self id of a plugin and proves it otherwise is no other life of it: it ends nobody when
// it registers to stand by, not even one of which the host sees no life.
func TestAudit_USE43_AnotherProofEndsNobody(t *testing.T) {
	t.Parallel()
	another := connectplugin.Secret(bytes.Repeat([]byte("another"), 8))
	for name, c := range map[string]struct {
		first, then connectplugin.Secret // nil for the certificate
		bare, takes bool                 // bare is without a certificate, too
	}{
		"the same secret":               {hosttest.Secret, hosttest.Secret, false, true},
		"the same certificate":          {nil, nil, false, true},
		"another secret":                {hosttest.Secret, another, false, false},
		"a secret, after a certificate": {nil, hosttest.Secret, false, false},
		"a certificate, after a secret": {hosttest.Secret, nil, false, false},
		"nothing, as before":            {nil, nil, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var demanded atomic.Pointer[connectplugin.Secret]
			host := start(t, func(cfg *connectplugin.ServeConfig) {
				cfg.Policy, cfg.HealthProbe = pair(echoType), connectplugin.HealthProbeConfig{Disabled: true}
				blue := cfg.Policy.Plugins["blue"]
				blue.Secret, blue.AllowUnproven = nil, c.bare
				cfg.Policy.Plugins["blue"] = blue
				cfg.HandshakeAuth.Secret = func(string) connectplugin.Secret { return *demanded.Load() }
			})
			lives := func(secret connectplugin.Secret) *member {
				demanded.Store(&secret)
				return joinAs(t, host, "blue", true, func(cfg *connectplugin.ClientConfig) {
					tls, err := host.Authority.PluginTLS("blue")
					if cfg.Secret = secret; err == nil && !c.bare {
						cfg.TLS = tls
					}
				})
			}
			first := lives(c.first)
			open, _ := host.Connections()
			first.crash()
			hosttest.Eventually(t, "it is not connected", func() bool { now, _ := host.Connections(); return now < open })
			next := lives(c.then)
			if first.provides(host) == c.takes || next.provides(host) != c.takes {
				t.Errorf("the first provides: %v, the next: %v", first.provides(host), next.provides(host))
			}
			if ended := first.reason(host) == "it is gone"; ended != c.takes {
				t.Errorf("the first ended: %v", ended)
			}
		})
	}
}

// One that died while it stood by, and takes over, gives way to the next that waits.
func TestAudit_USE43_ADeadStandbyGivesWay(t *testing.T) {
	t.Parallel()
	host := pairHost(t, seldom)
	blue := join(t, host, "blue", true)
	green := join(t, host, "green", true)
	p := pair(echoType)
	p.Plugins["red"] = p.Plugins["green"]
	hosttest.SetPolicy(t, host.Host, p)
	red := join(t, host, "red", true)
	green.crash()
	blue.crash()
	hosttest.Eventually(t, "the one that lives provides", func() bool { return red.provides(host) })
}

// Who lives keeps its type, whatever the one that stands by does: while it is connected, or while it
// answers, and where it does not answer a question or two. To be ill is not to be dead.
func TestAudit_USE39_NobodyTakesATypeFromTheLiving(t *testing.T) {
	t.Parallel()
	quick := connectplugin.HealthProbeConfig{Interval: 50 * time.Millisecond, Lease: time.Hour}
	unhealthy := func(t *testing.T, host *hosttest.Restartable, m *member) {
		t.Helper()
		wantAskedInVain(t, host, m.client.RuntimeID())
	}
	askedMore := func(t *testing.T, _ *hosttest.Restartable, m *member) {
		t.Helper()
		before := m.asked.Load()
		hosttest.Eventually(t, "it is asked again and again", func() bool { return m.asked.Load() > before+8 })
	}
	for name, c := range map[string]struct {
		trouble func(*testing.T, *member)
		settled func(*testing.T, *hosttest.Restartable, *member)
	}{
		"it is connected, and its endpoint is away": {func(_ *testing.T, m *member) { m.close() }, unhealthy},
		"it is connected, and frozen":               {func(_ *testing.T, m *member) { m.fails.Store(1 << 40) }, unhealthy},
		"it says that it is ill, and is not connected": {func(t *testing.T, m *member) {
			t.Helper()
			err := m.client.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY, "ill", nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = m.client.Close()
		}, askedMore},
		"it lost its connection":                 {func(_ *testing.T, m *member) { _ = m.client.Close() }, askedMore},
		"it lost its connection, and was frozen": {func(_ *testing.T, m *member) { m.fails.Store(2); _ = m.client.Close() }, askedMore},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := pairHost(t, quick)
			blue := join(t, host, "blue", false)
			green := join(t, host, "green", true)
			askedMore(t, host, blue)
			c.trouble(t, blue)
			for range 5 { // what the other can do: come to its endpoint, and register again
				if conn, err := net.Dial("tcp", strings.TrimPrefix(blue.at, "https://")); err == nil {
					_ = conn.Close()
				}
				err := hosttest.RegisterWith(t, green.client, &connectpluginv1.RegisterServiceRequest{
					ServiceType: echoType, Version: "1.0.0", EndpointPath: "/", Metadata: map[string]string{"base_url": green.at, "standby": "true"},
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			c.settled(t, host, blue)
			if !blue.provides(host) || green.provides(host) || len(takeovers(host, "green")) != 0 {
				t.Error("the type was taken from one that lives")
			}
		})
	}
}

// One of two instances that died takes nothing from the other, which has no connection and answers.
func TestAudit_USE39_ATwinThatDiedTakesNobodyAlong(t *testing.T) {
	t.Parallel()
	host := pairHost(t, connectplugin.HealthProbeConfig{Interval: 3 * time.Second, Lease: time.Hour})
	dead := join(t, host, "blue", false)
	twin := join(t, host, "blue", false)
	green := join(t, host, "green", true)
	_ = twin.client.Close()
	dead.crash()
	hosttest.Eventually(t, "the host finds one dead", func() bool { return dead.reason(host) == "does not answer the host" })
	before := twin.asked.Load()
	hosttest.Eventually(t, "the other is asked now and then", func() bool { return twin.asked.Load() > before+2 || green.provides(host) })
	if !twin.provides(host) || green.provides(host) || len(takeovers(host, "green")) != 0 {
		t.Error("the type was taken from one that lives")
	}
}

// One that was thought dead and comes back takes nothing back from the one that provides: it waits
// for that to leave, and says so.
func TestAudit_USE39_WhoWasThoughtDeadComesBack(t *testing.T) {
	t.Parallel()
	for want, standby := range map[string]bool{"stands by: echo": true, "not provided, since it may not or another plugin does: echo": false} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			host := pairHost(t, connectplugin.HealthProbeConfig{Interval: 50 * time.Millisecond, Lease: time.Hour})
			blue := join(t, host, "blue", standby)
			hosttest.Eventually(t, "it is asked", func() bool { return blue.asked.Load() > 0 })
			green := join(t, host, "green", true)
			blue.crash()
			hosttest.Eventually(t, "the second provides", func() bool { return green.provides(host) })
			if got := blue.reason(host); got != "does not answer the host" {
				t.Errorf("of the dead the host says %q", got)
			}
			blue.reopen()
			hosttest.Eventually(t, "the first is well", func() bool { return blue.reason(host) == want })
			if blue.provides(host) || !green.provides(host) {
				t.Error("it took its type back")
			}
			host.Revoke(green.client.RuntimeID())
			hosttest.Eventually(t, "the first provides again", func() bool { return blue.provides(host) })
		})
	}
}

// The dead do not come back because there is room for them.
func TestAudit_USE39_TheDeadStayAside(t *testing.T) {
	t.Parallel()
	host := pairHost(t, seldom)
	blue := join(t, host, "blue", true)
	green := join(t, host, "green", true)
	blue.crash()
	hosttest.Eventually(t, "the second provides", func() bool { return green.provides(host) })
	host.Revoke(green.client.RuntimeID())
	if blue.provides(host) {
		t.Error("the dead provides")
	}
}

// A plugin says that it stands by and that it takes over, and so does the host.
func TestAudit_USE39_AStandbyIsSeen(t *testing.T) {
	t.Parallel()
	host := pairHost(t, seldom)
	blue := join(t, host, "blue", false)
	var log hosttest.Buffer
	tls, err := host.Authority.PluginTLS("green")
	if err != nil {
		t.Fatal(err)
	}
	cfg := &connectplugin.PluginServerConfig{
		Client: host.ClientConfig(t, "green"), HealthInterval: 20 * time.Millisecond, Standby: true,
		Services: []connectplugin.PluginService{{Type: echoType, Version: "1.0.0", Path: "/echo.v1.Echo/", Handler: echoHandler()}},
	}
	cfg.Client.TLS, cfg.Client.Logger = tls, slog.New(slog.NewTextHandler(&log, nil))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- connectplugin.ServePlugin(ctx, cfg) }()
	t.Cleanup(func() {
		cancel()
		if err := hosttest.Arrival(t, ended); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	says := func(what string) func() bool {
		return func() bool { return strings.Contains(log.String(), what) }
	}
	hosttest.Eventually(t, "its log says that it waits", says(`msg="the plugin stands by: another provides the service" service=echo`))
	hosttest.Eventually(t, "the host says so", func() bool {
		return slices.ContainsFunc(host.Plugins(), func(p connectplugin.PluginStatus) bool {
			return p.SelfID == "green" && p.Reason == "stands by: echo"
		})
	})
	if says("service registered")() || says("takes over")() {
		t.Errorf("it does not provide:\n%s", log.String())
	}
	if !slices.ContainsFunc(host.Audit.Events(), func(e connectplugin.AuditEvent) bool {
		return e.Kind == connectplugin.AuditRegistered && e.SelfID == "green" && e.Reason == "it stands by: another provides the type"
	}) {
		t.Error("the audit does not say that it stands by")
	}
	blue.crash()
	hosttest.Eventually(t, "its log says that it takes over", says(`msg="the plugin stands by no more and takes over" service=echo`))
}
