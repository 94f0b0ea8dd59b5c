package recovery_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// journal is a log that can be read while it is written.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

// warnings returns the lines at Warn that hold a text.
func (j *journal) warnings(text string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for line := range strings.Lines(j.buf.String()) {
		if strings.Contains(line, "level=WARN") && strings.Contains(line, text) {
			n++
		}
	}
	return n
}

func (j *journal) has(text string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Contains(j.buf.String(), text)
}

// Where TLS fails both sides say who refused whom and why, and nobody calls that a host
// that is not there yet.
func TestAudit_USE24_BothSidesSayWhyTLSFailed(t *testing.T) {
	t.Parallel()
	ca, other := hosttest.NewCA(t), hosttest.NewCA(t)
	as := func(edits ...func(*x509.Certificate)) []func(*x509.Certificate) {
		return append(edits, hosttest.Loopback, hosttest.DNS("provider"))
	}
	expired := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }
	usage := func(u x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{u} }
	}
	trusting := func(roots *hosttest.CA, cert *tls.Certificate) *tls.Config {
		cfg := roots.TLS(cert)
		cfg.ServerName = "127.0.0.1"
		return cfg
	}
	good := ca.Certify(t, as()...)
	for name, c := range map[string]struct {
		host, plugin   *tls.Config
		refusedByHost  bool
		client, server string // in their logs
	}{
		"another authority's credentials": {
			trusting(ca, good), trusting(other, other.Certify(t, as()...)), false, "authority that is not in TLS.RootCAs; compare ca.crt with the host's, and start this program again", "the peer refuses this side",
		},
		"another authority's certificate": {
			trusting(ca, good), trusting(ca, other.Certify(t, as()...)), true, "as this side sees it, our certificate is of no authority in TLS.RootCAs", "this side refuses the peer's certificate",
		},
		"a server-only certificate": {
			trusting(ca, good), trusting(ca, ca.Certify(t, as(usage(x509.ExtKeyUsageServerAuth))...)), true, "as this side sees it, our certificate is not made for clients", "this side refuses the peer's certificate",
		},
		"an expired certificate": {
			trusting(ca, good), trusting(ca, ca.Certify(t, as(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(-time.Hour) }, expired)...)),
			true, "as this side sees it, our certificate has expired, or is not valid yet", "this side refuses the peer's certificate",
		},
		"a certificate of tomorrow": {
			trusting(ca, good), trusting(ca, ca.Certify(t, as(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })...)),
			true, "as this side sees it, our certificate has expired, or is not valid yet", "this side refuses the peer's certificate",
		},
		"an expired host": {
			trusting(ca, ca.Certify(t, as(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(-time.Hour) }, expired)...)), trusting(ca, good),
			false, "it has expired or is not valid yet; renew it, or compare the clocks", "the peer refuses this side",
		},
		"a host for clients only": {
			trusting(ca, ca.Certify(t, as(usage(x509.ExtKeyUsageClientAuth))...)), trusting(ca, good), false, "not made for servers", "the peer refuses this side",
		},
		"a host of another name": {
			trusting(ca, ca.Certify(t, hosttest.DNS("elsewhere.example"))), trusting(ca, good), false, "not valid for the name", "or its names (ServeConfig.Hosts)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var host, plugin journal
			h := ca.Start(t, good, func(s *connectplugin.ServeConfig) {
				s.Policy, s.TLS, s.Logger = policy(), c.host, host.logger()
				s.TLS.ClientAuth = tls.VerifyClientCertIfGiven
			})
			cfg := &connectplugin.PluginServerConfig{Services: echoServices()}
			cfg.Client = connectplugin.ClientConfig{HostURL: h.URL, SelfID: "provider", Secret: hosttest.Secret, TLS: c.plugin, Logger: plugin.logger()}
			err := connectplugin.ServePlugin(t.Context(), cfg)
			if !errors.Is(err, connectplugin.ErrHostNotTrusted) || errors.Is(err, connectplugin.ErrHandshakeRefused) != c.refusedByHost {
				t.Errorf("%v; want ErrHostNotTrusted, and refused by the host: %t", err, c.refusedByHost)
			}
			if strings.Contains(err.Error(), "did not begin HTTP/2") {
				t.Errorf("%v tells what the refusal broke off", err)
			}
			if plugin.warnings(c.client) != 1 || plugin.has("not there yet") {
				t.Errorf("the plugin logged %s", plugin.buf.String())
			}
			hosttest.Eventually(t, "the host says why", func() bool { return host.warnings(c.server) == 1 })
			saysSoOnce(t, cfg.Client, c.client)
			if n := host.warnings(c.server); n != 1 {
				t.Errorf("the host says %d times why", n)
			}
		})
	}
}

// saysSoOnce has a client fail again and again; one line in its log says why.
func saysSoOnce(t *testing.T, cfg connectplugin.ClientConfig, why string) {
	t.Helper()
	var log journal
	cfg.Logger = log.logger()
	c, err := connectplugin.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	for range 3 {
		if err := c.Connect(t.Context()); !errors.Is(err, connectplugin.ErrHostNotTrusted) {
			t.Errorf("%v", err)
		}
	}
	if n := log.warnings(why); n != 1 {
		t.Errorf("a client says %d times why: %s", n, log.buf.String())
	}
}

// A host names, once in a while for each peer, who speaks no HTTP/2 and who speaks no TLS;
// who only connects and leaves is not worth a warning.
func TestAudit_USE24_AHostNamesPeersThatSpeakSomethingElse(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		say  func(*hosttest.Host, string)
		want string
	}{
		"no ALPN": {func(h *hosttest.Host, addr string) {
			if conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: h.Authority.CertPool()}); err == nil {
				_, _ = conn.Read(make([]byte, 1))
				_ = conn.Close()
			}
		}, "does not offer h2"},
		"HTTP/1.1 alone": {func(h *hosttest.Host, addr string) {
			if conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: h.Authority.CertPool(), NextProtos: []string{"http/1.1"}}); err == nil {
				_ = conn.Close()
			}
		}, "does not offer h2"},
		"plaintext": {func(_ *hosttest.Host, addr string) { say(addr, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") }, "does not begin with TLS"},
		"PROXY":     {func(_ *hosttest.Host, addr string) { say(addr, "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n") }, "PROXY"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log journal
			h := hosttest.Start(t, func(s *connectplugin.ServeConfig) { s.Policy, s.Logger = policy(), log.logger() })
			addr := strings.TrimPrefix(h.URL, "https://")
			say(addr, "")
			for range 20 {
				c.say(h, addr)
			}
			hosttest.Eventually(t, "the host names the peer", func() bool { return log.warnings(c.want) > 0 })
			if n := log.warnings("TLS failed"); n != 1 {
				t.Errorf("%d warnings of 20 failures of one peer, want 1: %s", n, log.buf.String())
			}
			h.Enrol(t, "provider", func(c *connectplugin.ClientConfig) { c.Metadata.Provides = hosttest.Provides(echoType) })
		})
	}
}

// say says one thing and leaves.
func say(addr, what string) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	_, _ = conn.Write([]byte(what))
	_ = conn.SetReadDeadline(time.Now().Add(time.Second))
	if what != "" {
		_, _ = conn.Read(make([]byte, 1))
	}
	_ = conn.Close()
}

// Who speaks TLS to a plaintext host is told so, and the other way about.
func TestAudit_USE24_PlaintextAgainstTLS(t *testing.T) {
	t.Parallel()
	h := hosttest.Start(t, func(s *connectplugin.ServeConfig) {
		s.Authority, s.TLS, s.AllowInsecure, s.Policy = nil, nil, true, policy()
	})
	c, err := connectplugin.NewClient(connectplugin.ClientConfig{
		HostURL: "https://" + strings.TrimPrefix(h.URL, "http://"), SelfID: "provider", Secret: hosttest.Secret, Logger: hosttest.Logger(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Connect(t.Context()); !errors.Is(err, connectplugin.ErrHostNotTrusted) || !strings.Contains(err.Error(), "does not speak TLS") {
		t.Errorf("%v", err)
	}

	secure := start(t, nil)
	plain, err := connectplugin.NewClient(connectplugin.ClientConfig{
		HostURL: "http://" + strings.TrimPrefix(secure.URL, "https://"), AllowInsecure: true, SelfID: "provider", Logger: hosttest.Logger(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = plain.Close() })
	if err := plain.Connect(t.Context()); !errors.Is(err, connectplugin.ErrHostNotTrusted) || !strings.Contains(err.Error(), "write https://") {
		t.Errorf("%v", err)
	}
}

// A plugin that runs when its host comes back with another authority stays and says why; one that starts then ends. Its
// authorities are those that it read when it started: with new credentials it has to be started again.
func TestAudit_USE24_ARunningPluginOutlivesAnotherAuthority(t *testing.T) {
	t.Parallel()
	reserved := hosttest.Listen(t)
	addr, dir := reserved.Addr().String(), filepath.Join(t.TempDir(), "provider")
	_ = reserved.Close()
	serve := func(authority *connectplugin.Authority) (host *connectplugin.Host, stop func()) {
		host, err := connectplugin.NewHost(&connectplugin.ServeConfig{
			Addr: addr, Authority: authority, Policy: policy(), Logger: hosttest.Logger(t), GracefulShutdownTimeout: time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		served := make(chan error, 1)
		go func() { served <- host.ListenAndServe(ctx) }()
		hosttest.Eventually(t, "the host serves", func() bool { return host.Addr() != "" })
		return host, func() { cancel(); <-served }
	}
	config := func(log *journal) *connectplugin.PluginServerConfig {
		creds, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: dir, Logger: log.logger()})
		if err != nil {
			t.Fatal(err)
		}
		return &connectplugin.PluginServerConfig{Services: echoServices(), Client: connectplugin.ClientConfig{
			HostURL: "https://" + addr, SelfID: "provider", Secret: hosttest.Secret, TLS: creds, Logger: log.logger(),
		}}
	}
	former, next := hosttest.NewAuthority(t), hosttest.NewAuthority(t)
	if err := former.WriteCredentials(dir, "provider"); err != nil {
		t.Fatal(err)
	}
	host, stop := serve(former)
	var log, fresh journal
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- connectplugin.ServePlugin(ctx, config(&log)) }()
	isThere := func() bool { return len(host.Plugins()) == 1 }
	hosttest.Eventually(t, "the plugin is there", isThere)
	stop()
	host, stop = serve(next)
	defer stop()
	hosttest.Eventually(t, "the plugin says why it does not come", func() bool { return log.warnings("no trust between this side and the host") > 0 })
	if err := connectplugin.ServePlugin(ctx, config(&fresh)); !errors.Is(err, connectplugin.ErrHostNotTrusted) {
		t.Errorf("one that starts now: %v", err)
	}
	if err := errors.Join(os.RemoveAll(dir), next.WriteCredentials(dir, "provider")); err != nil { // of a former authority
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		t.Errorf("the one that ran ended: %v", err)
	default:
	}
	cancel()
	if err := hosttest.Arrival(t, ended); err != nil {
		t.Error(err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	go func() { ended <- connectplugin.ServePlugin(ctx, config(&fresh)) }()
	hosttest.Eventually(t, "the plugin is back", isThere)
	cancel()
	if err := hosttest.Arrival(t, ended); err != nil {
		t.Error(err)
	}
}
