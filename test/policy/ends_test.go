package policy_test

import (
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// Who is not in the policy any more, or proved what it does not accept any more,
// has ended when SetPolicy returns; who is and did goes on.
func TestAudit_REG1_PolicyEndsIdentities(t *testing.T) {
	t.Parallel()
	other := connectplugin.Secret("fedcba9876543210fedcba9876543210")
	for name, c := range map[string]struct {
		change func(*connectplugin.PluginPolicy) bool // false: removed
		lives  bool
	}{
		"same":                    {func(*connectplugin.PluginPolicy) bool { return true }, true},
		"more rights":             {func(p *connectplugin.PluginPolicy) bool { p.Requires = []string{"*"}; return true }, true},
		"removed":                 {func(*connectplugin.PluginPolicy) bool { return false }, false},
		"another secret":          {func(p *connectplugin.PluginPolicy) bool { p.Secret = other; return true }, false},
		"no secret":               {func(p *connectplugin.PluginPolicy) bool { p.Secret = nil; return true }, false},
		"no secret, but unproven": {func(p *connectplugin.PluginPolicy) bool { p.Secret, p.AllowUnproven = nil, true; return true }, false},
		"a certificate demanded":  {func(p *connectplugin.PluginPolicy) bool { p.Certificates = []string{"spiffe://x/y"}; return true }, false},
		"a key demanded": {func(p *connectplugin.PluginPolicy) bool {
			p.PinnedKeys = []string{strings.Repeat("ab", 32)}
			return true
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
			subject, bystander := host.Enrol(t, "logger", hosttest.Providing("logger")), host.Enrol(t, "api", hosttest.Requiring("logger"))
			if _, err := hosttest.Register(t, subject, "logger", "1.0.0"); err != nil {
				t.Fatal(err)
			}
			w := hosttest.Watch(t, bystander, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "logger"})
			w.Until(t, hosttest.IsState(hosttest.Available))
			next := hosttest.LoggerPolicy()
			rules := next.Plugins["logger"]
			delete(next.Plugins, "logger")
			if c.change(&rules) {
				next.Plugins["logger"] = rules
			}
			hosttest.SetPolicy(t, host, next)
			if got := host.Registered("logger", subject.RuntimeID()); got != c.lives {
				t.Errorf("registered: %t, want %t", got, c.lives)
			}
			want := connect.CodeUnauthenticated
			if c.lives {
				want = 0
			}
			if code := hosttest.ReportAs(t, host, subject.RuntimeID(), subject.RuntimeToken()); code != want {
				t.Errorf("the subject's token: %v, want %v", code, want)
			}
			if code := hosttest.ReportAs(t, host, bystander.RuntimeID(), bystander.RuntimeToken()); code != 0 {
				t.Errorf("the bystander's token: %v", code)
			}
			if !c.lives {
				w.Until(t, hosttest.IsState(hosttest.Unavailable))
			}
			if code := w.Code(hosttest.Moment); code != 0 {
				t.Errorf("the bystander's watch ended: %v", code)
			}
			if !host.Audit.Has(connectplugin.AuditPolicyChanged) {
				t.Error("the change was not audited")
			}
		})
	}
}

// With certificates, the proof is the certificate.
func TestAudit_REG1_PolicyEndsIdentitiesByCertificate(t *testing.T) {
	t.Parallel()
	byAuthority := func() *connectplugin.Policy {
		return &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"logger": {Provides: []string{"logger"}}}}
	}
	for name, c := range map[string]struct {
		change func(*connectplugin.PluginPolicy, *hosttest.Host)
		lives  bool
	}{
		"same": {func(*connectplugin.PluginPolicy, *hosttest.Host) {}, true},
		"its certificate listed": {func(p *connectplugin.PluginPolicy, h *hosttest.Host) {
			p.Certificates = []string{h.Authority.PluginIdentity("logger")}
		}, true},
		"another certificate listed": {func(p *connectplugin.PluginPolicy, h *hosttest.Host) {
			p.Certificates = []string{h.Authority.PluginIdentity("other")}
		}, false},
		"another key pinned": {func(p *connectplugin.PluginPolicy, _ *hosttest.Host) {
			p.PinnedKeys = []string{strings.Repeat("ab", 32)}
		}, false},
		"a secret demanded": {func(p *connectplugin.PluginPolicy, _ *hosttest.Host) { p.Secret = hosttest.Secret }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, hosttest.WithPolicy(byAuthority()))
			tlsConfig, err := host.Authority.PluginTLS("logger")
			if err != nil {
				t.Fatal(err)
			}
			subject := host.Enrol(t, "logger", func(cfg *connectplugin.ClientConfig) {
				cfg.TLS, cfg.Secret = tlsConfig, nil
				cfg.Metadata.Provides = hosttest.Provides("logger")
			})
			next := byAuthority()
			rules := next.Plugins["logger"]
			c.change(&rules, host)
			next.Plugins["logger"] = rules
			hosttest.SetPolicy(t, host, next)
			_, err = hosttest.Register(t, subject, "logger", "1.0.0")
			if (err == nil) != c.lives || err != nil && connect.CodeOf(err) != connect.CodeUnauthenticated {
				t.Errorf("after the change: %v, want alive: %t", err, c.lives)
			}
		})
	}
}

// A watch of a type that is not allowed any more ends at once, also when nothing
// changes in the type, and as if nobody had ever provided it.
func TestAudit_REG3_PolicyEndsWatches(t *testing.T) {
	t.Parallel()
	policy := func(requires ...string) *connectplugin.Policy {
		return hosttest.Rights(map[string][2][]string{"p": {{"there"}, nil}, "c": {nil, requires}})
	}
	for dialect, opts := range hosttest.Protocols {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, hosttest.WithPolicy(policy("there", "nowhere", "kept")))
			p, c := host.Enrol(t, "p", hosttest.Declaring([]string{"there"}, nil)), host.Enrol(t, "c", hosttest.Declaring(nil, []string{"there", "nowhere", "kept"}))
			if _, err := hosttest.Register(t, p, "there", "1.0.0"); err != nil {
				t.Fatal(err)
			}
			watches := map[string]*hosttest.Watching{}
			for _, serviceType := range []string{"there", "nowhere", "kept"} {
				watches[serviceType] = hosttest.Watch(t, c, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: serviceType}, opts...)
				watches[serviceType].Next(t)
			}
			hosttest.SetPolicy(t, host, policy("kept"))
			for _, serviceType := range []string{"there", "nowhere"} {
				if code := watches[serviceType].Code(hosttest.Wait); code != connect.CodeNotFound {
					t.Errorf("watch of %s ended with %v, want not_found", serviceType, code)
				}
			}
			if code := watches["kept"].Code(hosttest.Moment); code != 0 {
				t.Errorf("watch of what is still allowed ended with %v", code)
			}
			if n := host.Registry().HasService("there", ""); !n {
				t.Error("the provider was hit by what its consumer lost")
			}
		})
	}
}

// Grants that policy no longer allows die, and calls of them in flight.
func TestAudit_H21_PolicyWithdrawsGrants(t *testing.T) {
	t.Parallel()
	slow := hosttest.NewSlowLogger()
	_, handler := loggerv1connect.NewLoggerHandler(slow)
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.EveryRight()
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(hosttest.NewCapability(handler, "logger", "1.2.0"))
	})
	c := host.Enrol(t, "all", nil)
	broker := connectpluginv1connect.NewCapabilityBrokerClient(c.HTTPClient(), host.URL)
	resp, err := broker.RequestCapability(t.Context(), connect.NewRequest(&connectpluginv1.RequestCapabilityRequest{CapabilityType: "logger"}))
	if err != nil {
		t.Fatal(err)
	}
	call := func() error {
		req := connect.NewRequest(&loggerv1.LogRequest{})
		req.Header().Set("Authorization", "Bearer "+resp.Msg.GetGrant().GetBearerToken())
		_, err := loggerv1connect.NewLoggerClient(host.Stranger(t), resp.Msg.GetGrant().GetEndpointUrl()).Log(t.Context(), req)
		return err
	}
	inFlight := make(chan error, 1)
	go func() { inFlight <- call() }()
	<-slow.Arrived
	without := hosttest.EveryRight()
	rules := without.Plugins["all"]
	rules.Capabilities = nil
	without.Plugins["all"] = rules
	hosttest.SetPolicy(t, host, without)
	if err := <-inFlight; err == nil {
		t.Error("the call in flight went on")
	}
	if err := call(); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("a call with the grant: %v, want unauthenticated", err)
	}
	hosttest.SetPolicy(t, host, hosttest.EveryRight())
	if err := call(); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("the grant rose from the dead: %v", err)
	}
	if _, err := broker.RequestCapability(t.Context(), connect.NewRequest(&connectpluginv1.RequestCapabilityRequest{CapabilityType: "logger"})); err != nil {
		t.Errorf("a new grant: %v", err)
	}
}

// Routed streams end when their caller may not call the type any more, and when
// their provider may not provide it; others go on, over the same connections.
func TestAudit_REG3_PolicyEndsRoutedStreams(t *testing.T) {
	t.Parallel()
	all := []string{"a", "b", "c"}
	for dialect, opts := range hosttest.Protocols {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, hosttest.WithPolicy(hosttest.Rights(map[string][2][]string{"p": {all, nil}, "c": {nil, all}})))
			s := &hosttest.Streamer{}
			p := host.StartPlugin(t, "p", func(c *connectplugin.PluginServerConfig) {
				for _, serviceType := range all {
					c.Services = append(c.Services, s.Service(serviceType))
				}
			})
			c := host.Enrol(t, "c", hosttest.Declaring(nil, all))
			streams := map[string]*hosttest.Watching{}
			for _, serviceType := range all {
				streams[serviceType] = hosttest.Streaming(t, c, host, serviceType, p.Client.RuntimeID(), opts...)
			}
			hosttest.SetPolicy(t, host, hosttest.Rights(map[string][2][]string{"p": {{"a", "c"}, nil}, "c": {nil, {"b", "c"}}}))
			for _, serviceType := range []string{"a", "b"} {
				if code := streams[serviceType].Code(hosttest.Wait); code != connect.CodeNotFound {
					t.Errorf("stream of %s ended with %v, want not_found", serviceType, code)
				}
			}
			if code := streams["c"].Code(hosttest.Moment); code != 0 {
				t.Errorf("stream of what is still allowed ended with %v", code)
			}
			hosttest.Eventually(t, "the provider sees its streams end", func() bool { return s.Open() == 1 })
		})
	}
}

// Calls to the host's own plugins end when policy no longer allows them, those of
// strangers to a public plugin too.
func TestAudit_H04_PolicyEndsCallsToHostPlugins(t *testing.T) {
	t.Parallel()
	policy := func(plugins, public []string) *connectplugin.Policy {
		p := hosttest.LoggerPolicy()
		p.Plugins["friend"] = hosttest.Allow(func(pp *connectplugin.PluginPolicy) { pp.HostPlugins = plugins })
		p.Public = public
		return p
	}
	for name, c := range map[string]struct {
		first, then *connectplugin.Policy
		stranger    bool
		code        connect.Code
	}{
		"plugin":   {policy([]string{"logger"}, nil), policy(nil, nil), false, connect.CodeNotFound},
		"stranger": {policy(nil, []string{"logger"}), policy(nil, nil), true, connect.CodeUnauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			slow := hosttest.NewSlowLogger()
			host := hosttest.Start(t, func(cfg *connectplugin.ServeConfig) {
				cfg.Policy = c.first
				cfg.Plugins = connectplugin.PluginSet{"logger": hosttest.LoggerPlugin{}}
				cfg.Impls = map[string]any{"logger": slow}
			})
			var client connect.HTTPClient = host.Stranger(t)
			if !c.stranger {
				client = host.Enrol(t, "friend", nil).HTTPClient()
			}
			call := func() error {
				_, err := loggerv1connect.NewLoggerClient(client, host.URL).Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{}))
				return err
			}
			inFlight := make(chan error, 1)
			go func() { inFlight <- call() }()
			<-slow.Arrived
			hosttest.SetPolicy(t, host, c.then)
			if err := <-inFlight; err == nil {
				t.Error("the call in flight went on")
			}
			if err := call(); connect.CodeOf(err) != c.code {
				t.Errorf("the next call: %v, want %v", err, c.code)
			}
		})
	}
}
