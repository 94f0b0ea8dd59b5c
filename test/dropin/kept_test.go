package dropin_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/wire"
)

// Hooks that had a default have one.
func TestKept_HooksHaveDefaults(t *testing.T) {
	t.Parallel()
	retry, breaker := connectplugin.DefaultRetryPolicy(), connectplugin.DefaultCircuitBreakerConfig()
	extract := connectplugin.NewMTLSAuth(nil, nil, nil).ExtractIdentity
	if retry.IsRetryable == nil || breaker.IsFailure == nil || extract == nil {
		t.Fatalf("a hook is nil: %t %t %t", retry.IsRetryable == nil, breaker.IsFailure == nil, extract == nil)
	}
	away, denied := connect.NewError(connect.CodeUnavailable, nil), connect.NewError(connect.CodePermissionDenied, nil)
	if !retry.IsRetryable(away) || retry.IsRetryable(denied) || !breaker.IsFailure(away) || breaker.IsFailure(denied) {
		t.Error("a hook decides otherwise")
	}
	ca := hosttest.NewCA(t)
	leaf, err := x509.ParseCertificate(ca.Certify(t, hosttest.URI("spiffe://test.example/app")).Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if identity, _ := extract(leaf); identity == "" {
		t.Error("a certificate names nobody")
	}
}

// A raised rate holds at once, also for a key that has spent what it had.
func TestKept_ARaisedRateHoldsAtOnce(t *testing.T) {
	t.Parallel()
	l := connectplugin.NewTokenBucketLimiter()
	defer l.Close()
	slow := connectplugin.Rate{RequestsPerSecond: 0.001, Burst: 1}
	for name, fast := range map[string]connectplugin.Rate{
		"the rate alone": {RequestsPerSecond: 1e6, Burst: 1}, "the burst, too": {RequestsPerSecond: 1e6, Burst: 1000},
	} {
		if !l.Allow(name, slow) || l.Allow(name, slow) {
			t.Fatalf("%s: the slow rate does not hold", name)
		}
		n := 0
		hosttest.Eventually(t, "raised is "+name, func() bool {
			for n < 2*fast.Burst && l.Allow(name, fast) { // what it has, and what it regains
				n++
			}
			return n == 2*fast.Burst
		})
	}
}

// A set of plugins on one path, or under another name than its metadata's, is found out; a
// client connects and reports though nobody told it to; what has no version is not offered.
func TestKept_Validation(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		set  connectplugin.PluginSet
		says string
	}{
		"two on one path": {connectplugin.PluginSet{"logger": hosttest.LoggerPlugin{}, "other": renamedLogger{}}, "Path"},
		"another name":    {connectplugin.PluginSet{"other": hosttest.LoggerPlugin{}}, "names it"},
		"a nil plugin":    {connectplugin.PluginSet{"logger": nil}, "nil"},
		"an empty name":   {connectplugin.PluginSet{"": hosttest.LoggerPlugin{}}, "name"},
	} {
		if err := tt.set.Validate(); !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (connectplugin.PluginSet{"logger": hosttest.LoggerPlugin{}}).Validate(); err != nil {
		t.Error(err)
	}
	broker := connectplugin.NewCapabilityBroker("http://127.0.0.1:1")
	broker.RegisterCapability(oddVersion{hosttest.LoggerCapability(&hosttest.RecordingLogger{})})
	if offered := broker.ListCapabilities(); len(offered) != 0 {
		t.Errorf("offered is %v", offered)
	}
	cfg := open()
	cfg.CapabilityBroker = broker
	if _, err := connectplugin.NewHost(cfg); !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), "latest") {
		t.Errorf("NewHost: %v", err)
	}
}

// renamedLogger is a plugin of another name on the same path.
type renamedLogger struct{ hosttest.LoggerPlugin }

// Metadata returns the other name.
func (renamedLogger) Metadata() connectplugin.PluginMetadata {
	m := hosttest.LoggerPlugin{}.Metadata()
	m.Name = "other"
	return m
}

type oddVersion struct {
	connectplugin.CapabilityHandler
}

// Version returns no semantic version.
func (oddVersion) Version() string { return "latest" }

// A client that nobody connected connects to report; an assigned identity without a URL keeps
// the host that is known, and what is ignored is told.
func TestKept_Client(t *testing.T) {
	m := newMounted(t, open())
	server := httptest.NewServer(m.generated())
	t.Cleanup(server.Close)
	c, err := connectplugin.NewClient(connectplugin.ClientConfig{HostURL: server.URL + "/", SelfID: "app", AllowInsecure: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	report := func() error {
		return c.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil)
	}
	if err := report(); err != nil {
		t.Errorf("nobody connected: %v", err)
	}
	other := mustEnrol(t, server.URL, "other")
	c.SetRuntimeIdentity(other.runtimeID, other.token, "")
	if err := report(); err != nil || c.RuntimeID() != other.runtimeID {
		t.Errorf("an identity without a URL: %v", err)
	}
	var logged bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&logged, nil)))
	c.SetRuntimeIdentity("a b", "token", "")
	slog.SetDefault(before)
	if c.RuntimeID() != other.runtimeID || !strings.Contains(logged.String(), "assigned identity ignored") {
		t.Errorf("what is malformed: %q, logged %q", c.RuntimeID(), logged.String())
	}
}

// A discovery of a table says all that it knows of a service at once, and closes.
func TestKept_StaticDiscovery(t *testing.T) {
	t.Parallel()
	d := &connectplugin.StaticDiscovery{}
	for _, known := range []bool{false, true} {
		if known {
			d.AddEndpoint("kv", connectplugin.Endpoint{URL: "https://127.0.0.1:1"})
		}
		events, err := d.Watch(t.Context(), "kv")
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for e := range events {
			if n++; (e.Error == nil) != known || len(e.Endpoints) > 1 {
				t.Errorf("known %t: %+v", known, e)
			}
		}
		if n != 1 {
			t.Errorf("known %t: %d events, then closed", known, n)
		}
	}
}

// A host that nobody told ends within 30 seconds, of which calls in flight have all but the last one.
func TestKept_GracefulShutdownTimeout(t *testing.T) {
	t.Parallel()
	var slow *hosttest.SlowLogger
	wire.InBubble(t, func(c *connectplugin.ServeConfig) {
		slow = hosttest.NewSlowLogger()
		c.Policy, c.Limits.CallTimeout = connectplugin.OpenPolicy(), time.Hour
		c.Plugins = connectplugin.PluginSet{"logger": hosttest.LoggerPlugin{}}
		c.Impls = map[string]any{"logger": slow}
	}, func(t *testing.T, h *wire.BubbleHost) {
		t.Helper()
		h.CutsOff = true
		client := h.HTTPClient(t)
		called := make(chan error, 1)
		go func() {
			_, err := loggerv1connect.NewLoggerClient(client, wire.BubbleURL).Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{}))
			called <- err
		}()
		<-slow.Arrived
		begun := time.Now()
		err := h.Shutdown(t.Context())
		if took := time.Since(begun); err == nil || took < 29*time.Second || took > 30*time.Second {
			t.Errorf("the host ended after %s: %v", took, err)
		}
		if err := <-called; err == nil {
			t.Error("the call was not cut off")
		}
	})
}

// What warns of plaintext is silenced by the variable of the environment, and by nothing else;
// that policy is open is warned of all the same.
func TestKept_TheVariableThatSilencesPlaintext(t *testing.T) {
	for value, silent := range map[string]bool{"": false, "0": false, "false": false, "1": true, "true": true} {
		t.Setenv("CONNECTPLUGIN_DISABLE_TLS_WARNING", value)
		var host, client bytes.Buffer
		cfg := open()
		cfg.Logger = slog.New(slog.NewTextHandler(&host, nil))
		h, err := connectplugin.NewHost(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		c, err := connectplugin.NewClient(connectplugin.ClientConfig{
			Endpoint: "http://127.0.0.1:1", AllowInsecure: true, Logger: slog.New(slog.NewTextHandler(&client, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		for side, said := range map[string]string{"host": host.String(), "client": client.String()} {
			if strings.Contains(said, "AllowInsecure is set") == silent {
				t.Errorf("%q: the %s says %q", value, side, said)
			}
		}
		if !strings.Contains(host.String(), "policy") {
			t.Errorf("%q: nothing is said of the policy: %q", value, host.String())
		}
	}
}

// The version of the host is in the metadata.
func TestKept_ServerMetadata(t *testing.T) {
	t.Parallel()
	m := newMounted(t, open())
	server := httptest.NewServer(m.generated())
	t.Cleanup(server.Close)
	resp, err := connectpluginv1connect.NewHandshakeServiceClient(server.Client(), server.URL).Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest("api")))
	if err != nil || resp.Msg.GetServerMetadata()["server_version"] == "" {
		t.Errorf("%v, %v", resp, err)
	}
}
