package host_test

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/wire"
)

// secretKeeper remembers every secret that comes along.
type secretKeeper struct {
	mu      sync.Mutex
	secrets map[string]string // what it is, by the secret
}

func (k *secretKeeper) keep(what string, secrets ...string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.secrets == nil {
		k.secrets = map[string]string{}
	}
	for _, s := range secrets {
		k.secrets[s] = what
	}
}

// keepBytes remembers a secret in every way in which it might be written.
func (k *secretKeeper) keepBytes(what string, secret []byte) {
	if len(secret) == 0 {
		return
	}
	k.keep(what, string(secret), hex.EncodeToString(secret), base64.StdEncoding.EncodeToString(secret),
		base64.RawURLEncoding.EncodeToString(secret), fmt.Sprintf("%d", secret), fmt.Sprintf("%q", secret))
}

// listen returns a TLS-terminating relay that remembers the tokens and grants that
// pass through it.
func (k *secretKeeper) listen(t *testing.T, host *hosttest.Host) *hosttest.MITM {
	t.Helper()
	m := hosttest.StartMITM(t, host)
	keepText := func(what, secret string) {
		if secret != "" {
			k.keep(what, secret)
		}
	}
	m.Alter(func(_ http.Header, body []byte) []byte {
		var req connectpluginv1.HandshakeRequest
		if proto.Unmarshal(body, &req) == nil && len(req.GetClientProof()) > 0 {
			k.keepBytes("client proof", req.GetClientProof())
		}
		return body
	}, func(body []byte) []byte {
		var hs connectpluginv1.HandshakeResponse
		if proto.Unmarshal(body, &hs) == nil {
			keepText("runtime token", hs.GetRuntimeToken())
			k.keepBytes("challenge response", hs.GetChallengeResponse())
		}
		var grant connectpluginv1.RequestCapabilityResponse
		if proto.Unmarshal(body, &grant) == nil {
			keepText("grant token", grant.GetGrant().GetBearerToken())
		}
		return body
	})
	return m
}

// wantNone fails for every secret that a text holds.
func (k *secretKeeper) wantNone(t *testing.T, where, text string) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	for secret, what := range k.secrets {
		if at := strings.Index(text, secret); at >= 0 {
			t.Errorf("%s holds a %s: …%s", where, what, text[max(0, at-100):min(len(text), at+60)])
		}
	}
}

func (k *secretKeeper) count(what string) (n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.secrets {
		if w == what {
			n++
		}
	}
	return n
}

func debugTo(log *hosttest.Buffer) *slog.Logger {
	return slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// No log of either side at any level, no audit event and no error holds a token, a
// grant, a proof, a credential or a secret, of what succeeds and of what fails.
func TestAudit_REGREC11_NoSecretInAnyLog(t *testing.T) {
	t.Parallel()
	for name, sink := range map[string]bool{"audit sink": true, "audit in the log": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var hostLog, clientLog, errorTexts hosttest.Buffer
			host := echo.StartKindsHost(t, func(c *connectplugin.ServeConfig) {
				c.Logger = debugTo(&hostLog)
				if !sink {
					c.Audit = nil
				}
				c.RuntimeTokenTTL = 6 * time.Second // so that clients renew by themselves
				c.AuthProviders = []connectplugin.AuthProvider{
					connectplugin.NewTokenAuth("", func(token string) (string, map[string]string, error) {
						return "", nil, errors.New("no such token: " + token)
					}),
					connectplugin.NewAPIKeyAuth("", func(key string) (string, map[string]string, error) {
						return "operator", map[string]string{"key": "claimed-" + key}, nil
					}),
				}
			})
			var keeper secretKeeper
			keeper.keepBytes("enrolment secret", hosttest.Secret)
			keeper.keep("credential", "bad-bearer-credential", "good-api-key-credential")
			relay := keeper.listen(t, host.Host)
			config := host.ClientConfig(t, "caller")
			config.HostURL, config.Logger, config.Metadata.Requires = relay.URL, debugTo(&clientLog), hosttest.Requires("echo")
			config.HTTPClient, config.TLS = hosttest.HTTPClient(t, config.TLS), nil
			client, err := connectplugin.NewClient(config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = client.Close() })
			if err := client.Connect(t.Context()); err != nil {
				t.Fatal(err)
			}
			_, _ = fmt.Fprintf(&clientLog, "%v %+v %#v", config, config, config.Secret)
			note := func(err error) {
				if err != nil {
					_, _ = fmt.Fprintf(&errorTexts, "%v %+v\n", err, err)
				}
			}
			exercise(t, host, client, relay.URL, note)
			hosttest.Eventually(t, "renewals", func() bool { return keeper.count("runtime token") >= 3 })
			host.Revoke(client.RuntimeID())
			note(client.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil))
			_ = client.Close()
			host.Provider.Stop(t)
			host.Stop(t)
			if keeper.count("grant token") == 0 || keeper.count("client proof") == 0 || keeper.count("challenge response") == 0 {
				t.Error("the relay saw no secrets: the test proves nothing")
			}
			if !strings.Contains(hostLog.String(), "level=DEBUG") && !strings.Contains(hostLog.String(), "level=INFO") {
				t.Errorf("the host logged nothing: %q", hostLog.String())
			}
			keeper.wantNone(t, "the host's log", hostLog.String())
			keeper.wantNone(t, "the client's log", clientLog.String())
			keeper.wantNone(t, "an error", errorTexts.String())
			keeper.wantNone(t, "an audit event", fmt.Sprintf("%+v", host.Audit.Events()))
			if sink == strings.Contains(hostLog.String(), "msg=audit") {
				t.Errorf("audit events in the log: %t, with a sink: %t", !sink, sink)
			}
		})
	}
}

// exercise uses and abuses everything that takes a credential.
func exercise(t *testing.T, host *echo.KindsHost, client *connectplugin.Client, base string, note func(error)) {
	t.Helper()
	id, token := client.RuntimeID(), client.RuntimeToken()
	stranger := host.Stranger(t)
	// Some 300 calls follow, with every way to get a credential wrong.
	headers := hosttest.BadHeaders(id, token)
	headers["good"] = hosttest.IdentityHeader(id, token)
	headers["in the wrong place"] = hosttest.IdentityHeader(token, id)
	headers["in both places"] = http.Header{"X-Plugin-Runtime-Id": {id, token}, "Authorization": {"Bearer " + token}}
	headers["a provider's"] = hosttest.BearerHeader("bad-bearer-credential")
	headers["an API key"] = http.Header{"X-Api-Key": {"good-api-key-credential"}}
	for _, header := range headers {
		for _, p := range hosttest.Procedures() {
			at := base
			if p.Stream {
				at = host.URL // the relay passes on whole messages only
			}
			for _, opts := range hosttest.Protocols {
				note(p.Call(t.Context(), stranger, at, header, nil, opts...))
			}
		}
		for _, c := range echo.Calls() {
			for _, at := range []string{host.URL, host.URL + "/services/echo/" + host.Provider.Client.RuntimeID(), host.URL + "/services/none/x", host.URL + "/capabilities/echo/x"} {
				_, err := c.Call(t.Context(), stranger, at, header)
				note(err)
			}
		}
	}
	conn, err := client.Capability(t.Context(), "echo", "")
	note(err)
	if err == nil {
		_, err = loggerv1connect.NewLoggerClient(conn.HTTPClient(), conn.BaseURL()).Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{}))
		note(err)
	}
	wrong := wire.FreshRequest("caller")
	_, err = connectpluginv1connect.NewHandshakeServiceClient(stranger, base).
		Handshake(t.Context(), connect.NewRequest(wire.Prove(t, wrong, []byte("a wrong secret of some length"), nil)))
	note(err)
	replay := wire.Prove(t, wire.FreshRequest("caller"), hosttest.Secret, nil)
	for range 2 {
		_, err = connectpluginv1connect.NewHandshakeServiceClient(stranger, base).Handshake(t.Context(), connect.NewRequest(replay))
		note(err)
	}
}

// Every decision about an identity is an event that says who, from where, what and
// why, in texts that cannot be mistaken for anything else.
func TestAudit_REGREC11_IdentityEventsSayWhoAndWhy(t *testing.T) {
	t.Parallel()
	const forged = "x\r\nlevel=ERROR msg=forged \x1b[2J\u202e\u2028\x00"
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.EveryRight()
		c.Policy.Plugins["rival"] = hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Provides = []string{"logger"} })
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(hosttest.LoggerCapability(&hosttest.RecordingLogger{}))
		c.Limits.MaxGrantsPerIdentity = 1
	})
	declare := func(c *connectplugin.ClientConfig) { c.Metadata.Provides = hosttest.Provides("logger") }
	all, rival := host.Enrol(t, "all", declare), host.Enrol(t, "rival", declare)
	if err := all.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := hosttest.Register(t, all, "logger", "1.0.0"); err != nil {
		t.Fatal(err)
	}
	if _, err := hosttest.Register(t, rival, "logger", "1.0.0"); connect.CodeOf(err) != connect.CodeAlreadyExists {
		t.Errorf("the rival's registration: %v", err)
	}
	broker := connectpluginv1connect.NewCapabilityBrokerClient(all.HTTPClient(), host.URL)
	for range 2 {
		_, _ = broker.RequestCapability(t.Context(), connect.NewRequest(&connectpluginv1.RequestCapabilityRequest{CapabilityType: "logger", Reason: forged}))
	}
	_, _ = connectpluginv1connect.NewCapabilityBrokerClient(rival.HTTPClient(), host.URL).RequestCapability(t.Context(),
		connect.NewRequest(&connectpluginv1.RequestCapabilityRequest{CapabilityType: "logger"}))
	_, _ = all.RegistryClient().UnregisterService(t.Context(), connect.NewRequest(&connectpluginv1.UnregisterServiceRequest{RegistrationId: forged}))
	hosttest.ReportAs(t, host, "nobody", "wrong")
	hosttest.ReportAs(t, host, "nobody\u202e\u00a0", "wrong")
	_, _ = hosttest.HandshakeClient(t, host).Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest("all")))
	resp, err := host.Stranger(t).Get(host.URL + "/x%0d%0alevel=ERROR%20msg=forged")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	// C1 controls, alone and as UTF-8, tags and other characters that nobody sees, and one that the bound splits.
	long := strings.Repeat("a", 510)
	for _, path := range []string{"/%9b31m", "/%c2%9b31m", "/a%f3%a0%81%81b%e2%80%ae%e2%80%a8c", "/" + long + "%c3%a4b"} {
		if resp, err = host.Stranger(t).Get(host.URL + path); err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	host.Revoke(all.RuntimeID())
	const procedures = "/connectplugin.v1."
	for _, want := range []connectplugin.AuditEvent{
		{Kind: connectplugin.AuditIssued, RuntimeID: all.RuntimeID(), SelfID: "all"},
		{Kind: connectplugin.AuditRenewed, RuntimeID: all.RuntimeID(), SelfID: "all"},
		{Kind: connectplugin.AuditRegistered, RuntimeID: all.RuntimeID(), SelfID: "all", Procedure: procedures + "ServiceRegistry/RegisterService", Right: connectplugin.RightProvides, Subject: "logger"},
		{Kind: connectplugin.AuditConflict, RuntimeID: rival.RuntimeID(), SelfID: "rival", Procedure: procedures + "ServiceRegistry/RegisterService", Right: connectplugin.RightProvides, Subject: "logger"},
		{Kind: connectplugin.AuditGranted, RuntimeID: all.RuntimeID(), SelfID: "all", Procedure: procedures + "CapabilityBroker/RequestCapability", Right: connectplugin.RightCapabilities, Subject: "logger"},
		{Kind: connectplugin.AuditLimited, RuntimeID: all.RuntimeID(), SelfID: "all", Procedure: procedures + "CapabilityBroker/RequestCapability", Right: connectplugin.RightCapabilities, Subject: "logger"},
		{Kind: connectplugin.AuditDenied, RuntimeID: rival.RuntimeID(), SelfID: "rival", Procedure: procedures + "CapabilityBroker/RequestCapability", Right: connectplugin.RightCapabilities, Subject: "logger"},
		{Kind: connectplugin.AuditAuthFailed, RuntimeID: "nobody", Procedure: procedures + "PluginLifecycle/ReportHealth"},
		{Kind: connectplugin.AuditAuthFailed, RuntimeID: "[redacted]", Procedure: procedures + "PluginLifecycle/ReportHealth"},
		{Kind: connectplugin.AuditAuthFailed, SelfID: "all", Procedure: procedures + "HandshakeService/Handshake"},
		{Kind: connectplugin.AuditDenied, Procedure: "/x\ufffd\ufffdlevel=ERROR msg=forged"},
		{Kind: connectplugin.AuditDenied, Procedure: `/\x9b31m`},
		{Kind: connectplugin.AuditDenied, Procedure: "/\ufffd31m"},
		{Kind: connectplugin.AuditDenied, Procedure: "/a\ufffdb\ufffd\ufffdc"},
		{Kind: connectplugin.AuditDenied, Procedure: "/" + long + "…"},
		{Kind: connectplugin.AuditEnded, RuntimeID: all.RuntimeID(), SelfID: "all"},
	} {
		wantEvent(t, host.Audit.Events(), want)
	}
	for _, e := range host.Audit.Events() {
		for _, text := range []string{e.Peer, e.RuntimeID, e.SelfID, e.Procedure, e.Subject, e.Registration, e.Grant, e.Target, e.AuthProvider, e.Reason} {
			if len(text) > 600 || !utf8.ValidString(text) || strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
				t.Errorf("event %s has the text %q", e.Kind, text)
			}
		}
		if e.Time.IsZero() || e.Peer != "127.0.0.1" {
			t.Errorf("event %s is of %s, from %q", e.Kind, e.Time, e.Peer)
		}
		explained := e.Kind == connectplugin.AuditAuthFailed || e.Kind == connectplugin.AuditDenied ||
			e.Kind == connectplugin.AuditConflict || e.Kind == connectplugin.AuditLimited || e.Kind == connectplugin.AuditEnded
		if explained && e.Reason == "" {
			t.Errorf("event %s gives no reason: %+v", e.Kind, e)
		}
	}
}

// wantEvent fails unless one of the events has what want has.
func wantEvent(t *testing.T, events []connectplugin.AuditEvent, want connectplugin.AuditEvent) {
	t.Helper()
	for _, e := range events {
		if (e.Grant != "") != (e.Kind == connectplugin.AuditGranted || e.Kind == connectplugin.AuditRevoked) {
			t.Errorf("event %s has the grant %q", e.Kind, e.Grant)
		}
		e.Time, e.Peer, e.Reason, e.Grant = want.Time, want.Peer, want.Reason, want.Grant
		if e == want {
			return
		}
	}
	t.Errorf("no event %+v", want)
}
