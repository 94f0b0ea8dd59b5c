package connectplugin_test

import (
	"context"
	"maps"
	"net"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
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
		c.Policy = unproven("api", "other")
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(newLoggerCapability(&recordingLogger{}))
		c.CapabilityGrantTTL, c.RuntimeTokenTTL = testGrantTTL, testTokenTTL
		c.Limits.MaxGrantsPerIdentity = 3
		if edit != nil {
			edit(c)
		}
	}
}

// enrol obtains an identity over a new connection, or renews one.
func (h *bubbleHost) enrol(t *testing.T, header http.Header) *connectpluginv1.HandshakeResponse {
	t.Helper()
	conn := h.dial(t)
	req := connect.NewRequest(oldRequest("api"))
	maps.Copy(req.Header(), header)
	resp, err := connectpluginv1connect.NewHandshakeServiceClient(conn.client, conn.url).Handshake(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Msg
}

// grant asks for the capability over a new connection.
func (h *bubbleHost) grant(t *testing.T, owner *connectpluginv1.HandshakeResponse) (*connectpluginv1.CapabilityGrant, connect.Code) {
	t.Helper()
	conn := h.dial(t)
	resp, err := connectpluginv1connect.NewCapabilityBrokerClient(conn.client, conn.url).RequestCapability(t.Context(),
		credentials(&connectpluginv1.RequestCapabilityRequest{CapabilityType: "logger"}, owner.GetRuntimeId(), owner.GetRuntimeToken()))
	if err != nil {
		return nil, connect.CodeOf(err)
	}
	return resp.Msg.GetGrant(), 0
}

// use calls the capability over a new connection and returns the code, zero for
// success.
func (h *bubbleHost) use(t *testing.T, grant *connectpluginv1.CapabilityGrant) connect.Code {
	t.Helper()
	conn := h.dial(t)
	req := connect.NewRequest(&loggerv1.LogRequest{})
	req.Header().Set("Authorization", "Bearer "+grant.GetBearerToken())
	_, err := loggerv1connect.NewLoggerClient(conn.client, grant.GetEndpointUrl()).Log(t.Context(), req)
	return codeOrZero(err)
}

// A grant lives for the configured time, says until when, and makes room for
// another without being presented.
func TestAudit_PROTO32_GrantsHonourTheirTTL(t *testing.T) {
	t.Parallel()
	inBubble(t, grantHost(nil), func(t *testing.T, h *bubbleHost) {
		t.Helper()
		owner := h.enrol(t, nil)
		var grants []*connectpluginv1.CapabilityGrant
		for range 3 {
			g, code := h.grant(t, owner)
			wantCode(t, "a grant", code, 0)
			if ends := g.GetExpiresAt().AsTime(); !ends.Equal(time.Now().Add(testGrantTTL)) {
				t.Errorf("the grant says that it ends at %s, that is in %s", ends, time.Until(ends))
			}
			grants = append(grants, g)
		}
		_, code := h.grant(t, owner)
		wantCode(t, "one more than allowed", code, connect.CodeResourceExhausted)
		<-time.After(testGrantTTL - time.Millisecond)
		for _, g := range grants {
			wantCode(t, "just before the end", h.use(t, g), 0)
		}
		<-time.After(2 * time.Millisecond)
		for _, g := range grants {
			wantCode(t, "just after the end", h.use(t, g), connect.CodeUnauthenticated)
		}
		for range 3 {
			_, code := h.grant(t, owner)
			wantCode(t, "where expired ones were", code, 0)
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
		inBubble(t, grantHost(long), func(t *testing.T, h *bubbleHost) {
			t.Helper()
			owner, other := h.enrol(t, nil), h.enrol(t, nil)
			mine, _ := h.grant(t, owner)
			others, _ := h.grant(t, other)
			h.Revoke(owner.GetRuntimeId())
			wantCode(t, "the grant of the revoked", h.use(t, mine), connect.CodeUnauthenticated)
			wantCode(t, "the grant of another", h.use(t, others), 0)
		})
	})
	t.Run("expired", func(t *testing.T) {
		t.Parallel()
		inBubble(t, grantHost(long), func(t *testing.T, h *bubbleHost) {
			t.Helper()
			owner := h.enrol(t, nil)
			g, _ := h.grant(t, owner)
			<-time.After(testTokenTTL - time.Second)
			wantCode(t, "just before its owner ends", h.use(t, g), 0)
			<-time.After(2 * time.Second)
			wantCode(t, "just after its owner ended", h.use(t, g), connect.CodeUnauthenticated)
		})
	})
	t.Run("renewed", func(t *testing.T) {
		t.Parallel()
		inBubble(t, grantHost(long), func(t *testing.T, h *bubbleHost) {
			t.Helper()
			owner := h.enrol(t, nil)
			g, _ := h.grant(t, owner)
			for range 3 {
				<-time.After(testTokenTTL / 2)
				owner = h.enrol(t, identityHeader(owner.GetRuntimeId(), owner.GetRuntimeToken()))
				wantCode(t, "after a renewal", h.use(t, g), 0)
			}
			<-time.After(testTokenTTL + time.Second)
			wantCode(t, "after its owner ended", h.use(t, g), connect.CodeUnauthenticated)
		})
	})
}

// A call of a capability that is under way ends with the grant's owner.
func TestAudit_PROTO32_CallsInFlightEndWithTheOwner(t *testing.T) {
	t.Parallel()
	var began, ended chan struct{} // made inside, where they belong to the bubble
	inBubble(t, func(c *connectplugin.ServeConfig) {
		began, ended = make(chan struct{}), make(chan struct{})
		grantHost(nil)(c)
		c.CapabilityBroker.RegisterCapability(capability(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(began)
			<-r.Context().Done()
			close(ended)
		}), "logger", "1.2.0"))
	}, func(t *testing.T, h *bubbleHost) {
		t.Helper()
		owner := h.enrol(t, nil)
		g, _ := h.grant(t, owner)
		client := loggerv1connect.NewLoggerClient(h.dial(t).client, g.GetEndpointUrl())
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

// client connects a client in the bubble, which dials the host in memory.
func (h *bubbleHost) client(t *testing.T, selfID string) *connectplugin.Client {
	t.Helper()
	transport := &http.Transport{
		ForceAttemptHTTP2: true, TLSClientConfig: h.authority.ClientTLS(),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			here, there := net.Pipe()
			select {
			case h.listener.conns <- there:
				return here, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
	}
	c, err := connectplugin.NewClient(connectplugin.ClientConfig{
		HostURL: bubbleURL, SelfID: selfID, SelfVersion: "1.0.0", HTTPClient: &http.Client{Transport: transport},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		transport.CloseIdleConnections()
	})
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// A connection to a capability renews its grant by itself, before the host refuses
// it, however long it lives.
func TestCapabilityConn_RenewsInTime(t *testing.T) {
	t.Parallel()
	inBubble(t, grantHost(nil), func(t *testing.T, h *bubbleHost) {
		t.Helper()
		conn, err := h.client(t, "api").Capability(t.Context(), "logger", ">=1.0")
		if err != nil {
			t.Fatal(err)
		}
		const calls, pause = 30, testGrantTTL / 4
		for protocol, opts := range protocols {
			client := loggerv1connect.NewLoggerClient(conn.HTTPClient(), conn.BaseURL(), opts...)
			for i := range calls {
				if _, err := client.Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{Message: "x"})); err != nil {
					t.Fatalf("%s, call %d: %v", protocol, i, err)
				}
				<-time.After(pause)
			}
		}
		if refused := h.reasons(); len(refused) > 0 {
			t.Errorf("the host refused: %q", refused)
		}
		granted := 0
		for _, e := range h.events {
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
