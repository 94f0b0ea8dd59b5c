package recovery_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/rawhttp"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/wire"
)

// paced is a host that takes on few new identities at once.
func paced(perSecond float64, burst int) func(*connectplugin.ServeConfig) {
	return func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Rights(map[string][2][]string{"api": {nil, nil}})
		hosttest.SetInstances(c.Policy, 1000)
		c.Policy.Plugins["loose"] = hosttest.Unproven("loose").Plugins["loose"]
		c.Limits = connectplugin.Limits{EnrolmentsPerSecond: perSecond, EnrolmentBurst: burst, HandshakeBurst: 1000}
	}
}

// retryDelay is when a host asks its peer to come back.
func retryDelay(t *testing.T, err error) time.Duration {
	t.Helper()
	var coded *connect.Error
	if !errors.As(err, &coded) || coded.Code() != connect.CodeResourceExhausted {
		t.Fatalf("%v, want resource_exhausted", err)
	}
	for _, d := range coded.Details() {
		if d.Type() != "google.rpc.RetryInfo" {
			continue
		}
		// Field 1 of a RetryInfo is a Duration: a tag, a length, the message.
		var delay durationpb.Duration
		if err := proto.Unmarshal(d.Bytes()[2:], &delay); err != nil {
			t.Fatal(err)
		}
		return delay.AsDuration()
	}
	t.Fatal("the host does not say when to come back")
	return 0
}

// Beyond what the host takes on at once each plugin gets a later time to come back at, in
// every protocol; plugins of another kind are not held up.
func TestAudit_USE42_EachComesBackAtItsOwnTime(t *testing.T) {
	t.Parallel()
	const burst = 3
	host := hosttest.Start(t, paced(0.1, burst))
	conn := wire.Dial(t, host)
	last := time.Duration(0)
	for n := range burst + 3 {
		for name, opt := range protocols() {
			client := connectpluginv1connect.NewHandshakeServiceClient(conn.Client, host.URL, opt)
			_, err := client.Handshake(t.Context(), connect.NewRequest(conn.Prove(t, wire.FreshRequest("api"), true)))
			if n < burst/len(protocols()) {
				if err != nil {
					t.Fatalf("handshake %d, %s: %v", n, name, err)
				}
				continue
			}
			// Ten seconds more for each, a minute at most.
			delay := retryDelay(t, err)
			if delay <= last && delay < 59*time.Second {
				t.Errorf("handshake %d, %s: to come back after %v, the one before it after %v", n, name, delay, last)
			}
			last = delay
		}
	}
	if code := conn.Handshake(t, hosttest.OldRequest("loose")); code != 0 {
		t.Errorf("one that proves nothing: %v", code)
	}
	if got := host.Usage().Identities; got != burst+1 {
		t.Errorf("%d identities, want %d", got, burst+1)
	}
}

// Many plugins that come at once are all taken on, with one identity each.
func TestAudit_USE42_AllOfAMassComeIn(t *testing.T) {
	t.Parallel()
	const plugins = 12
	host := hosttest.Start(t, paced(20, 3))
	ctx, cancel := context.WithCancel(t.Context())
	connected, done := make(chan struct{}, plugins), make(chan error, plugins)
	client := host.ClientConfig(t, "api")
	var err error
	if client.TLS, err = host.Authority.PluginTLS("api"); err != nil {
		t.Fatal(err)
	}
	for range plugins {
		cfg := &connectplugin.PluginServerConfig{Client: client, OnConnected: func(context.Context, *connectplugin.Client) error {
			connected <- struct{}{}
			return nil
		}}
		go func() { done <- connectplugin.ServePlugin(ctx, cfg) }()
	}
	for range plugins {
		hosttest.Arrival(t, connected)
	}
	if got := host.Usage().Identities; got != plugins {
		t.Errorf("%d identities of %d plugins", got, plugins)
	}
	cancel()
	for range plugins {
		if err := hosttest.Arrival(t, done); err != nil {
			t.Error(err)
		}
	}
}

// An identity whose plugin is gone before it can know of it does not stay, whichever way it
// went. One whose answer is read does.
func TestAudit_USE42_NobodysIdentityEnds(t *testing.T) {
	t.Parallel()
	for name, give := range map[string]func(*testing.T, *rawhttp.Unread){
		"resets":                  func(t *testing.T, u *rawhttp.Unread) { t.Helper(); u.Reset(t) },
		"closes":                  func(_ *testing.T, u *rawhttp.Unread) { u.Close() },
		"stays and does not read": func(*testing.T, *rawhttp.Unread) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
				paced(1e6, 1e6)(c)
				c.Limits.CallTimeout = 2 * time.Second
			})
			body, err := proto.Marshal(hosttest.OldRequest("loose"))
			if err != nil {
				t.Fatal(err)
			}
			u := rawhttp.Ask(t, host, hosttest.HandshakePath, body)
			if !host.Audit.Has(connectplugin.AuditIssued) {
				t.Fatal("nothing was issued")
			}
			give(t, u)
			hosttest.Eventually(t, "the identity ends", func() bool { return host.Usage().Identities == 0 })
			if code := wire.Dial(t, host).Handshake(t, hosttest.OldRequest("loose")); code != 0 {
				t.Fatal(code)
			}
			hosttest.Eventually(t, "there is one", func() bool { return host.Usage().Identities == 1 })
		})
	}
}

// Programs that outlived a host are no attackers in the audit of the next one: they are told
// of once, and their refusals keep nobody else's out of it.
func TestAudit_USE23_WhoOutlivedItsHostIsNoAttacker(t *testing.T) {
	t.Parallel()
	host := hosttest.StartRestartable(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.LoggerPolicy()
		c.Limits = connectplugin.Limits{HandshakesPerSecond: 1e-9, HandshakeBurst: 5}
	})
	c := host.Enrol(t, "api", nil)
	id, token := c.RuntimeID(), c.RuntimeToken()
	host.Kill(t)
	host.Restart(t)
	for n := range 20 {
		if code := hosttest.ReportAs(t, host.Host, id, token); code != connect.CodeUnauthenticated {
			t.Fatalf("request %d: %v", n, code)
		}
	}
	unknown, wrong := connectplugin.AuditUnknownIdentity, connectplugin.AuditAuthFailed
	if n := count(host, unknown, ""); n != 1 || host.Audit.Has(wrong) || host.Audit.Has(connectplugin.AuditLimited) {
		t.Errorf("%d events of an unknown identity: %+v", n, host.Audit.Events())
	}
	live := host.Enrol(t, "api", nil)
	for name, creds := range map[string][2]string{"no token of anybody": {"nobody", "nothing"}, "another's id": {live.RuntimeID(), token}} {
		before := count(host, wrong, "")
		hosttest.ReportAs(t, host.Host, creds[0], creds[1])
		if n := count(host, wrong, "") - before; n != 1 {
			t.Errorf("%s: %d events of an attack", name, n)
		}
	}
	host.Stop(t)
	events := host.Audit.Events()
	for _, e := range events {
		if e.Kind == unknown && e.Count == 19 {
			return
		}
	}
	t.Errorf("nothing says how often it happened: %+v", events)
}

// A plugin enrols over the connection over which it calls, also where the host had it come back
// later. Who connects again has its host verified anew.
func TestAudit_USE42_AnEnrolmentCostsOneConnection(t *testing.T) {
	t.Parallel()
	host := hosttest.StartRestartable(t, paced(0.5, 1))
	host.Enrol(t, "api", nil)
	_, before := host.Connections()
	credentials, err := host.Authority.PluginTLS("api")
	if err != nil {
		t.Fatal(err)
	}
	cfg := host.ClientConfig(t, "api")
	cfg.TLS = credentials
	c, err := connectplugin.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = retryDelay(t, c.Connect(t.Context()))
	hosttest.Eventually(t, "the host takes it on", func() bool { return c.Connect(t.Context()) == nil })
	report := func() {
		if err := c.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil); err != nil {
			t.Fatal(err)
		}
	}
	report()
	if _, ever := host.Connections(); ever != before+1 {
		t.Errorf("%d connections for one enrolment and a call", ever-before)
	}
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	report()
	if _, ever := host.Connections(); ever != before+2 {
		t.Errorf("%d connections after another handshake", ever-before)
	}
	hosttest.Eventually(t, "the other one ends", func() bool { open, _ := host.Connections(); return open == before+1 })
}
