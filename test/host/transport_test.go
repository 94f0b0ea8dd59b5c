package host_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

func TestAudit_PROTO41_HostRefusesPlaintextConfiguration(t *testing.T) {
	t.Parallel()
	_, err := connectplugin.NewHost(&connectplugin.ServeConfig{Policy: connectplugin.OpenPolicy()})
	if !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), "TLS") {
		t.Errorf("host without TLS: %v, want an error that names TLS", err)
	}
	_, err = connectplugin.NewHost(&connectplugin.ServeConfig{AllowInsecure: true, Authority: hosttest.NewAuthority(t)})
	if !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), "AllowInsecure") {
		t.Errorf("host with TLS and plaintext: %v, want an error that names AllowInsecure", err)
	}
}

func TestAudit_PROTO41_ClientRefusesPlaintextURL(t *testing.T) {
	t.Parallel()
	_, err := connectplugin.NewClient(connectplugin.ClientConfig{HostURL: "http://127.0.0.1:1"})
	if !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), "HostURL") {
		t.Errorf("NewClient: %v, want an error that names HostURL", err)
	}
	// Discovery must not lead to plaintext either, nor an assigned identity.
	discovery := connectplugin.NewStaticDiscovery(map[string][]connectplugin.Endpoint{
		"plugin-host": {{URL: "http://127.0.0.1:1"}},
	})
	c, err := connectplugin.NewClient(connectplugin.ClientConfig{Discovery: discovery, SelfID: "api"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Connect(t.Context()); !errors.Is(err, connectplugin.ErrNoReadyEndpoints) || !strings.Contains(err.Error(), "AllowInsecure") {
		t.Errorf("Connect through discovery of plaintext: %v, want ErrNoReadyEndpoints, and the field", err)
	}
	c.SetRuntimeIdentity("api-1", "token", "http://127.0.0.1:1")
	if got := c.RuntimeToken(); got != "" {
		t.Errorf("the client accepted an identity for a plaintext host: %q", got)
	}
}

func TestAudit_PROTO41_PlaintextRequestsGetNothing(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	plain := "http://" + strings.TrimPrefix(host.URL, "https://")
	for name, client := range map[string]*http.Client{"h2c": hosttest.HTTPClient(t, nil), "http/1.1": {}} {
		resp, err := client.Get(plain + "/healthz")
		if err == nil {
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK || bytes.Contains(body, []byte("ok\n")) {
				t.Errorf("%s in plaintext was served: %d %q", name, resp.StatusCode, body)
			}
		}
	}
	if resp, err := host.Stranger(t).Get(host.URL + "/healthz"); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("the honest probe over TLS: %v, %v", resp, err)
	} else {
		_ = resp.Body.Close()
	}
}

// The exported handlers can be mounted on any server: in plaintext they refuse
// even a valid token.
func TestAudit_PROTO41_MountedHandlersRefusePlaintext(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	api := host.Enrol(t, "api", hosttest.Requiring("logger"))
	mux := http.NewServeMux()
	mux.Handle(connectplugin.ServiceRegistryHandler(host.Registry()))
	mux.Handle(connectplugin.LifecycleServerHandler(host.Lifecycle()))
	mux.Handle("/capabilities/", host.Broker().Handler())
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	lifecycle := connectpluginv1connect.NewPluginLifecycleClient(server.Client(), server.URL)
	req := connect.NewRequest(&connectpluginv1.ReportHealthRequest{State: connectpluginv1.HealthState_HEALTH_STATE_HEALTHY})
	req.Header().Set("X-Plugin-Runtime-ID", api.RuntimeID())
	req.Header().Set("Authorization", "Bearer "+api.RuntimeToken())
	if _, err := lifecycle.ReportHealth(t.Context(), req); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("ReportHealth in plaintext: %v, want unauthenticated", err)
	}
	secure := httptest.NewUnstartedServer(mux)
	secure.EnableHTTP2 = true
	secure.StartTLS()
	t.Cleanup(secure.Close)
	lifecycle = connectpluginv1connect.NewPluginLifecycleClient(secure.Client(), secure.URL)
	req = connect.NewRequest(req.Msg)
	req.Header().Set("X-Plugin-Runtime-ID", api.RuntimeID())
	req.Header().Set("Authorization", "Bearer "+api.RuntimeToken())
	if _, err := lifecycle.ReportHealth(t.Context(), req); err != nil {
		t.Errorf("the same over TLS: %v", err)
	}
	if host.Lifecycle().GetHealthState(api.RuntimeID()) == nil {
		t.Error("the report over TLS was not recorded")
	}
}

func TestAudit_PROTO41_AllowInsecureIsLoudAndWorks(t *testing.T) {
	t.Parallel()
	var log hosttest.Buffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.Authority, c.AllowInsecure, c.Logger = hosttest.LoggerPolicy(), nil, true, logger
	})
	var clientLog hosttest.Buffer
	c := host.Enrol(t, "api", func(c *connectplugin.ClientConfig) {
		c.TLS, c.AllowInsecure = nil, true
		c.Logger = slog.New(slog.NewTextHandler(&clientLog, nil))
	})
	if err := c.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil); err != nil {
		t.Errorf("ReportHealth: %v", err)
	}
	for side, text := range map[string]string{"host": log.String(), "client": clientLog.String()} {
		if !strings.Contains(text, "level=WARN") || !strings.Contains(text, "AllowInsecure") {
			t.Errorf("the %s does not warn of plaintext: %q", side, text)
		}
	}
}

// rawTLS dials the host with a TLS configuration of the attacker's choice, sends
// a request for /healthz in HTTP/1.1 and returns what comes back.
func rawTLS(t *testing.T, host *hosttest.Host, cfg *tls.Config) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hosttest.Wait)
	defer cancel()
	conn, err := (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", host.Addr())
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(hosttest.Wait))
	if _, err := conn.Write([]byte("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")); err != nil {
		return "", err
	}
	got, err := io.ReadAll(io.LimitReader(conn, 1<<16))
	return string(got), err
}

func TestAudit_AUTH008_OldTLSAndOtherProtocolsAreRefused(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	for name, edit := range map[string]func(*tls.Config){
		"TLS 1.2":       func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
		"no ALPN":       func(c *tls.Config) { c.NextProtos = nil },
		"ALPN http/1.1": func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} },
		"ALPN made up":  func(c *tls.Config) { c.NextProtos = []string{"h3", "spdy/3"} },
		"TLS 1.2, no ALPN": func(c *tls.Config) {
			c.MinVersion, c.MaxVersion, c.NextProtos = tls.VersionTLS12, tls.VersionTLS12, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := &tls.Config{RootCAs: host.Authority.CertPool(), NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12}
			edit(cfg)
			got, err := rawTLS(t, host, cfg)
			if err == nil || strings.Contains(got, "HTTP/1.") {
				t.Errorf("was served: %q, %v", got, err)
			}
		})
	}
	t.Run("TLS 1.3 with h2", func(t *testing.T) {
		t.Parallel()
		resp, err := host.Stranger(t).Get(host.URL + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.ProtoMajor != 2 || resp.TLS.Version != tls.VersionTLS13 {
			t.Errorf("HTTP/%d over TLS %x", resp.ProtoMajor, resp.TLS.Version)
		}
	})
}

func TestAudit_AUTH008_TLS12OnlyWithAEAD(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		cfg, err := c.Authority.HostTLS()
		if err != nil {
			t.Fatal(err)
		}
		cfg.MinVersion = tls.VersionTLS12
		c.TLS, c.Policy = cfg, hosttest.LoggerPolicy()
	})
	dial := func(suites ...uint16) error {
		conn, err := tls.Dial("tcp", host.Addr(), &tls.Config{
			RootCAs: host.Authority.CertPool(), NextProtos: []string{"h2"},
			MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12, CipherSuites: suites,
		})
		if err == nil {
			_ = conn.Close()
		}
		return err
	}
	if err := dial(tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA); err == nil {
		t.Error("a CBC suite was accepted")
	}
	if err := dial(tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256); err != nil {
		t.Errorf("ECDHE with AEAD: %v", err)
	}
}

func TestAudit_H11_ForeignHostAndOriginAreRefused(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	client := host.Stranger(t)
	port := host.Addr()[strings.LastIndex(host.Addr(), ":"):]
	for _, c := range []struct {
		name, host, origin string
		ok                 bool
	}{
		{"own address", "", "", true},
		{"localhost", "localhost" + port, "", true},
		{"own origin", "", host.URL, true},
		{"foreign host", "evil.example", "", false},
		{"foreign host with our port", "evil.example" + port, "", false},
		{"suffix of ours", "127.0.0.1.evil.example" + port, "", false},
		{"foreign origin", "", "https://evil.example", false},
		{"null origin", "", "null", false},
		{"plaintext origin", "", "http://" + host.Addr(), false},
		{"origin on another port", "", "https://127.0.0.1:1", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, host.URL+"/nowhere", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = c.host
			if c.origin != "" {
				req.Header.Set("Origin", c.origin)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if got := resp.StatusCode != http.StatusForbidden; got != c.ok {
				t.Errorf("status %d, want served: %t", resp.StatusCode, c.ok)
			}
			told := func(e connectplugin.AuditEvent) bool {
				return strings.Contains(e.Reason, strconv.Quote(cmp.Or(c.origin, c.host))) &&
					(c.origin != "" || strings.Contains(e.Reason, "ServeConfig.Hosts"))
			}
			if !c.ok && !slices.ContainsFunc(host.Audit.Events(), told) {
				t.Errorf("the audit names neither host nor origin: %v", host.Audit.Events())
			}
		})
	}
}

// Without an address the host listens on loopback only.
func TestAudit_H11_DefaultAddressIsLoopback(t *testing.T) {
	t.Parallel()
	host, err := connectplugin.NewHost(&connectplugin.ServeConfig{Authority: hosttest.NewAuthority(t), Policy: hosttest.LoggerPolicy()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- host.ListenAndServe(ctx) }()
	hosttest.Eventually(t, "listening, or the port is taken", func() bool { return host.Addr() != "" || len(served) > 0 })
	if addr := host.Addr(); addr != "" {
		ip, _, _ := net.SplitHostPort(addr)
		if !net.ParseIP(ip).IsLoopback() {
			t.Errorf("listens on %s", addr)
		}
	}
	cancel()
	if err := <-served; err != nil && !strings.Contains(err.Error(), "127.0.0.1:8443") {
		t.Errorf("ListenAndServe: %v", err)
	}
	if err := host.Shutdown(context.Background()); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// A host that serves TLS sends nothing to a plugin in plaintext: not the call, not
// the caller's id, no token. Policy that names such an endpoint is refused, and a plugin that
// names it itself does not make the host.
func TestAudit_AUTHOBS73_NothingGoesToAPluginInPlaintext(t *testing.T) {
	t.Parallel()
	authority := hosttest.NewAuthority(t)
	providerTLS, err := authority.PluginTLS("provider")
	if err != nil {
		t.Fatal(err)
	}
	for scheme, server := range map[string]*echo.Trap{
		"http": echo.NewTrap(t, "127.0.0.1", nil), "https": echo.NewTrap(t, "127.0.0.1", providerTLS),
	} {
		host := hosttest.Start(t, func(c *connectplugin.ServeConfig) { c.Authority, c.Policy = authority, echo.Policy() })
		host.Authority = authority
		policy, metadata := echo.Policy(), map[string]string(nil)
		rules := policy.Plugins["provider"]
		rules.Endpoint = scheme + "://" + server.Addr
		policy.Plugins["provider"] = rules
		if err := host.SetPolicy(policy); (err == nil) != (scheme == "https") {
			t.Errorf("policy that names an endpoint over %s: %v", scheme, err)
		}
		if scheme == "http" {
			metadata = map[string]string{"base_url": rules.Endpoint}
		}
		provider, caller := echo.EnrolProvider(t, host, "provider"), host.Enrol(t, "caller", hosttest.Requiring(echo.Type))
		registered := echo.Register(t, provider, metadata)
		to := echo.At(host.URL+"/services/echo/"+provider.RuntimeID(), caller.HTTPClient())
		for protocol, opts := range hosttest.Protocols {
			for kind, call := range echo.Kinds {
				if out := call(t.Context(), to, opts, nil); (out.Err == nil) != (scheme == "https") {
					t.Errorf("%s, %s over %s: registered %v, called %v", protocol, kind, scheme, registered, out.Err)
				}
			}
		}
		if n := server.Accepted.Load(); (n > 0) != (scheme == "https") {
			t.Errorf("over %s: %d connections", scheme, n)
		}
	}
}
