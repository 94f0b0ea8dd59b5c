package connectplugin_test

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// oldRequest is a handshake of the first wire version.
func oldRequest(selfID string) *connectpluginv1.HandshakeRequest {
	return &connectpluginv1.HandshakeRequest{
		CoreProtocolVersion: 1, AppProtocolVersion: 1, SelfId: selfID, SelfVersion: "1.0.0",
		MagicCookieKey: connectplugin.DefaultMagicCookieKey, MagicCookieValue: connectplugin.DefaultMagicCookieValue,
	}
}

// unproven is a policy that lets whoever names a self id be it, with every right.
func unproven(selfIDs ...string) *connectplugin.Policy {
	p := connectplugin.OpenPolicy()
	rules := *p.Default
	p.Default, p.Plugins = nil, map[string]connectplugin.PluginPolicy{}
	for _, id := range selfIDs {
		p.Plugins[id] = rules
	}
	return p
}

func handshakeClient(t *testing.T, host *hosttest.Host) connectpluginv1connect.HandshakeServiceClient {
	t.Helper()
	return connectpluginv1connect.NewHandshakeServiceClient(host.Stranger(t), host.URL)
}

// credentials puts an identity on a request.
func credentials[T any](msg *T, runtimeID, token string) *connect.Request[T] {
	req := connect.NewRequest(msg)
	req.Header().Set("X-Plugin-Runtime-ID", runtimeID)
	req.Header().Set("Authorization", "Bearer "+token)
	return req
}

// reportAs reports health with credentials and returns the code, zero for success.
func reportAs(t *testing.T, host *hosttest.Host, runtimeID, token string) connect.Code {
	t.Helper()
	client := connectpluginv1connect.NewPluginLifecycleClient(host.Stranger(t), host.URL)
	_, err := client.ReportHealth(t.Context(), credentials(&connectpluginv1.ReportHealthRequest{
		State: connectpluginv1.HealthState_HEALTH_STATE_HEALTHY,
	}, runtimeID, token))
	if err == nil {
		return 0
	}
	return connect.CodeOf(err)
}

func TestAudit_REGTOKEN2_TokensAreOpaqueAndStrong(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, withPolicy(unproven("plugin")))
	seen := map[string]bool{}
	for range 20 {
		resp, err := handshakeClient(t, host).Handshake(t.Context(), connect.NewRequest(oldRequest("plugin")))
		if err != nil {
			t.Fatal(err)
		}
		token := resp.Msg.GetRuntimeToken()
		raw, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil || len(raw) != 32 {
			t.Fatalf("token %q is not base64url of 32 bytes", token)
		}
		if seen[token] || strings.Contains(token, "plugin") || strings.Contains(resp.Msg.GetRuntimeId(), token) {
			t.Fatalf("token %q repeats or tells something", token)
		}
		seen[token] = true
	}
}

func TestAudit_PROTO22_RuntimeIDsAreSanitisedAndRandom(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, withPolicy(unproven("My.Plugin_X")))
	shape := regexp.MustCompile(`^[a-z0-9-]{1,48}-[a-z0-9]{26,}$`)
	seen := map[string]bool{}
	for range 20 {
		resp, err := handshakeClient(t, host).Handshake(t.Context(), connect.NewRequest(oldRequest("My.Plugin_X")))
		if err != nil {
			t.Fatal(err)
		}
		id := resp.Msg.GetRuntimeId()
		if !shape.MatchString(id) || seen[id] {
			t.Fatalf("runtime id %q is not well-formed or repeats", id)
		}
		seen[id] = true
	}
	for _, selfID := range []string{"../../etc", "a b", "a\nb", "a/b", strings.Repeat("a", 129), "ä"} {
		_, err := handshakeClient(t, host).Handshake(t.Context(), connect.NewRequest(oldRequest(selfID)))
		if connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("self id %q: %v, want invalid_argument", selfID, err)
		}
	}
}

// No handshake, and no sequence of them, obtains another instance's runtime id or
// kills its token.
func TestAudit_H03_HandshakesCannotTakeAnIdentity(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, withPolicy(unproven("victim", "attacker")))
	enrol := func(selfID string, credential ...string) (*connectpluginv1.HandshakeResponse, error) {
		req := connect.NewRequest(oldRequest(selfID))
		if len(credential) == 2 {
			req = credentials(oldRequest(selfID), credential[0], credential[1])
		}
		resp, err := handshakeClient(t, host).Handshake(t.Context(), req)
		if err != nil {
			return nil, err
		}
		return resp.Msg, nil
	}
	victim, err := enrol("victim")
	if err != nil {
		t.Fatal(err)
	}
	attacker, err := enrol("attacker")
	if err != nil {
		t.Fatal(err)
	}
	attempts := map[string][]string{
		"the victim's id with a made-up token":      {victim.GetRuntimeId(), "AAAA"},
		"the victim's id with the attacker's token": {victim.GetRuntimeId(), attacker.GetRuntimeToken()},
		"the victim's id with an empty token":       {victim.GetRuntimeId(), ""},
	}
	for name, credential := range attempts {
		for _, selfID := range []string{"victim", "attacker"} {
			if got, err := enrol(selfID, credential...); err == nil {
				t.Errorf("%s, as %s: got identity %s", name, selfID, got.GetRuntimeId())
			}
		}
	}
	// A valid renewal cannot change its self id, and a fresh handshake never
	// meets the victim's id.
	if got, err := enrol("victim", attacker.GetRuntimeId(), attacker.GetRuntimeToken()); err == nil {
		t.Errorf("renewal under another self id: %v", got.GetRuntimeId())
	}
	for range 50 {
		got, err := enrol("victim")
		if err != nil {
			t.Fatal(err)
		}
		if got.GetRuntimeId() == victim.GetRuntimeId() {
			t.Fatal("a stranger got the victim's runtime id")
		}
	}
	if code := reportAs(t, host, victim.GetRuntimeId(), victim.GetRuntimeToken()); code != 0 {
		t.Errorf("the victim's token died: %v", code)
	}
	// The honest renewal keeps the id, and the old token lives for its grace.
	renewed, err := enrol("victim", victim.GetRuntimeId(), victim.GetRuntimeToken())
	if err != nil || renewed.GetRuntimeId() != victim.GetRuntimeId() || renewed.GetRuntimeToken() == victim.GetRuntimeToken() {
		t.Fatalf("renewal: %v, %v", renewed, err)
	}
	for _, token := range []string{victim.GetRuntimeToken(), renewed.GetRuntimeToken()} {
		if code := reportAs(t, host, victim.GetRuntimeId(), token); code != 0 {
			t.Errorf("after the renewal: %v", code)
		}
	}
}

func TestAudit_PROTO34_RepeatByTheSameInstanceKeepsItsID(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, withPolicy(loggerPolicy()))
	c := host.Enrol(t, "api", requires("logger"))
	id, token := c.RuntimeID(), c.RuntimeToken()
	for range 3 {
		if err := c.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if c.RuntimeID() != id || c.RuntimeToken() == token {
		t.Errorf("runtime id %s became %s", id, c.RuntimeID())
	}
	if other := host.Enrol(t, "api", nil); other.RuntimeID() == id {
		t.Error("another instance got the same runtime id")
	}
}

// The cookie is known to everybody and gives nothing.
func TestAudit_H04_CookieAloneGivesNothing(t *testing.T) {
	t.Parallel()
	logger := &recordingLogger{}
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = loggerPolicy()
		c.Plugins = connectplugin.PluginSet{"logger": loggerPlugin{}}
		c.Impls = map[string]any{"logger": logger}
	})
	for _, selfID := range []string{"api", "logger", "unknown", "host"} {
		resp, err := handshakeClient(t, host).Handshake(t.Context(), connect.NewRequest(oldRequest(selfID)))
		if connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Errorf("self id %q: %v, %v, want unauthenticated", selfID, resp, err)
		}
	}
	resp, err := handshakeClient(t, host).Handshake(t.Context(), connect.NewRequest(oldRequest("")))
	if err != nil {
		t.Fatalf("handshake without identity: %v", err)
	}
	if m := resp.Msg; m.GetRuntimeId() != "" || m.GetRuntimeToken() != "" || len(m.GetPlugins()) != 0 {
		t.Errorf("a client without identity got %v", m)
	}
	for name, opts := range map[string][]connect.ClientOption{"connect": nil, "grpc": {connect.WithGRPC()}, "grpc-web": {connect.WithGRPCWeb()}} {
		_, err := loggerv1connect.NewLoggerClient(host.Stranger(t), host.URL, opts...).Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{}))
		if connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Errorf("the host's plugin over %s: %v, want unauthenticated", name, err)
		}
	}
	if lines, _, _ := logger.got(); len(lines) != 0 {
		t.Errorf("the plugin was called: %q", lines)
	}
}

// An identity that policy does not let call a host plugin gets nothing; one that
// it does is served, and the plugin knows who calls.
func TestAudit_H04_HostPluginsFollowPolicy(t *testing.T) {
	t.Parallel()
	logger := &recordingLogger{}
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = loggerPolicy()
		c.Policy.Plugins["friend"] = hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.HostPlugins = []string{"logger"} })
		c.Plugins = connectplugin.PluginSet{"logger": loggerPlugin{}}
		c.Impls = map[string]any{"logger": logger}
	})
	withPlugin := func(c *connectplugin.ClientConfig) { c.Plugins = connectplugin.PluginSet{"logger": loggerPlugin{}} }
	friend := host.Enrol(t, "friend", withPlugin)
	client, err := connectplugin.DispenseTyped[loggerv1connect.LoggerClient](friend, "logger")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{})); err != nil {
		t.Errorf("the friend: %v", err)
	}
	if _, callers, _ := logger.got(); len(callers) != 1 || callers[0] != "friend" {
		t.Errorf("callers %q", callers)
	}
	other := host.Enrol(t, "other", withPlugin)
	if _, err := other.Dispense("logger"); !errors.Is(err, connectplugin.ErrPluginNotFound) {
		t.Errorf("Dispense for another: %v", err)
	}
	_, err = loggerv1connect.NewLoggerClient(other.HTTPClient(), host.URL).Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{}))
	if connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("the other's call: %v, want permission_denied", err)
	}
}

// One revocation ends the identity everywhere, streams in flight included, with a
// clear code.
func TestAudit_PROTO31_RevocationEndsEverything(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = everyRight()
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(newLoggerCapability(&recordingLogger{}))
	})
	c := host.Enrol(t, "all", func(c *connectplugin.ClientConfig) {
		c.Metadata.Requires, c.Metadata.Provides = hosttest.Requires("logger"), hosttest.Provides("logger")
	})
	id, token := c.RuntimeID(), c.RuntimeToken()
	if _, err := register(t, c, "logger", "1.0.0"); err != nil {
		t.Fatal(err)
	}
	broker := connectpluginv1connect.NewCapabilityBrokerClient(c.HTTPClient(), host.URL)
	grant, err := broker.RequestCapability(t.Context(), connect.NewRequest(&connectpluginv1.RequestCapabilityRequest{CapabilityType: "logger"}))
	if err != nil {
		t.Fatal(err)
	}
	var ends sync.WaitGroup
	codes := make(chan connect.Code, 6)
	for _, opts := range [][]connect.ClientOption{nil, {connect.WithGRPC()}, {connect.WithGRPCWeb()}} {
		stream, err := connectpluginv1connect.NewServiceRegistryClient(host.Stranger(t), host.URL, opts...).WatchService(t.Context(),
			credentials(&connectpluginv1.WatchServiceRequest{ServiceType: "logger"}, id, token))
		if err != nil || !stream.Receive() {
			t.Fatalf("watch: %v %v", err, stream.Err())
		}
		ends.Go(func() {
			for stream.Receive() {
			}
			codes <- connect.CodeOf(stream.Err())
		})
	}
	if !host.Revoke(id) {
		t.Fatal("Revoke found no identity")
	}
	ends.Wait()
	close(codes)
	for code := range codes {
		if code != connect.CodeUnauthenticated {
			t.Errorf("a watch in flight ended with %v, want unauthenticated", code)
		}
	}
	if code := reportAs(t, host, id, token); code != connect.CodeUnauthenticated {
		t.Errorf("token: %v", code)
	}
	req := connect.NewRequest(&loggerv1.LogRequest{})
	req.Header().Set("Authorization", "Bearer "+grant.Msg.GetGrant().GetBearerToken())
	_, err = loggerv1connect.NewLoggerClient(host.Stranger(t), grant.Msg.GetGrant().GetEndpointUrl()).Log(t.Context(), req)
	if connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("grant: %v", err)
	}
	if host.Registered("logger", id) {
		t.Error("the registration is still there")
	}
	if host.Revoke(id) {
		t.Error("a second revocation found the identity")
	}
}

func TestAudit_PROTO31_TokensExpireWithoutBeingPresented(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.RuntimeTokenTTL = unproven("plugin"), time.Second
	})
	resp, err := handshakeClient(t, host).Handshake(t.Context(), connect.NewRequest(oldRequest("plugin")))
	if err != nil {
		t.Fatal(err)
	}
	m := resp.Msg
	_, err = connectpluginv1connect.NewServiceRegistryClient(host.Stranger(t), host.URL).RegisterService(t.Context(),
		credentials(&connectpluginv1.RegisterServiceRequest{ServiceType: "logger", Version: "1.0.0"}, m.GetRuntimeId(), m.GetRuntimeToken()))
	if err != nil {
		t.Fatal(err)
	}
	hosttest.Eventually(t, "the registration of an expired identity is withdrawn", func() bool {
		return !host.Registered("logger", m.GetRuntimeId())
	})
	if code := reportAs(t, host, m.GetRuntimeId(), m.GetRuntimeToken()); code != connect.CodeUnauthenticated {
		t.Errorf("expired token: %v", code)
	}
}

// A connected client outlives its token's lifetime by renewing.
func TestAudit_REG5_ClientRenewsBeforeExpiry(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.RuntimeTokenTTL = loggerPolicy(), 5*time.Second // a busy machine may be late by seconds
	})
	c := host.Enrol(t, "api", nil)
	id, first := c.RuntimeID(), c.RuntimeToken()
	hosttest.Eventually(t, "renewal", func() bool { return c.RuntimeToken() != first })
	second := c.RuntimeToken()
	hosttest.Eventually(t, "second renewal", func() bool { return c.RuntimeToken() != second })
	if err := c.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil); err != nil || c.RuntimeID() != id {
		t.Errorf("after two renewals: %v, id %s became %s", err, id, c.RuntimeID())
	}
}

// The runtime id in the header selects the record and the token proves it:
// neither another spelling, nor a second header, nor another's token gets through.
func TestAudit_H01_HeadersDoNotChooseTheCaller(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, withPolicy(loggerPolicy()))
	api, logger := host.Enrol(t, "api", nil), host.Enrol(t, "logger", nil)
	for name, header := range map[string]http.Header{
		"no credentials":   {},
		"id alone":         {"X-Plugin-Runtime-Id": {api.RuntimeID()}},
		"token alone":      {"Authorization": {"Bearer " + api.RuntimeToken()}},
		"another's token":  {"X-Plugin-Runtime-Id": {api.RuntimeID()}, "Authorization": {"Bearer " + logger.RuntimeToken()}},
		"two ids":          {"X-Plugin-Runtime-Id": {api.RuntimeID(), logger.RuntimeID()}, "Authorization": {"Bearer " + api.RuntimeToken()}},
		"two tokens":       {"X-Plugin-Runtime-Id": {api.RuntimeID()}, "Authorization": {"Bearer " + api.RuntimeToken(), "Bearer " + logger.RuntimeToken()}},
		"basic credential": {"X-Plugin-Runtime-Id": {api.RuntimeID()}, "Authorization": {"Basic " + api.RuntimeToken()}},
		"token with space": {"X-Plugin-Runtime-Id": {api.RuntimeID()}, "Authorization": {"Bearer  " + api.RuntimeToken()}},
		"joined ids":       {"X-Plugin-Runtime-Id": {api.RuntimeID() + "," + logger.RuntimeID()}, "Authorization": {"Bearer " + api.RuntimeToken()}},
	} {
		for protocol, contentType := range map[string]string{"connect": "application/proto", "grpc": "application/grpc", "grpc-web": "application/grpc-web+proto"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
				host.URL+connectpluginv1connect.ServiceRegistryDiscoverServiceProcedure, strings.NewReader("\x00\x00\x00\x00\x00"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header = header.Clone()
			req.Header.Set("Content-Type", contentType)
			resp, err := host.Stranger(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body) // the trailers come after it
			_ = resp.Body.Close()
			refused := resp.StatusCode == http.StatusUnauthorized || resp.Header.Get("Grpc-Status") == "16" ||
				resp.Trailer.Get("Grpc-Status") == "16" || strings.Contains(string(body), "grpc-status: 16")
			if err != nil || !refused {
				t.Errorf("%s over %s: %d %v %q %v", name, protocol, resp.StatusCode, resp.Header, body, err)
			}
		}
	}
	if code := reportAs(t, host, api.RuntimeID(), api.RuntimeToken()); code != 0 {
		t.Errorf("the honest caller: %v", code)
	}
}

func TestAudit_AUTH013_HandshakesAndIdentitiesAreBounded(t *testing.T) {
	t.Parallel()
	t.Run("rate", func(t *testing.T) {
		t.Parallel()
		host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
			c.Policy = unproven("plugin")
			c.Limits.HandshakesPerSecond, c.Limits.HandshakeBurst = 0.001, 3
		})
		var limited int
		for range 10 {
			if _, err := handshakeClient(t, host).Handshake(t.Context(), connect.NewRequest(oldRequest("plugin"))); connect.CodeOf(err) == connect.CodeResourceExhausted {
				limited++
			}
		}
		if limited != 7 || !host.Audit.Has(connectplugin.AuditLimited) {
			t.Errorf("%d of 10 handshakes were limited, want 7", limited)
		}
	})
	for name, edit := range map[string]func(*connectplugin.ServeConfig){
		"total":            func(c *connectplugin.ServeConfig) { c.Limits.MaxIdentities = 3 },
		"per self id":      func(c *connectplugin.ServeConfig) { c.Limits.MaxIdentitiesPerSelfID = 3 },
		"per peer":         func(c *connectplugin.ServeConfig) { c.Limits.MaxIdentitiesPerPeer = 3 },
		"policy instances": func(c *connectplugin.ServeConfig) { setInstances(c.Policy, 3) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
				c.Policy = unproven("plugin")
				edit(c)
			})
			var first *connectpluginv1.HandshakeResponse
			for i := range 5 {
				resp, err := handshakeClient(t, host).Handshake(t.Context(), connect.NewRequest(oldRequest("plugin")))
				switch {
				case i < 3 && err != nil:
					t.Fatal(err)
				case i >= 3 && connect.CodeOf(err) != connect.CodeResourceExhausted:
					t.Errorf("identity %d: %v, want resource_exhausted", i+1, err)
				case i == 0:
					first = resp.Msg
				}
			}
			// Nobody alive was evicted, and one that ends makes room.
			if code := reportAs(t, host, first.GetRuntimeId(), first.GetRuntimeToken()); code != 0 {
				t.Errorf("the first identity: %v", code)
			}
			host.Revoke(first.GetRuntimeId())
			if _, err := handshakeClient(t, host).Handshake(t.Context(), connect.NewRequest(oldRequest("plugin"))); err != nil {
				t.Errorf("after one ended: %v", err)
			}
		})
	}
}

func setInstances(p *connectplugin.Policy, n int) {
	for id, rules := range p.Plugins {
		rules.MaxInstances = n
		p.Plugins[id] = rules
	}
}

func TestAudit_PROTO12_HighestCommonVersion(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name             string
		hostMin, hostMax int
		min, max, exact  int
		want             int // zero: refused
	}{
		{"same", 1, 1, 0, 0, 1, 1},
		{"highest of both", 1, 5, 2, 9, 0, 5},
		{"client is behind", 1, 5, 1, 3, 0, 3},
		{"client too old", 3, 5, 1, 2, 0, 0},
		{"client too new", 1, 3, 4, 6, 0, 0},
		{"exact within", 1, 5, 0, 0, 2, 2},
		{"exact below the minimum", 3, 5, 0, 0, 2, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, func(cfg *connectplugin.ServeConfig) {
				cfg.Policy, cfg.ProtocolVersion, cfg.MinProtocolVersion = loggerPolicy(), c.hostMax, c.hostMin
			})
			cfg := host.ClientConfig(t, "api")
			cfg.MinProtocolVersion, cfg.MaxProtocolVersion, cfg.ProtocolVersion = c.min, c.max, c.exact
			client, err := connectplugin.NewClient(cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = client.Close() })
			err = client.Connect(t.Context())
			if (err == nil) != (c.want != 0) || client.ProtocolVersion() != c.want {
				t.Errorf("agreed on %d, %v; want %d", client.ProtocolVersion(), err, c.want)
			}
			if err != nil && !errors.Is(err, connectplugin.ErrHandshakeRefused) {
				t.Errorf("%v does not wrap ErrHandshakeRefused", err)
			}
			// A peer of the first wire version knows the exact field only.
			req := oldRequest("")
			req.AppProtocolVersion = int32(c.exact)
			if c.exact != 0 {
				resp, err := handshakeClient(t, host).Handshake(t.Context(), connect.NewRequest(req))
				if (err == nil) != (c.want != 0) || resp != nil && int(resp.Msg.GetAppProtocolVersion()) != c.want {
					t.Errorf("old peer: %v, %v", resp, err)
				}
			}
		})
	}
}

func TestAudit_PROTO13_DeprecationIsSurfaced(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.ProtocolVersion, c.MinProtocolVersion, c.DeprecatedBelow = loggerPolicy(), 3, 1, 3
	})
	old := host.Enrol(t, "api", func(c *connectplugin.ClientConfig) { c.ProtocolVersion = 2 })
	if w := old.Warnings(); len(w) != 1 || !strings.Contains(w[0], "deprecated") {
		t.Errorf("warnings %q", w)
	}
	if w := host.Enrol(t, "api", func(c *connectplugin.ClientConfig) { c.ProtocolVersion = 3 }).Warnings(); len(w) != 0 {
		t.Errorf("warnings for the current version: %q", w)
	}
}

// What policy cuts off a plugin's declarations, the plugin is told.
func TestHandshake_WarnsOfWhatPolicyCuts(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, withPolicy(loggerPolicy()))
	c := host.Enrol(t, "api", func(c *connectplugin.ClientConfig) {
		c.Metadata.Requires = hosttest.Requires("logger", "storage")
		c.Metadata.Provides = hosttest.Provides("logger")
	})
	got := strings.Join(c.Warnings(), "\n")
	if len(c.Warnings()) != 2 || !strings.Contains(got, `provides "logger"`) || !strings.Contains(got, `requires "storage"`) {
		t.Errorf("warnings %q", c.Warnings())
	}
}

func TestAudit_H61_ClientFollowsNoRedirectAndEndsWithClose(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, withPolicy(loggerPolicy()))
	c := host.Enrol(t, "api", requires("logger"))
	// A server that the client trusts, elsewhere: it must not be asked at all.
	var stolen atomic.Int64
	cfg, err := host.Authority.HostTLS()
	if err != nil {
		t.Fatal(err)
	}
	thief := &http.Server{
		TLSConfig: cfg, ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { stolen.Add(1) }),
	}
	l := hosttest.Listen(t)
	go func() { _ = thief.ServeTLS(l, "", "") }()
	t.Cleanup(func() { _ = thief.Close() })
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+l.Addr().String()+"/steal", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := c.HTTPClient().Do(req); err == nil {
		_ = resp.Body.Close()
	}
	if stolen.Load() != 0 {
		t.Error("the client sent a request with credentials to another server")
	}
	if req.Header.Get("Authorization") != "" {
		t.Error("the credentials were left in the caller's request")
	}
	conn, err := c.Service(t.Context(), "logger", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"Connect":      c.Connect(t.Context()),
		"ReportHealth": c.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil),
		"second Close": errOrClosed(c.Close()),
		"Service":      second(c.Service(t.Context(), "logger", "")),
		"Capability":   second(c.Capability(t.Context(), "logger", "")),
		"Dispense":     second(c.Dispense("logger")),
		"call": func() error {
			_, err := loggerv1connect.NewLoggerClient(conn.HTTPClient(), conn.BaseURL()).Log(context.Background(), connect.NewRequest(&loggerv1.LogRequest{}))
			return err
		}(),
	} {
		if !errors.Is(err, connectplugin.ErrClientClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
}

func errOrClosed(err error) error {
	if err == nil {
		return connectplugin.ErrClientClosed
	}
	return err
}

func second[T any](_ T, err error) error { return err }
