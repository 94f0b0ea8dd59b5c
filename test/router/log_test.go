package router_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"unicode"
	"unicode/utf8"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/rawhttp"
)

// twoLogs writes every record as text and as JSON, and counts them.
type twoLogs struct {
	text, json slog.Handler
	records    *atomic.Int64
}

func (h twoLogs) Enabled(context.Context, slog.Level) bool { return true }

func (h twoLogs) Handle(ctx context.Context, r slog.Record) error {
	h.records.Add(1)
	_ = h.text.Handle(ctx, r)
	return h.json.Handle(ctx, r)
}

func (h twoLogs) WithAttrs(attrs []slog.Attr) slog.Handler {
	return twoLogs{h.text.WithAttrs(attrs), h.json.WithAttrs(attrs), h.records}
}

func (h twoLogs) WithGroup(name string) slog.Handler {
	return twoLogs{h.text.WithGroup(name), h.json.WithGroup(name), h.records}
}

// logForgeries are texts that start a new line, end a quoted value, or move a
// terminal's cursor.
var logForgeries = []string{
	"\ntime=2026-01-01T00:00:00Z level=INFO msg=audit kind=issued runtime_id=admin",
	"\r\n{\"level\":\"INFO\",\"msg\":\"audit\",\"kind\":\"issued\",\"runtime_id\":\"admin\"}",
	"\" kind=issued runtime_id=\"admin",
	"\u2028time=2026-01-01 level=INFO msg=forged\u2029",
	"\u0085msg=forged",
	"\x1b[2K\x1b[1Gmsg=forged",
	"\u009b2Kmsg=forged",
	"\u202emsg=forged",
	"\U000e0001\U000e0061\u2060\ufeff\u00admsg=forged",
	"m\ufe0fs\U000e0100g\u034f=\u3164forged",
	"\x00msg=forged",
	"\xff\xfemsg=forged",
	"\\n level=INFO msg=forged",
}

// No request and no response forges a line of the log or an audit event, in text
// or in JSON.
func TestAudit_H32_NoRequestForgesALogLine(t *testing.T) {
	t.Parallel()
	var asText, asJSON hosttest.Buffer
	logs := twoLogs{
		slog.NewTextHandler(&asText, &slog.HandlerOptions{Level: slog.LevelDebug}),
		slog.NewJSONHandler(&asJSON, &slog.HandlerOptions{Level: slog.LevelDebug}), new(atomic.Int64),
	}
	for _, sink := range []bool{true, false} {
		rig := echo.NewRig(t, http.HandlerFunc(mangled), func(c *connectplugin.ServeConfig) {
			c.Logger = slog.New(logs)
			if !sink {
				c.Audit = nil // the events go to the log
			}
			c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
			c.CapabilityBroker.RegisterCapability(hosttest.NewCapability(echo.Service{}.Handler(), echo.Type, "1.0.0"))
		})
		for _, forgery := range logForgeries {
			forge(t, rig, forgery)
		}
		for _, e := range rig.Audit.Events() {
			raw, err := json.Marshal(e)
			if err != nil || !printableText(string(raw)) {
				t.Errorf("audit event %q, %v", raw, err)
			}
		}
		rig.Provider.Stop(t)
		rig.Stop(t)
	}
	checkLog(t, &asText, logs.records.Load(), func(line string) bool { return strings.HasPrefix(line, "time=2") })
	checkLog(t, &asJSON, logs.records.Load(), func(line string) bool { return json.Valid([]byte(line)) })
	for _, kind := range []string{"auth_failed", "denied", "granted", "routed call failed"} {
		if !strings.Contains(asText.String(), kind) {
			t.Errorf("nothing was logged of %q: the attack did not reach its place", kind)
		}
	}
}

func printableText(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool {
		return !unicode.IsPrint(r) || unicode.In(r, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point)
	}) < 0
}

// checkLog checks that there is one line for each record, with nothing in it
// that a terminal obeys.
func checkLog(t *testing.T, log *hosttest.Buffer, records int64, whole func(string) bool) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(log.String(), "\n"), "\n")
	if int64(len(lines)) != records || records == 0 {
		t.Errorf("%d lines of %d records", len(lines), records)
	}
	for _, line := range lines {
		if !whole(line) || !printableText(line) {
			t.Errorf("line %q", line)
		}
	}
}

// mangled is a provider whose answers are for the log.
func mangled(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Location", "https://evil.example/")
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	w.WriteHeader(http.StatusMultipleChoices)
}

// forge brings a text into every place that a request has for it.
func forge(t *testing.T, rig *echo.Rig, forgery string) {
	t.Helper()
	ctx := t.Context()
	escaped := strings.NewReplacer("\n", "%0a", "\r", "%0d", " ", "%20", "\"", "%22", "\x1b", "%1b", "\x00", "%00").Replace(forgery)
	base := "/services/echo/" + rig.Provider.Client.RuntimeID()
	w := rawhttp.Dial(t, rig.Host)
	for _, target := range []string{
		"/services/" + escaped + "/x/y", "/services/echo/" + escaped + "/y", base + "/" + escaped, base + echo.Unary + "?" + escaped,
		"/capabilities/" + escaped + "/x/y", "/capabilities/echo/" + escaped, "/plugin.v1.ServiceRegistry/" + escaped, "/" + escaped, base + echo.Unary,
	} {
		_ = w.Call(w.Fields(rig.Caller, target), nil)
		_ = w.Call(w.Fields(rig.Caller, target, ":method", strings.TrimSpace(escaped)), nil)
	}
	for _, name := range []string{
		"x-plugin-runtime-id", "authorization", "user-agent", "origin", ":authority", "content-type", "x-app", "grpc-timeout", "content-encoding",
	} {
		_ = w.Call(w.Fields(rig.Caller, base+echo.Unary, name, forgery), nil)
		_ = w.Call(w.Fields(rig.Caller, "/capabilities/echo/x/y", name, forgery), nil)
	}
	opts := rig.Caller.HTTPClient()
	registry := connectpluginv1connect.NewServiceRegistryClient(opts, rig.URL)
	valid := strings.ToValidUTF8(forgery, "?") // protobuf allows nothing else
	_, _ = registry.UnregisterService(ctx, connect.NewRequest(&connectpluginv1.UnregisterServiceRequest{RegistrationId: valid}))
	_, _ = registry.DiscoverService(ctx, connect.NewRequest(&connectpluginv1.DiscoverServiceRequest{ServiceType: valid, MinVersion: valid}))
	_, _ = registry.RegisterService(ctx, connect.NewRequest(&connectpluginv1.RegisterServiceRequest{
		ServiceType: echo.Type, Version: valid, EndpointPath: valid, Metadata: map[string]string{valid: valid, "base_url": valid},
	}))
	broker := connectpluginv1connect.NewCapabilityBrokerClient(opts, rig.URL)
	for _, capType := range []string{echo.Type, valid} {
		_, _ = broker.RequestCapability(ctx, connect.NewRequest(&connectpluginv1.RequestCapabilityRequest{CapabilityType: capType, Reason: valid}))
	}
	_ = rig.Caller.ReportHealth(ctx, connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, valid, []string{valid})
	m := hosttest.OldRequest(valid)
	m.MagicCookieValue, m.SelfVersion = valid, valid
	_, _ = hosttest.HandshakeClient(t, rig.Host).Handshake(ctx, connect.NewRequest(m))
	_, _ = hosttest.HandshakeClient(t, rig.Host).Handshake(ctx, hosttest.WithCredentials(hosttest.OldRequest("caller"), strings.TrimSpace(printableOr(valid)), "x"))
	// A provider's answer is a request to the host's log too.
	_ = echo.CallUnary(ctx, rig.ToProvider(), nil, nil)
	if echo.Register(t, rig.Provider.Client, map[string]string{"base_url": valid}) == nil {
		t.Error("registered")
	}
}

// printableOr makes a text fit for a header field of an honest client.
func printableOr(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f {
			return '_'
		}
		return r
	}, s)
}

// Calls to a provider that fail in one way, whoever makes them, are one line of the log, at once, and a number.
func TestAudit_H32_CallsThatFailFillNoLog(t *testing.T) {
	t.Parallel()
	var log hosttest.Buffer
	rig := echo.NewRig(t, http.HandlerFunc(mangled), func(c *connectplugin.ServeConfig) {
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	other := rig.Enrol(t, "both", hosttest.Requiring(echo.Type))
	const calls = 15 // of each
	for range calls {
		for _, caller := range []*connectplugin.Client{rig.Caller, other} {
			to := rig.ToProvider()
			to.Client = caller.HTTPClient()
			if out := echo.CallUnary(t.Context(), to, nil, nil); out.Err == nil {
				t.Fatal("the provider answered")
			}
		}
	}
	if n := strings.Count(log.String(), "a routed call failed"); n != 1 {
		t.Errorf("%d lines of %d calls: %s", n, 2*calls, log.String())
	}
	rig.Provider.Stop(t)
	rig.Stop(t) // which says what was not said
	want := fmt.Sprintf(`msg="more routed calls failed, which the log only counts" service=%s self_id=provider runtime_id=%s reason=response count=%d`,
		echo.Type, rig.Provider.Client.RuntimeID(), 2*calls-1)
	if n := strings.Count(log.String(), "more routed calls failed"); n != 1 || !strings.Contains(log.String(), want) {
		t.Errorf("%d counts, want %s in %s", n, want, log.String())
	}
}
