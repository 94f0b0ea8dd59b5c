package recovery_test

import (
	"errors"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A host that does not reach a plugin says where it dialled and how that went.
func TestAudit_USE24_AnUnreachedEndpointIsNamed(t *testing.T) {
	t.Parallel()
	var log journal
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.Logger = policy(), log.logger()
		c.Policy.Plugins["provider"] = hosttest.Allow(func(p *connectplugin.PluginPolicy) {
			p.Provides, p.Endpoint, p.AllowOwnAddress = []string{echoType}, "https://127.0.0.1:1", false
		})
		c.HealthProbe = connectplugin.HealthProbeConfig{Interval: 20 * time.Millisecond, FailureThreshold: 1, Lease: time.Hour}
	})
	c := host.Enrol(t, "provider", hosttest.Providing(echoType))
	request := &connectpluginv1.RegisterServiceRequest{ServiceType: echoType, Version: "1.0.0"}
	if err := hosttest.RegisterWith(t, c, request); err != nil {
		t.Fatal(err)
	}
	const said = `status=unhealthy reason="does not answer the host" error="ask for health: `
	hosttest.Eventually(t, "the log says so", func() bool { return log.warnings(said) == 1 })
	if !log.has("self_id=provider ") || !log.has("endpoint=https://127.0.0.1:1") || !log.has("connection refused") {
		t.Errorf("the log has %s", log.buf.String())
	}
	hosttest.Eventually(t, "so do the host's plugins", func() bool { // after the log
		p := host.Plugins()
		return len(p) == 1 && strings.Contains(p[0].LastError, "connection refused") && p[0].Reason == "does not answer the host"
	})
}

// A plugin that says that it is ill and not why is told of as such.
func TestAudit_USE24_AnIllnessWithoutAReason(t *testing.T) {
	t.Parallel()
	var log journal
	host := start(t, func(c *connectplugin.ServeConfig) {
		c.Logger = log.logger()
		c.HealthProbe = connectplugin.HealthProbeConfig{Interval: 20 * time.Millisecond, Lease: time.Hour}
	})
	host.StartPlugin(t, "provider", func(c *connectplugin.PluginServerConfig) {
		c.Services, c.HealthInterval = echoServices(), never
		c.Health = func() (connectpluginv1.HealthState, string) {
			return connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY, ""
		}
	})
	hosttest.Eventually(t, "the log says so", func() bool { return log.warnings("reported by the plugin, without a reason") > 0 })
}

// A plugin whose Health panics, or ends its goroutine, is unhealthy as long as it does, and its log has the stack: it served on
// or ended with a panic of ServePlugin.
func TestAHealthThatPanics(t *testing.T) {
	t.Parallel()
	for name, fails := range map[string]func(){"panics": func() { panic("what went wrong") }, "ends its goroutine": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log journal
			var broken atomic.Bool
			host := start(t, nil)
			host.StartPlugin(t, "provider", func(c *connectplugin.PluginServerConfig) {
				c.Services, c.HealthInterval, c.Client.Logger = echoServices(), 20*time.Millisecond, log.logger()
				c.Health = func() (connectpluginv1.HealthState, string) {
					if broken.Load() {
						fails()
					}
					return healthy, ""
				}
			})
			reason := func() string {
				for _, p := range host.Plugins() {
					return p.Health.String() + " " + p.Reason
				}
				return ""
			}
			hosttest.Eventually(t, "it is healthy", func() bool { return reason() == "HEALTH_STATE_HEALTHY " })
			broken.Store(true)
			hosttest.Eventually(t, "it is not", func() bool { return reason() == "HEALTH_STATE_UNHEALTHY PluginServerConfig.Health panics" })
			if !log.has("level=ERROR msg=\"PluginServerConfig.Health panics\"") || name == "panics" && !log.has("what went wrong (at told_test.go:") {
				t.Errorf("the log has %s", log.buf.String())
			}
			broken.Store(false)
			hosttest.Eventually(t, "it is healthy again", func() bool { return reason() == "HEALTH_STATE_HEALTHY " })
		})
	}
}

// A handler's panic is in the plugin's log with its stack, once for many.
func TestAudit_USE24_APanicIsInTheLog(t *testing.T) {
	t.Parallel()
	host := start(t, nil)
	var log journal
	host.StartPlugin(t, "provider", func(c *connectplugin.PluginServerConfig) {
		c.Client.Logger, c.HealthInterval = log.logger(), never
		c.Services = []connectplugin.PluginService{{Type: echoType, Version: "1.0.0", Path: "/echo.v1.Echo/", Handler: http.HandlerFunc(breaks)}}
	})
	c := caller(t, host)
	hosttest.Eventually(t, "the log has it", func() bool {
		if err := once(t.Context(), service(t, c)); err == nil {
			t.Error("a call was answered whose handler panics")
		}
		return log.has(`level=ERROR msg="a handler panicked" error="what went wrong"`) && log.has("recovery_test.breaks")
	})
	_ = once(t.Context(), service(t, c))
	if n := strings.Count(log.buf.String(), "a handler panicked"); n != 1 {
		t.Errorf("it is there %d times: %s", n, log.buf.String())
	}
}

func breaks(http.ResponseWriter, *http.Request) { panic("what went wrong") }

// Whoever may not register is told of a registration, and not of a handshake; the audit says which right it lacks.
// Who declares what policy lacks is told so in words of its own side.
func TestAudit_USE39_AMissingRightIsNamed(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(&connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
		"provider": hosttest.Allow(nil), "api": hosttest.Allow(nil),
		"modest": hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Requires = []string{echoType} }),
	}}))
	tlsConfig, err := host.Authority.PluginTLS("provider")
	if err != nil {
		t.Fatal(err)
	}
	cfg := &connectplugin.PluginServerConfig{Client: host.ClientConfig(t, "provider"), Services: echoServices()}
	cfg.Client.TLS = tlsConfig
	err = connectplugin.ServePlugin(t.Context(), cfg)
	if !errors.Is(err, connectplugin.ErrHandshakeRefused) || !strings.HasPrefix(err.Error(), `registration refused: service "echo"`) {
		t.Errorf("registration: %v", err)
	}
	_, err = host.Enrol(t, "api", hosttest.Requiring(echoType)).Service(t.Context(), echoType, "")
	if err == nil || !strings.Contains(err.Error(), `not available ("echo" is declared; the host's policy may lack it`) {
		t.Errorf("service: %v", err)
	}
	if _, err := host.Enrol(t, "modest", nil).Service(t.Context(), echoType, ""); err == nil {
		t.Error("what was not declared is there")
	}
	for selfID, want := range map[string]string{
		"provider": `not allowed by policy: add "echo" to Policy.Plugins["provider"].Provides`,
		"api":      `not allowed by policy: add "echo" to Policy.Plugins["api"].Requires`,
		"modest":   `not declared by the plugin: it has to name "echo" in Requires of its Metadata`,
	} {
		found := false
		for _, e := range host.Audit.Events() {
			found = found || e.Kind == connectplugin.AuditDenied && e.SelfID == selfID && e.Reason == want
		}
		if !found {
			t.Errorf("the audit of %s misses %q: %v", selfID, want, host.Audit.Events())
		}
	}
}

// Where an Authority proves names, a plugin without its certificate is told of that.
func TestAudit_USE24_AMissingCertificateIsNamed(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.PolicyOf("api", func(*connectplugin.PluginPolicy) {})))
	cfg := host.ClientConfig(t, "api")
	cfg.Secret, cfg.TLS = nil, host.StrangerTLS()
	if _, err := hosttest.EnrolOnce(t.Context(), cfg); !errors.Is(err, connectplugin.ErrHandshakeRefused) {
		t.Errorf("%v", err)
	}
	if e := host.Audit.Events(); len(e) == 0 || !strings.Contains(e[len(e)-1].Reason, "no certificate of the Authority: set ClientConfig.TLS") {
		t.Errorf("the audit has %v", e)
	}
}

// Two living instances of one plugin are told of when the second registers.
func TestAudit_USE24_AFurtherInstanceIsToldOf(t *testing.T) {
	t.Parallel()
	var log journal
	host := start(t, func(c *connectplugin.ServeConfig) { c.Logger = log.logger() })
	provide(t, host)
	if log.has("a further instance") {
		t.Error("the first is called a further one")
	}
	provide(t, host)
	if !log.has("a further instance") || !log.has("MaxInstances: 1 forbids that") {
		t.Errorf("the log has %s", log.buf.String())
	}
}

// A handshake that is larger than its host takes never passes: the plugin ends, and says what to change.
func TestAudit_USE39_AHandshakeThatIsTooLargeIsToldSo(t *testing.T) {
	t.Parallel()
	host := start(t, func(c *connectplugin.ServeConfig) { c.Limits.MaxHandshakeBytes = 2 << 10 })
	cfg := host.ClientConfig(t, "api")
	for n := range 100 {
		cfg.Metadata.Requires = append(cfg.Metadata.Requires, connectplugin.ServiceDependency{Type: "a-type-with-a-long-name-" + strconv.Itoa(n)})
	}
	_, err := hosttest.EnrolOnce(t.Context(), cfg)
	if !errors.Is(err, connectplugin.ErrHandshakeRefused) || !strings.Contains(err.Error(), "raise Limits.MaxHandshakeBytes at the host") {
		t.Errorf("%v", err)
	}
}

// Who asks the registry by hand is told in the log what the client can see by itself.
func TestAudit_USE39_TheRegistryByHand(t *testing.T) {
	t.Parallel()
	var log journal
	host := start(t, nil)
	provide(t, host)
	api := host.Enrol(t, "api", func(c *connectplugin.ClientConfig) {
		hosttest.Requiring(echoType)(c)
		c.Logger = log.logger()
	}).RegistryClient()
	hosttest.Eventually(t, "somebody provides it", func() bool {
		_, err := api.DiscoverService(t.Context(), connect.NewRequest(&connectpluginv1.DiscoverServiceRequest{ServiceType: echoType}))
		return err == nil
	})
	for want, request := range map[string]*connectpluginv1.DiscoverServiceRequest{
		`Requires does not name \"other\"`:         {ServiceType: "other"},
		`have no version that satisfies \">=900\"`: {ServiceType: echoType, MinVersion: ">=900"},
	} {
		_, err := api.DiscoverService(t.Context(), connect.NewRequest(request))
		if connect.CodeOf(err) != connect.CodeNotFound || !log.has(want) {
			t.Errorf("discover: %v, want %s", err, want)
		}
	}
	_, err := api.RegisterService(t.Context(), connect.NewRequest(&connectpluginv1.RegisterServiceRequest{ServiceType: "other", Version: "1.0.0"}))
	if connect.CodeOf(err) != connect.CodePermissionDenied || !log.has(`Provides does not name \"other\"`) {
		t.Errorf("register: %v", err)
	}
}
