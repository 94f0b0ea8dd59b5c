package host_test

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

type (
	healthQuestion = connectpluginv1.HealthCheckRequest
	healthAnswer   = connectpluginv1.HealthCheckResponse
)

// get asks for a path under a Host and returns the status, the text and the response.
func get(t *testing.T, client *http.Client, url, host string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Errorf("%s for %q: %v", url, host, err)
		return 0, ""
	}
	defer func() { _ = resp.Body.Close() }()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	return resp.StatusCode, string(text)
}

// A probe asks for an address. It is answered, and is no attack; everything else is still
// refused under another's name.
func TestAudit_USE30_ProbesAreAnsweredWhateverTheHost(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) { c.Hosts = []string{"host.example", "127.0.0.1"} })
	client := host.Stranger(t)
	for _, name := range []string{"", "10.244.0.7:8443", "[fd00::7]:8443", "kube-probe", "evil.example", "host.example:1"} {
		for _, path := range []string{"/healthz", "/readyz"} {
			if got, text := get(t, client, host.URL+path, name); got != http.StatusOK || text != "ok\n" {
				t.Errorf("%s for %q: %d %q", path, name, got, text)
			}
		}
	}
	if host.Audit.Has(connectplugin.AuditDenied) {
		t.Errorf("a probe is in the audit: %+v", host.Audit.Events())
	}
	for _, path := range []string{"/healthz/", "/readyz/x", "/healthzz", "/", "/connectplugin.v1.HandshakeService/Handshake"} {
		if got, _ := get(t, client, host.URL+path, "evil.example"); got != http.StatusForbidden {
			t.Errorf("%s for another's name: %d", path, got)
		}
	}
	if got, _ := get(t, client, host.URL+"/healthz", "evil.example", "Origin", "https://evil.example:1"); got != http.StatusForbidden {
		t.Errorf("for a page of another origin: %d", got)
	}
}

// withProbes starts a host that answers probes on an address of their own.
func withProbes(t *testing.T, edit func(*connectplugin.ServeConfig)) (host *hosttest.Host, url string) {
	t.Helper()
	host = hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.HealthAddr = "127.0.0.1:0"
		if edit != nil {
			edit(c)
		}
	})
	return host, "http://" + host.HealthAddr()
}

// clients are those that speak no TLS.
func clients(t *testing.T) map[string]*http.Client {
	t.Helper()
	old := &http.Transport{}
	t.Cleanup(old.CloseIdleConnections)
	return map[string]*http.Client{"HTTP/1.1": {Transport: old}, "h2c": hosttest.HTTPClient(t, nil)}
}

// HealthAddr answers probes in plaintext, and nothing else.
func TestAudit_USE30_ProbesInPlaintext(t *testing.T) {
	t.Parallel()
	health := connectplugin.NewHealthServer()
	health.SetServingStatus("db", connectpluginv1.ServingStatus_SERVING_STATUS_NOT_SERVING)
	host, url := withProbes(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.HealthService = hosttest.LoggerPolicy(), health
	})
	for name, client := range clients(t) {
		for path, want := range map[string]int{
			"/healthz": http.StatusOK, "/readyz": http.StatusOK,
			"/": http.StatusNotFound, "/healthz/": http.StatusNotFound, "/services/logger/x/y": http.StatusNotFound,
			"/connectplugin.v1.HandshakeService/Handshake": http.StatusNotFound,
		} {
			if got, _ := get(t, client, url+path, "kube-probe"); got != want {
				t.Errorf("%s %s: %d, want %d", name, path, got, want)
			}
		}
		if resp, err := client.Post(url+"/readyz", "text/plain", strings.NewReader("x")); err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s POST: %v %v", name, resp, err)
		} else {
			_ = resp.Body.Close()
		}
	}
	health.SetServingStatus("", connectpluginv1.ServingStatus_SERVING_STATUS_NOT_SERVING)
	for name, client := range clients(t) {
		ready, _ := get(t, client, url+"/readyz", "x")
		live, _ := get(t, client, url+"/healthz", "x")
		if ready != http.StatusServiceUnavailable || live != http.StatusOK {
			t.Errorf("%s, not serving: ready %d, live %d", name, ready, live)
		}
	}
	// What is for plugins stays behind TLS, and asks who calls.
	host.Enrol(t, "logger", nil)
	host.Stop(t)
	if c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://")); err == nil {
		_ = c.Close()
		t.Error("the address is still open after the end")
	}
}

// The health protocol of gRPC, as a kubelet speaks it.
func TestAudit_USE30_GRPCHealth(t *testing.T) {
	t.Parallel()
	health := connectplugin.NewHealthServer()
	host, url := withProbes(t, func(c *connectplugin.ServeConfig) { c.HealthService = health })
	plain := hosttest.HTTPClient(t, nil)
	check := connect.NewClient[healthQuestion, healthAnswer](plain, url+"/grpc.health.v1.Health/Check", connect.WithGRPC())
	watch := connect.NewClient[healthQuestion, healthAnswer](plain, url+"/grpc.health.v1.Health/Watch", connect.WithGRPC())
	ask := func(service string) (connectpluginv1.ServingStatus, connect.Code) {
		resp, err := check.CallUnary(t.Context(), connect.NewRequest(&healthQuestion{Service: service}))
		if err != nil {
			return 0, connect.CodeOf(err)
		}
		return resp.Msg.GetStatus(), 0
	}
	if status, code := ask(""); status != connectpluginv1.ServingStatus_SERVING_STATUS_SERVING || code != 0 {
		t.Errorf("the host: %v %v", status, code)
	}
	if _, code := ask("nobody"); code != connect.CodeNotFound {
		t.Errorf("unknown service: %v", code)
	}
	health.SetServingStatus("db", connectpluginv1.ServingStatus_SERVING_STATUS_NOT_SERVING)
	if status, code := ask("db"); status != connectpluginv1.ServingStatus_SERVING_STATUS_NOT_SERVING || code != 0 {
		t.Errorf("db: %v %v", status, code)
	}
	stream, err := watch.CallServerStream(t.Context(), connect.NewRequest(&healthQuestion{Service: "db"}))
	if err != nil || !stream.Receive() || stream.Msg().GetStatus() != connectpluginv1.ServingStatus_SERVING_STATUS_NOT_SERVING {
		t.Fatalf("watch: %v", err)
	}
	health.SetServingStatus("db", connectpluginv1.ServingStatus_SERVING_STATUS_SERVING)
	if !stream.Receive() || stream.Msg().GetStatus() != connectpluginv1.ServingStatus_SERVING_STATUS_SERVING {
		t.Errorf("watch after a change: %v", stream.Err())
	}
	host.Stop(t) // ends the watch, and does not wait for its watcher
	for stream.Receive() {
	}
	if code := connect.CodeOf(stream.Err()); code != connect.CodeUnavailable {
		t.Errorf("the end of the watch: %v", stream.Err())
	}
	_ = stream.Close()
}

// Nobody keeps the next probe out by connecting and staying.
func TestAudit_USE30_ConnectionsThatStayKeepNobodyOut(t *testing.T) {
	t.Parallel()
	_, url := withProbes(t, nil)
	for range 300 {
		c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	for name, client := range clients(t) {
		client.Timeout = hosttest.Wait
		if got, _ := get(t, client, url+"/healthz", "x"); got != http.StatusOK {
			t.Errorf("%s: %d", name, got)
		}
	}
}

// occupy opens connections from an address and leaves them.
func occupy(t *testing.T, from, to string, n int) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	for range n {
		c, err := d.DialContext(t.Context(), "tcp", to)
		if err != nil {
			t.Skipf("this machine has no address %s: %v", from, err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
}

// Whoever takes more connections than others makes room for them, and a connection on which
// nothing is asked makes room for one on which something is: nobody ends a probe that goes on.
func TestAudit_OWN20_NobodyDisplacesAnHonestProbe(t *testing.T) {
	t.Parallel()
	for name, crowd := range map[string]map[string]int{
		"from another address":   {"127.0.0.2": 300},
		"from many addresses":    {"127.0.0.2": 60, "127.0.0.3": 60, "127.0.0.4": 60, "127.0.0.5": 60, "127.0.0.6": 60, "127.0.0.7": 60},
		"from the probe's own":   {"127.0.0.1": 300},
		"from that and another":  {"127.0.0.1": 60, "127.0.0.2": 300},
		"a few that are no harm": {"127.0.0.1": 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			health := connectplugin.NewHealthServer()
			_, url := withProbes(t, func(c *connectplugin.ServeConfig) { c.HealthService = health })
			watch := connect.NewClient[healthQuestion, healthAnswer](hosttest.HTTPClient(t, nil), url+"/grpc.health.v1.Health/Watch", connect.WithGRPC())
			stream, err := watch.CallServerStream(t.Context(), connect.NewRequest(&healthQuestion{}))
			if err != nil || !stream.Receive() {
				t.Fatalf("watch: %v", err)
			}
			for from, n := range crowd {
				occupy(t, from, strings.TrimPrefix(url, "http://"), n)
			}
			for name, client := range clients(t) {
				client.Timeout = hosttest.Wait
				if got, _ := get(t, client, url+"/healthz", "x"); got != http.StatusOK {
					t.Errorf("%s: %d", name, got)
				}
			}
			health.SetServingStatus("", connectpluginv1.ServingStatus_SERVING_STATUS_NOT_SERVING)
			if !stream.Receive() || stream.Msg().GetStatus() != connectpluginv1.ServingStatus_SERVING_STATUS_NOT_SERVING {
				t.Errorf("the probe that goes on was ended: %v", stream.Err())
			}
			_ = stream.Close()
		})
	}
}

// A client that speaks HTTP/1.1 alone learns from TLS what is missing, in the handshake and
// not by an empty reply after it.
func TestAudit_USE30_WhoSpeaksNoHTTP2IsToldInTLS(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	cert := ca.Certify(t, hosttest.Loopback)
	for name, edit := range map[string]func(*connectplugin.ServeConfig){
		"one certificate": func(c *connectplugin.ServeConfig) { c.TLS.Certificates = []tls.Certificate{*cert} },
		"chosen": func(c *connectplugin.ServeConfig) {
			c.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return ca.TLS(cert), nil }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := ca.Start(t, nil, edit)
			for _, protocols := range [][]string{{"http/1.1"}, {"http/1.0", "http/1.1"}, {"spdy/3", "http/1.1"}} {
				cfg := ca.TLS(nil)
				cfg.NextProtos = protocols
				if _, err := tls.Dial("tcp", host.Addr(), cfg); err == nil || !strings.Contains(err.Error(), "no application protocol") {
					t.Errorf("%v: %v", protocols, err)
				}
			}
			cfg := ca.TLS(nil)
			cfg.NextProtos = []string{"http/1.1", "h2"}
			conn, err := tls.Dial("tcp", host.Addr(), cfg)
			if err != nil || conn.ConnectionState().NegotiatedProtocol != "h2" {
				t.Fatalf("who offers h2 too: %v", err)
			}
			_ = conn.Close()
		})
	}
}

// An address that cannot be used is an error that names the field.
func TestAudit_USE30_AddressesThatCannotBe(t *testing.T) {
	t.Parallel()
	taken := hosttest.Listen(t)
	defer func() { _ = taken.Close() }()
	for name, c := range map[string]struct{ addr, health string }{
		"no port":                 {"", "127.0.0.1"},
		"the same":                {"127.0.0.1:8443", "127.0.0.1:8443"},
		"that of Addr unless set": {"", "127.0.0.1:8443"},
	} {
		cfg := &connectplugin.ServeConfig{Authority: hosttest.NewAuthority(t), Addr: c.addr, HealthAddr: c.health}
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "HealthAddr") ||
			strings.Contains(err.Error(), "host:port") != strings.Contains(err.Error(), "write for example") {
			t.Errorf("%s: %v", name, err)
		}
	}
	var log hosttest.Buffer
	host, err := connectplugin.NewHost(&connectplugin.ServeConfig{
		Authority: hosttest.NewAuthority(t), HealthAddr: taken.Addr().String(), Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), hosttest.Wait)
	defer cancel()
	if err := host.Serve(ctx, hosttest.Listen(t)); err == nil || !strings.Contains(err.Error(), "HealthAddr") {
		t.Errorf("Serve: %v", err)
	}
	if err := host.Shutdown(ctx); err != nil || strings.Contains(log.String(), "shutting down") {
		t.Errorf("%v; a host that never served says %s", err, log.String())
	}
}

// While the calls in flight are drained, a host is alive and not ready.
func TestAudit_USE30_DrainingIsAliveAndNotReady(t *testing.T) {
	t.Parallel()
	host, url := withProbes(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.GracefulShutdownTimeout = hosttest.LoggerPolicy(), time.Minute
	})
	slow := hosttest.NewSlowLogger()
	called := callSlowly(t, host, slow)
	done := make(chan error, 1)
	go func() { done <- host.Shutdown(context.Background()) }()
	client := clients(t)["HTTP/1.1"]
	hosttest.Eventually(t, "not ready", func() bool {
		got, _ := get(t, client, url+"/readyz", "x")
		return got == http.StatusServiceUnavailable
	})
	if got, _ := get(t, client, url+"/healthz", "x"); got != http.StatusOK {
		t.Errorf("alive: %d", got)
	}
	close(slow.Release)
	if err := <-called; err != nil {
		t.Errorf("the call in flight: %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
