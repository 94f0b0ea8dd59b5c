package certificates_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A host that pins a plugin's key accepts no other, however valid its certificate.
func TestAudit_GAPPINNING_HostPinsThePlugin(t *testing.T) {
	t.Parallel()
	const identity = "spiffe://pki.example/api"
	var pinnedCert *tls.Certificate
	host := startPKIHost(t, func(c *connectplugin.ServeConfig, ca *hosttest.CA) {
		pinnedCert = ca.Issue(t, named(identity))
		digest := certs.PinOf(pinnedCert.Leaf)
		c.Policy = hosttest.PolicyOf("api", func(p *connectplugin.PluginPolicy) { p.PinnedKeys = []string{pinOf(pinnedCert)} })
		c.Policy.Plugins["hex"] = connectplugin.PluginPolicy{PinnedKeys: []string{hex.EncodeToString(digest[:])}}
		c.Policy.Plugins["open"] = connectplugin.PluginPolicy{PinnedKeys: []string{pinOf(pinnedCert)}, AllowUnproven: true}
	})
	for name, c := range map[string]struct {
		cert *tls.Certificate
		ok   bool
	}{
		"the pinned key":                        {pinnedCert, true},
		"the pinned key, certificate renewed":   {host.ca.Reissue(t, pinnedCert), true},
		"another key for the same identity":     {host.ca.Issue(t, named(identity)), false},
		"another key for another identity":      {host.ca.Issue(t, named("spiffe://pki.example/other")), false},
		"the key of the host":                   {host.cert, false},
		"no certificate":                        {nil, false},
		"the same identity of a strange issuer": {hosttest.NewCA(t).Issue(t, named(identity)), false},
	} {
		for _, selfID := range []string{"api", "hex", "open"} {
			if err := host.enrolWith(t, selfID, c.cert); (err == nil) != c.ok {
				t.Errorf("%s as %s: %v; want accepted: %t", name, selfID, err, c.ok)
			}
		}
	}
}

// switchboard passes TCP connections on to one of two addresses.
type switchboard struct {
	addr   string
	target atomic.Pointer[string]

	mu   sync.Mutex
	open []net.Conn
}

// turn leads to another target from now on, and ends the connections that there are.
func (s *switchboard) turn(target string) {
	s.target.Store(&target)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.open {
		_ = c.Close()
	}
	s.open = nil
}

func startSwitchboard(t *testing.T, target string) *switchboard {
	t.Helper()
	l := hosttest.Listen(t)
	s := &switchboard{addr: l.Addr().String()}
	s.target.Store(&target)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.open = append(s.open, conn)
			s.mu.Unlock()
			go s.pass(ctx, conn)
		}
	}()
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		<-done
	})
	return s
}

func (s *switchboard) pass(ctx context.Context, from net.Conn) {
	defer func() { _ = from.Close() }()
	to, err := (&net.Dialer{}).DialContext(ctx, "tcp", *s.target.Load())
	if err != nil {
		return
	}
	defer func() { _ = to.Close() }()
	defer context.AfterFunc(ctx, func() { _, _ = from.Close(), to.Close() })()
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(from, to)
		_ = from.Close()
	}()
	_, _ = io.Copy(to, from)
	_ = to.Close()
	<-back
}

// A client that pins the host's key sends nothing to another, neither in the
// handshake nor later, however valid its certificate.
func TestAudit_GAPPINNING_ClientPinsTheHost(t *testing.T) {
	t.Parallel()
	host := startPKIHost(t, func(c *connectplugin.ServeConfig, _ *hosttest.CA) {
		c.Policy = hosttest.PolicyOf("api", func(p *connectplugin.PluginPolicy) { p.AllowUnproven = true })
	})
	impostor := &hosttest.RecordingServer{}
	impostorCert := host.ca.Issue(t, named("spiffe://pki.example/the-host"))
	impostorURL := hosttest.ServeTLS(t, &tls.Config{Certificates: []tls.Certificate{*impostorCert}}, impostor)
	board := startSwitchboard(t, host.Addr())
	config := func(pins ...string) connectplugin.ClientConfig {
		return connectplugin.ClientConfig{
			HostURL: "https://" + board.addr, SelfID: "api", TLS: host.client(nil), PinnedKeys: pins, Logger: hosttest.Logger(t),
		}
	}
	for name, c := range map[string]struct {
		pins []string
		ok   bool
	}{
		"the host's key":         {[]string{pinOf(host.cert)}, true},
		"one of several":         {[]string{pinOf(impostorCert), pinOf(host.cert)}, true},
		"the authority's key":    {[]string{certs.PinOf(host.ca.Cert).String()}, true},
		"no pin":                 {nil, true},
		"another key":            {[]string{pinOf(impostorCert)}, false},
		"another authority":      {[]string{certs.PinOf(hosttest.NewCA(t).Cert).String()}, false},
		"another key, certified": {[]string{pinOf(host.ca.Issue(t, hosttest.CommonName("x")))}, false},
	} {
		before := len(host.Audit.Events())
		if _, err := hosttest.EnrolOnce(t.Context(), config(c.pins...)); (err == nil) != c.ok {
			t.Errorf("pinned to %s: %v; want accepted: %t", name, err, c.ok)
		}
		if !c.ok && len(host.Audit.Events()) != before {
			t.Errorf("pinned to %s: the client asked all the same", name)
		}
	}

	// The host's place is taken after the handshake: the next connection finds out.
	client, err := connectplugin.NewClient(config(pinOf(host.cert)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	if err := client.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	healthy := connectpluginv1.HealthState_HEALTH_STATE_HEALTHY
	board.turn(impostorURL[len("https://"):])
	if err := client.ReportHealth(t.Context(), healthy, "", nil); err == nil || impostor.Requests.Load() != 0 {
		t.Errorf("a call to the impostor: %v, %d requests arrived", err, impostor.Requests.Load())
	}
	if err := client.Connect(t.Context()); err == nil || impostor.Requests.Load() != 0 {
		t.Errorf("a renewal at the impostor: %v, %d requests arrived", err, impostor.Requests.Load())
	}
	board.turn(host.Addr())
	if err := client.ReportHealth(t.Context(), healthy, "", nil); err != nil {
		t.Errorf("at the host: %v", err)
	}
}

// A host that pins a plugin's key, or knows the identity that it enrolled with,
// calls no server with another.
func TestAudit_GAPPINNING_HostDialsThePinnedPluginOnly(t *testing.T) {
	t.Parallel()
	const identity = "spiffe://pki.example/logger"
	for name, c := range map[string]struct {
		pin    bool
		server func(host *pkiHost, own *tls.Certificate) *tls.Certificate
		ok     bool
	}{
		"its own key":          {true, func(_ *pkiHost, own *tls.Certificate) *tls.Certificate { return own }, true},
		"its own key, renewed": {true, func(h *pkiHost, own *tls.Certificate) *tls.Certificate { return h.ca.Reissue(t, own) }, true},
		"another key":          {true, func(h *pkiHost, _ *tls.Certificate) *tls.Certificate { return h.ca.Issue(t, named(identity)) }, false},
		"another key, no pin":  {false, func(h *pkiHost, _ *tls.Certificate) *tls.Certificate { return h.ca.Issue(t, named(identity)) }, true},
		"another plugin":       {false, func(h *pkiHost, _ *tls.Certificate) *tls.Certificate { return h.ca.Issue(t, named(identity+"2")) }, false},
		"nobody's certificate": {false, func(h *pkiHost, _ *tls.Certificate) *tls.Certificate {
			return h.ca.Issue(t, func(*x509.Certificate) {})
		}, false},
		"of a strange authority": {false, func(*pkiHost, *tls.Certificate) *tls.Certificate { return hosttest.NewCA(t).Issue(t, named(identity)) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var own *tls.Certificate
			host := startPKIHost(t, func(cfg *connectplugin.ServeConfig, ca *hosttest.CA) {
				own = ca.Issue(t, named(identity))
				cfg.Policy = hosttest.PolicyOf("logger", func(p *connectplugin.PluginPolicy) {
					if p.Certificates = []string{identity}; c.pin {
						p.PinnedKeys = []string{pinOf(own)}
					}
				})
				cfg.Policy.Plugins["api"] = connectplugin.PluginPolicy{Requires: []string{"logger"}, AllowUnproven: true}
			})
			logger := &hosttest.RecordingLogger{}
			host.StartPlugin(t, "logger", func(p *connectplugin.PluginServerConfig) {
				p.Services = []connectplugin.PluginService{hosttest.LoggerService(logger)}
				p.Client.Secret, p.Client.TLS = nil, host.client(own)
				p.TLS = &tls.Config{Certificates: []tls.Certificate{*c.server(host, own)}, ClientCAs: host.ca.Pool}
			})
			api, err := connectplugin.NewClient(connectplugin.ClientConfig{
				HostURL: host.URL, SelfID: "api", TLS: host.client(nil), Metadata: connectplugin.PluginMetadata{Requires: hosttest.Requires("logger")},
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = api.Close() })
			if err := api.Connect(t.Context()); err != nil {
				t.Fatal(err)
			}
			conn, err := api.Service(t.Context(), "logger", "")
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				_, err = loggerv1connect.NewLoggerClient(conn.HTTPClient(), conn.BaseURL()).Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{}))
				if c.ok && err != nil || !c.ok && connect.CodeOf(err) != connect.CodeUnavailable {
					t.Errorf("call: %v; want success: %t, else unavailable", err, c.ok)
				}
			}
			if lines, _, _ := logger.Got(); (len(lines) > 0) != c.ok {
				t.Errorf("%d calls reached the plugin", len(lines))
			}
		})
	}
}
