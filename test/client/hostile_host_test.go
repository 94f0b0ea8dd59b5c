package client_test

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// What no host of this library answers, the client does not believe, and keeps
// nothing of it.
func TestAudit_H63_MalformedIdentitiesAreRefused(t *testing.T) {
	t.Parallel()
	host := hosttest.StartHostileHost(t, nil)
	texts := map[string]string{
		"empty": "", "too long": strings.Repeat("a", 513), "far too long": strings.Repeat("a", 1<<20),
		"a line break": "a\r\nX-Evil: 1", "a bare line feed": "a\nb", "a zero": "a\x00b", "a space": "a b", "a tab": "a\tb",
		"delete": "a\x7f", "not ASCII": "ä", "a text direction mark": "a\u202eb", "an escape": "\x1b[31m",
	}
	type answer = connectpluginv1.HandshakeResponse
	cases := map[string]func(*answer){
		"core version 0":         func(m *answer) { m.CoreProtocolVersion = 0 },
		"core version 2":         func(m *answer) { m.CoreProtocolVersion = 2 },
		"core version -1":        func(m *answer) { m.CoreProtocolVersion = -1 },
		"no version":             func(m *answer) { m.AppProtocolVersion = 0 },
		"a version too low":      func(m *answer) { m.AppProtocolVersion = 1 },
		"a version too high":     func(m *answer) { m.AppProtocolVersion = 4 },
		"the highest version":    func(m *answer) { m.AppProtocolVersion = math.MaxInt32 },
		"a negative version":     func(m *answer) { m.AppProtocolVersion = -2 },
		"ended an hour ago":      func(m *answer) { m.TokenExpiresAt = timestamppb.New(time.Now().Add(-time.Hour)) },
		"ended long ago":         func(m *answer) { m.TokenExpiresAt = &timestamppb.Timestamp{} },
		"ends at no time":        func(m *answer) { m.TokenExpiresAt = &timestamppb.Timestamp{Seconds: 1, Nanos: -1} },
		"ends beyond the years":  func(m *answer) { m.TokenExpiresAt = &timestamppb.Timestamp{Seconds: 1 << 62} },
		"ended before the years": func(m *answer) { m.TokenExpiresAt = &timestamppb.Timestamp{Seconds: -1 << 62} },
	}
	for name, text := range texts {
		cases["a runtime id: "+name] = func(m *answer) { m.RuntimeId = text }
		cases["a token: "+name] = func(m *answer) { m.RuntimeToken = text }
	}
	for name, edit := range cases {
		host.AnswerMessage(hosttest.HandshakePath, hosttest.Welcome(edit))
		c := host.Client(t, nil)
		err := c.Connect(t.Context())
		if !errors.Is(err, connectplugin.ErrHostNotTrusted) {
			t.Errorf("%s: %v, want ErrHostNotTrusted", name, hosttest.Cut(err))
		}
		if c.RuntimeID() != "" || c.RuntimeToken() != "" || c.ProtocolVersion() != 0 {
			t.Errorf("%s: the client kept %.40q %.40q %d", name, c.RuntimeID(), c.RuntimeToken(), c.ProtocolVersion())
		}
		if err := c.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil); !errors.Is(err, connectplugin.ErrClientNotConnected) {
			t.Errorf("%s: a call afterwards: %v", name, err)
		}
		for _, r := range hosttest.Cut(err) {
			if unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control) {
				t.Errorf("%s: the error has the character %U", name, r)
			}
		}
	}
	host.AnswerMessage(hosttest.HandshakePath, hosttest.Welcome(nil))
	c := host.Client(t, nil)
	if err := c.Connect(t.Context()); err != nil || c.RuntimeToken() != "an-honest-token" {
		t.Errorf("an honest answer: %v", err)
	}
	// A renewal does not change who the plugin is, and what was agreed stays where it fails.
	host.AnswerMessage(hosttest.HandshakePath, hosttest.Welcome(func(m *answer) { m.RuntimeId, m.RuntimeToken = "api-2", "stolen" }))
	if err := c.Connect(t.Context()); !errors.Is(err, connectplugin.ErrHostNotTrusted) || c.RuntimeToken() != "an-honest-token" {
		t.Errorf("a renewal as somebody else: %v, token %q", err, c.RuntimeToken())
	}
	// Who asks for no identity gets none.
	host.AnswerMessage(hosttest.HandshakePath, hosttest.Welcome(nil))
	anonymous := host.Client(t, func(cfg *connectplugin.ClientConfig) { cfg.SelfID = "" })
	if err := anonymous.Connect(t.Context()); err != nil || anonymous.RuntimeID() != "" || anonymous.RuntimeToken() != "" {
		t.Errorf("an identity that nobody asked for: %v, %q", err, anonymous.RuntimeID())
	}
}

// startThief serves elsewhere, with a certificate that the host's clients trust.
func startThief(t *testing.T, host *hosttest.HostileHost) (thief *hosttest.RecordingServer, url string) {
	t.Helper()
	thief = &hosttest.RecordingServer{}
	cfg, err := host.Authority.HostTLS()
	if err != nil {
		t.Fatal(err)
	}
	return thief, hosttest.ServeTLS(t, cfg, thief)
}

// Credentials go to the host that was configured, whatever it says about others:
// no redirect is followed, of no kind of call.
func TestAudit_H61_NoCredentialsFollowARedirect(t *testing.T) {
	t.Parallel()
	host := hosttest.StartHostileHost(t, nil)
	thief, thiefURL := startThief(t, host)
	for name, edit := range map[string]func(*connectplugin.ClientConfig){
		"own transport": nil,
		"HTTP client of the user": func(c *connectplugin.ClientConfig) {
			follows := hosttest.HTTPClient(t, c.TLS)
			follows.CheckRedirect = nil
			c.HTTPClient, c.TLS = follows, nil
		},
	} {
		host.AnswerMessage(hosttest.HandshakePath, hosttest.Welcome(nil))
		c := host.Client(t, edit)
		if err := c.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, status := range []int{301, 302, 303, 307, 308} {
			for _, p := range hosttest.Procedures() {
				host.Answer(p.Path, func(w http.ResponseWriter, r *http.Request) {
					http.Redirect(w, r, thiefURL+r.URL.Path, status)
				})
				for protocol, opts := range hosttest.Protocols {
					if err := p.Call(t.Context(), c.HTTPClient(), host.URL, http.Header{}, nil, opts...); err == nil {
						t.Errorf("%s, %d for %s over %s: the call succeeded", name, status, p.Path, protocol)
					}
				}
			}
			if err := c.Connect(t.Context()); err == nil {
				t.Errorf("%s, %d for a renewal: it succeeded", name, status)
			}
			if err := host.Client(t, edit).Connect(t.Context()); err == nil {
				t.Errorf("%s, %d for a handshake: it succeeded", name, status)
			}
			if n := thief.Requests.Load(); n != 0 {
				t.Fatalf("%s, %d: %d requests reached the other server", name, status, n)
			}
		}
		if c.RuntimeToken() != "an-honest-token" {
			t.Errorf("%s: the identity was lost", name)
		}
	}
}

// The endpoints that a host hands out are paths of its own to the client, wherever
// they say that they are.
func TestAudit_H61_EndpointsElsewhereAreNotFollowed(t *testing.T) {
	t.Parallel()
	host := hosttest.StartHostileHost(t, nil)
	thief, thiefURL := startThief(t, host)
	host.AnswerMessage(hosttest.HandshakePath, hosttest.Welcome(nil))
	c := host.Client(t, nil)
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	grant := func(endpoint, token string) *connectpluginv1.RequestCapabilityResponse {
		return &connectpluginv1.RequestCapabilityResponse{Grant: &connectpluginv1.CapabilityGrant{
			GrantId: "g", EndpointUrl: endpoint, BearerToken: token, CapabilityType: "logger", Version: "1.0.0",
		}}
	}
	for name, m := range map[string]*connectpluginv1.RequestCapabilityResponse{
		"another path":          grant(host.URL+"/elsewhere/", "token"),
		"another capability":    grant(host.URL+"/capabilities/clock/g", "token"),
		"no endpoint":           grant("", "token"),
		"no URL":                grant("https://[", "token"),
		"a token with a break":  grant(host.URL+"/capabilities/logger/g", "to\r\nken"),
		"no token":              grant(host.URL+"/capabilities/logger/g", ""),
		"no grant at all":       {},
		"another host, no path": grant(thiefURL, "token"),
	} {
		host.AnswerMessage(connectpluginv1connect.CapabilityBrokerRequestCapabilityProcedure, m)
		if _, err := c.Capability(t.Context(), "logger", ""); err == nil {
			t.Errorf("a grant with %s was accepted", name)
		}
	}
	host.AnswerMessage(connectpluginv1connect.CapabilityBrokerRequestCapabilityProcedure, grant(thiefURL+"/capabilities/logger/g", "token"))
	conn, err := c.Capability(t.Context(), "logger", "")
	if err != nil {
		t.Fatal(err)
	}
	host.AnswerMessage("/capabilities/logger/g"+loggerv1connect.LoggerLogProcedure, &loggerv1.LogResponse{})
	_, err = loggerv1connect.NewLoggerClient(conn.HTTPClient(), conn.BaseURL()).Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{}))
	if err != nil || thief.Requests.Load() != 0 {
		t.Errorf("a grant at another host: %v, %d requests reached that", err, thief.Requests.Load())
	}
}

// A host that speaks an older TLS, or no HTTP/2, or none of both, gets nothing.
func TestAudit_H62_NoDowngrade(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*tls.Config){
		"TLS 1.2":       func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
		"HTTP/1.1 only": func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} },
		"no ALPN":       func(c *tls.Config) { c.NextProtos = nil },
		"not the host":  nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			served := &hosttest.RecordingServer{}
			authority := hosttest.NewAuthority(t)
			cfg, err := authority.HostTLS()
			if edit == nil {
				cfg, err = authority.PluginTLS("not-the-host") // a valid certificate, but a plugin's
			}
			if err != nil {
				t.Fatal(err)
			}
			cfg = cfg.Clone()
			cfg.ClientAuth, cfg.VerifyConnection = tls.NoClientCert, nil
			if edit != nil {
				edit(cfg)
			}
			l := hosttest.Listen(t)
			server := &http.Server{Handler: served, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
			done := make(chan struct{})
			go func() { defer close(done); _ = server.Serve(tls.NewListener(l, cfg)) }()
			t.Cleanup(func() { _ = server.Close(); <-done })
			clients := map[string]*tls.Config{"the authority's": authority.ClientTLS()}
			if edit != nil {
				clients["as little as possible"] = &tls.Config{RootCAs: authority.CertPool()}
			}
			for name, client := range clients {
				_, err = hosttest.EnrolOnce(t.Context(), connectplugin.ClientConfig{
					HostURL: "https://" + l.Addr().String(), SelfID: "api", TLS: client,
				})
				if err == nil || served.Requests.Load() != 0 {
					t.Errorf("configuration %s: %v; %d requests were sent", name, err, served.Requests.Load())
				}
			}
		})
	}
}
