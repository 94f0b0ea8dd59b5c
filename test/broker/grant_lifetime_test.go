package broker_test

import (
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/wire"
)

// Lifetimes in the tests of grants, which the bubble's time passes at once.
const (
	testGrantTTL = 10 * time.Minute
	testTokenTTL = time.Hour
)

// grantHost is a host in a bubble whose grants live for ten minutes and whose
// tokens for an hour.
func grantHost(edit func(*connectplugin.ServeConfig)) func(*connectplugin.ServeConfig) {
	return func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Unproven("api", "other")
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(hosttest.LoggerCapability(&hosttest.RecordingLogger{}))
		c.CapabilityGrantTTL, c.RuntimeTokenTTL = testGrantTTL, testTokenTTL
		c.Limits.MaxGrantsPerIdentity = 3
		if edit != nil {
			edit(c)
		}
	}
}

// A grant lives for the configured time, says until when, and makes room for
// another without being presented.
func TestAudit_PROTO32_GrantsHonourTheirTTL(t *testing.T) {
	t.Parallel()
	wire.InBubble(t, grantHost(nil), func(t *testing.T, h *wire.BubbleHost) {
		t.Helper()
		owner := h.Enrol(t, nil)
		var grants []*connectpluginv1.CapabilityGrant
		for range 3 {
			g, code := h.Grant(t, owner)
			hosttest.WantCode(t, "a grant", code, 0)
			if ends := g.GetExpiresAt().AsTime(); !ends.Equal(time.Now().Add(testGrantTTL)) {
				t.Errorf("the grant says that it ends at %s, that is in %s", ends, time.Until(ends))
			}
			grants = append(grants, g)
		}
		_, code := h.Grant(t, owner)
		hosttest.WantCode(t, "one more than allowed", code, connect.CodeResourceExhausted)
		<-time.After(testGrantTTL - time.Millisecond)
		for _, g := range grants {
			hosttest.WantCode(t, "just before the end", h.Use(t, g), 0)
		}
		<-time.After(2 * time.Millisecond)
		for _, g := range grants {
			hosttest.WantCode(t, "just after the end", h.Use(t, g), connect.CodeUnauthenticated)
		}
		for range 3 {
			_, code := h.Grant(t, owner)
			hosttest.WantCode(t, "where expired ones were", code, 0)
		}
	})
}

// A grant ends with its owner, however that ends, and outlives the renewal of its
// owner's token.
func TestAudit_PROTO32_GrantsDieWithTheirOwner(t *testing.T) {
	t.Parallel()
	long := func(c *connectplugin.ServeConfig) { c.CapabilityGrantTTL = 24 * time.Hour }
	t.Run("revoked", func(t *testing.T) {
		t.Parallel()
		wire.InBubble(t, grantHost(long), func(t *testing.T, h *wire.BubbleHost) {
			t.Helper()
			owner, other := h.Enrol(t, nil), h.Enrol(t, nil)
			mine, _ := h.Grant(t, owner)
			others, _ := h.Grant(t, other)
			h.Revoke(owner.GetRuntimeId())
			hosttest.WantCode(t, "the grant of the revoked", h.Use(t, mine), connect.CodeUnauthenticated)
			hosttest.WantCode(t, "the grant of another", h.Use(t, others), 0)
		})
	})
	t.Run("expired", func(t *testing.T) {
		t.Parallel()
		wire.InBubble(t, grantHost(long), func(t *testing.T, h *wire.BubbleHost) {
			t.Helper()
			owner := h.Enrol(t, nil)
			g, _ := h.Grant(t, owner)
			<-time.After(testTokenTTL - time.Second)
			hosttest.WantCode(t, "just before its owner ends", h.Use(t, g), 0)
			<-time.After(2 * time.Second)
			hosttest.WantCode(t, "just after its owner ended", h.Use(t, g), connect.CodeUnauthenticated)
		})
	})
	t.Run("renewed", func(t *testing.T) {
		t.Parallel()
		wire.InBubble(t, grantHost(long), func(t *testing.T, h *wire.BubbleHost) {
			t.Helper()
			owner := h.Enrol(t, nil)
			g, _ := h.Grant(t, owner)
			for range 3 {
				<-time.After(testTokenTTL / 2)
				owner = h.Enrol(t, hosttest.IdentityHeader(owner.GetRuntimeId(), owner.GetRuntimeToken()))
				hosttest.WantCode(t, "after a renewal", h.Use(t, g), 0)
			}
			<-time.After(testTokenTTL + time.Second)
			hosttest.WantCode(t, "after its owner ended", h.Use(t, g), connect.CodeUnauthenticated)
		})
	})
}

// A call of a capability that is under way ends with the grant's owner.
func TestAudit_PROTO32_CallsInFlightEndWithTheOwner(t *testing.T) {
	t.Parallel()
	var began, ended chan struct{} // made inside, where they belong to the bubble
	wire.InBubble(t, func(c *connectplugin.ServeConfig) {
		began, ended = make(chan struct{}), make(chan struct{})
		grantHost(nil)(c)
		c.CapabilityBroker.RegisterCapability(hosttest.NewCapability(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(began)
			<-r.Context().Done()
			close(ended)
		}), "logger", "1.2.0"))
	}, func(t *testing.T, h *wire.BubbleHost) {
		t.Helper()
		owner := h.Enrol(t, nil)
		g, _ := h.Grant(t, owner)
		client := loggerv1connect.NewLoggerClient(h.Dial(t).Client, g.GetEndpointUrl())
		req := connect.NewRequest(&loggerv1.LogRequest{})
		req.Header().Set("Authorization", "Bearer "+g.GetBearerToken())
		answered := make(chan error, 1)
		go func() {
			_, err := client.Log(t.Context(), req)
			answered <- err
		}()
		<-began
		start := time.Now()
		h.Revoke(owner.GetRuntimeId())
		<-ended
		<-answered
		if took := time.Since(start); took != 0 {
			t.Errorf("the call ended %s after its owner", took)
		}
	})
}

// A connection to a capability renews its grant by itself, before the host refuses
// it, however long it lives.
func TestCapabilityConn_RenewsInTime(t *testing.T) {
	t.Parallel()
	wire.InBubble(t, grantHost(nil), func(t *testing.T, h *wire.BubbleHost) {
		t.Helper()
		conn, err := h.Client(t, "api").Capability(t.Context(), "logger", ">=1.0")
		if err != nil {
			t.Fatal(err)
		}
		const calls, pause = 30, testGrantTTL / 4
		for protocol, opts := range hosttest.Protocols {
			client := loggerv1connect.NewLoggerClient(conn.HTTPClient(), conn.BaseURL(), opts...)
			for i := range calls {
				if _, err := client.Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{Message: "x"})); err != nil {
					t.Fatalf("%s, call %d: %v", protocol, i, err)
				}
				<-time.After(pause)
			}
		}
		if refused := h.Reasons(); len(refused) > 0 {
			t.Errorf("the host refused: %q", refused)
		}
		granted := 0
		for _, e := range h.Events {
			if e.Kind == connectplugin.AuditGranted {
				granted++
			}
		}
		// A grant serves for two thirds of its life: that is three calls.
		if want := 3 * calls / 3; granted != want {
			t.Errorf("%d grants for %d calls, want %d", granted, 3*calls, want)
		}
	})
}

// The first call after the host ended the identity is served with a grant of the next one, and accuses nobody, whether
// the grant had been due for renewal or not.
func TestCapabilityConn_TheFirstCallAfterARevocation(t *testing.T) {
	t.Parallel()
	for name, age := range map[string]time.Duration{"a live grant": time.Second, "one past its TTL": testGrantTTL + time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wire.InBubble(t, grantHost(nil), func(t *testing.T, h *wire.BubbleHost) {
				t.Helper()
				client := h.Client(t, "api")
				conn, err := client.Capability(t.Context(), "logger", "")
				if err != nil {
					t.Fatal(err)
				}
				logger := loggerv1connect.NewLoggerClient(conn.HTTPClient(), conn.BaseURL())
				<-time.After(age)
				if !h.Revoke(client.RuntimeID()) {
					t.Fatal("nothing to revoke")
				}
				for call := range 2 {
					if _, err := logger.Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{Message: "x"})); err != nil {
						t.Errorf("call %d: %v", call, err)
					}
				}
				for _, e := range h.Events {
					if e.Kind == connectplugin.AuditAuthFailed {
						t.Errorf("the audit accuses the plugin: %q", e.Reason)
					}
				}
			})
		})
	}
}

// Who asks for the same capability again and again, as once for each job, never has too many grants, and has what policy
// and the host say soon.
func TestCapability_AskedForAgainTakesNoGrants(t *testing.T) {
	t.Parallel()
	wire.InBubble(t, grantHost(func(c *connectplugin.ServeConfig) { c.Limits.MaxGrantsPerIdentity = 4 }), func(t *testing.T, h *wire.BubbleHost) {
		t.Helper()
		client := h.Client(t, "api")
		granted := func() (n int) {
			for _, e := range h.Events {
				if e.Kind == connectplugin.AuditGranted {
					n++
				}
			}
			return n
		}
		job := func() error {
			conn, err := client.Capability(t.Context(), "logger", "1.0.0")
			if err != nil {
				return err
			}
			_, err = loggerv1connect.NewLoggerClient(conn.HTTPClient(), conn.BaseURL()).Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{}))
			return err
		}
		for range 300 {
			if err := job(); err != nil {
				t.Fatal(err)
			}
		}
		if n := granted(); n != 1 {
			t.Errorf("%d grants for 300 jobs at once", n)
		}
		for range 30 { // each a minute later, of a host that lets a plugin have four grants for ten minutes
			<-time.After(time.Minute + time.Second)
			if err := job(); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.SetPolicy(&connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"api": {AllowUnproven: true}}}); err != nil {
			t.Fatal(err)
		}
		<-time.After(2 * time.Minute)
		if _, err := client.Capability(t.Context(), "logger", "1.0.0"); connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("after policy took it: %v", err)
		}
	})
}

// A call that began while its grant lived goes on when the grant's time is over, and RevokeGrant ends it then, too.
func TestAudit_PROTO32_RevokeGrantEndsCallsPastItsTTL(t *testing.T) {
	t.Parallel()
	var began chan struct{}
	var broker *connectplugin.CapabilityBroker
	wire.InBubble(t, func(c *connectplugin.ServeConfig) {
		began = make(chan struct{})
		grantHost(nil)(c)
		broker = c.CapabilityBroker
		broker.RegisterCapability(hosttest.NewCapability(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(began)
			<-r.Context().Done()
		}), "logger", "1.2.0"))
	}, func(t *testing.T, h *wire.BubbleHost) {
		t.Helper()
		g, _ := h.Grant(t, h.Enrol(t, nil))
		client := loggerv1connect.NewLoggerClient(h.Dial(t).Client, g.GetEndpointUrl())
		req := connect.NewRequest(&loggerv1.LogRequest{})
		req.Header().Set("Authorization", "Bearer "+g.GetBearerToken())
		answered := make(chan error, 1)
		go func() {
			_, err := client.Log(t.Context(), req)
			answered <- err
		}()
		<-began
		<-time.After(testGrantTTL + time.Second)
		select {
		case err := <-answered:
			t.Errorf("the call ended with the grant's time: %v", err)
		default:
		}
		if !broker.RevokeGrant(g.GetGrantId()) {
			t.Error("nothing to revoke")
		}
		<-answered
		if broker.RevokeGrant(g.GetGrantId()) {
			t.Error("it is revoked twice")
		}
	})
}
