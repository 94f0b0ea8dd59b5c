package client_test

import (
	"crypto/tls"
	"errors"
	"fmt"
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

// Credentials go to the host that was configured, whatever it says about others:
// no redirect is followed, of no kind of call.
func TestAudit_H61_NoCredentialsFollowARedirect(t *testing.T) {
	t.Parallel()
	host := hosttest.StartHostileHost(t, nil)
	thief := &hosttest.RecordingServer{}
	thiefTLS, err := host.Authority.HostTLS()
	if err != nil {
		t.Fatal(err)
	}
	thiefURL := hosttest.ServeTLS(t, thiefTLS, thief)
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
	thief := &hosttest.RecordingServer{}
	thiefTLS, err := host.Authority.HostTLS()
	if err != nil {
		t.Fatal(err)
	}
	thiefURL := hosttest.ServeTLS(t, thiefTLS, thief)
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

// An answer that never ends, or takes its time, or swells when it is decompressed,
// costs the client its deadline and no more. It does not run in parallel: it
// measures.
func TestAudit_H63_EndlessAnswersEnd(t *testing.T) {
	const timeout, longWait, slack = time.Second, 30 * time.Second, 10
	host := hosttest.StartHostileHost(t, nil)
	block := make([]byte, 64<<10)
	endless := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}
	bomb := hosttest.GzipOf(t, 4<<30)
	answers := map[string]http.HandlerFunc{
		"an endless message": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/proto")
			endless(w, r)
		},
		"an endless error": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusInternalServerError)
			endless(w, r)
		},
		"an endless page": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			endless(w, r)
		},
		"a message of a byte a time": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/proto")
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte{0})
				_ = http.NewResponseController(w).Flush()
				<-time.After(10 * time.Millisecond)
			}
		},
		"nothing at all": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"a bomb": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/proto")
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bomb)
		},
		"a bomb as an error": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Encoding", "gzip")
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = w.Write(bomb)
		},
	}
	for name, answer := range answers {
		host.Answer(hosttest.HandshakePath, answer)
		// A busy machine may be late. Bombs are not even lit: no deadline ends them.
		deadline, most := timeout, slack*timeout
		if strings.HasPrefix(name, "a bomb") {
			deadline, most = longWait, longWait/2
		}
		c := host.Client(t, func(cfg *connectplugin.ClientConfig) { cfg.Timeout = deadline })
		before, start := hosttest.Allocated(), time.Now()
		if err := c.Connect(t.Context()); err == nil || c.RuntimeID() != "" {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(start); took > most {
			t.Errorf("%s: took %s", name, took)
		}
		if used := hosttest.Allocated() - before; used > 256<<20 { // other tests allocate beside this one
			t.Errorf("%s: %d MiB allocated", name, used>>20)
		}
		start = time.Now()
		_ = c.Close()
		if took := time.Since(start); took > slack*timeout {
			t.Errorf("%s: Close took %s", name, took)
		}
	}
	host.AnswerMessage(hosttest.HandshakePath, hosttest.Welcome(nil))
	if err := host.Client(t, nil).Connect(t.Context()); err != nil {
		t.Errorf("an honest answer: %v", err)
	}
}

// The text of a refusal is the host's; what the client makes of it fits a log line.
func TestAudit_H63_ErrorsOfTheHostAreBounded(t *testing.T) {
	t.Parallel()
	host := hosttest.StartHostileHost(t, nil)
	for code := connect.CodeCanceled; code <= connect.CodeUnauthenticated; code++ {
		host.Answer(hosttest.HandshakePath, func(w http.ResponseWriter, r *http.Request) {
			err := connect.NewError(code, errors.New("no\r\nlevel=ERROR msg=forged \x1b[2J\u202e"+strings.Repeat("long", 100_000)))
			err.Meta().Set("X-Anything", strings.Repeat("x", 1000))
			_ = connect.NewErrorWriter().Write(w, r, err)
		})
		err := host.Client(t, nil).Connect(t.Context())
		if connect.CodeOf(err) != code {
			t.Errorf("%s became %s", code, connect.CodeOf(err))
		}
		if text := fmt.Sprint(err); len(text) > 2048 || strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
			t.Errorf("%s: an error of %d bytes: %.100q", code, len(text), text)
		}
	}
}

// What the host warns of is for the operator's log, which it must not flood or
// forge.
func TestAudit_H63_WarningsAreBounded(t *testing.T) {
	t.Parallel()
	host := hosttest.StartHostileHost(t, nil)
	var log hosttest.Buffer
	logged := func(cfg *connectplugin.ClientConfig) {
		cfg.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	flood := make([]string, 200_000)
	for i := range flood {
		flood[i] = fmt.Sprint("w", i)
	}
	flood[0], flood[1] = "line\nlevel=ERROR msg=forged \u202e\x1b[2J", strings.Repeat("long", 10_000)
	host.AnswerMessage(hosttest.HandshakePath, hosttest.Welcome(func(m *connectpluginv1.HandshakeResponse) { m.Warnings = flood }))
	c := host.Client(t, logged)
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	const most = 2000 // more than an honest host has to say
	if n := strings.Count(log.String(), "\n"); n > most {
		t.Errorf("%d lines in the log", n)
	}
	warnings := c.Warnings()
	if len(warnings) > most {
		t.Errorf("%d warnings", len(warnings))
	}
	for _, w := range warnings {
		if len(w) > 1024 || strings.IndexFunc(w, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
			t.Errorf("a warning of %d bytes: %.80q", len(w), w)
		}
	}
	host.AnswerMessage(hosttest.HandshakePath, hosttest.Welcome(func(m *connectpluginv1.HandshakeResponse) { m.Warnings = []string{"version 2 is deprecated"} }))
	c = host.Client(t, logged)
	if err := c.Connect(t.Context()); err != nil || len(c.Warnings()) != 1 || c.Warnings()[0] != "version 2 is deprecated" {
		t.Errorf("an honest warning: %v, %q", err, c.Warnings())
	}
	if !strings.Contains(log.String(), "version 2 is deprecated") {
		t.Error("the warning did not reach the log")
	}
}
