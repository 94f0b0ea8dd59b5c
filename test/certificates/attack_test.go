package certificates_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
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
	addr := impostorURL[len("https://"):]
	board.target.Store(&addr)
	if err := client.ReportHealth(t.Context(), healthy, "", nil); err == nil || impostor.Requests.Load() != 0 {
		t.Errorf("a call to the impostor: %v, %d requests arrived", err, impostor.Requests.Load())
	}
	if err := client.Connect(t.Context()); err == nil || impostor.Requests.Load() != 0 {
		t.Errorf("a renewal at the impostor: %v, %d requests arrived", err, impostor.Requests.Load())
	}
	back := host.Addr()
	board.target.Store(&back)
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

// Where policy names the certificates of a plugin, or the host demands one of
// everybody, nothing else does.
func TestAudit_PROTO42_AUTH006_RequiredCertificates(t *testing.T) {
	t.Parallel()
	const identity = "spiffe://pki.example/api"
	cases := map[string]struct {
		edit  func(*connectplugin.ServeConfig)
		right bool // the plugin's own certificate is accepted
		other bool // any other certificate of the authority is
	}{
		"named in Certificates": {func(c *connectplugin.ServeConfig) {
			c.Policy = hosttest.PolicyOf("api", func(p *connectplugin.PluginPolicy) { p.Certificates = []string{"someone", identity} })
		}, true, false},
		"named in Certificates, unproven allowed": {func(c *connectplugin.ServeConfig) {
			c.Policy = hosttest.PolicyOf("api", func(p *connectplugin.PluginPolicy) {
				p.Certificates, p.AllowUnproven = []string{identity}, true
			})
		}, true, false},
		"policy for the certificate": {func(c *connectplugin.ServeConfig) {
			c.Policy = hosttest.PolicyOf(identity, func(*connectplugin.PluginPolicy) {})
		}, true, false},
		"demanded of everybody": {func(c *connectplugin.ServeConfig) {
			c.Policy = hosttest.PolicyOf("api", func(p *connectplugin.PluginPolicy) { p.AllowUnproven = true })
			c.HandshakeAuth.RequireCertificate = true
		}, true, true},
		"demanded, but of no use as a proof": {func(c *connectplugin.ServeConfig) {
			c.Policy = hosttest.PolicyOf("api", func(*connectplugin.PluginPolicy) {})
			c.HandshakeAuth.RequireCertificate = true
		}, false, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := startPKIHost(t, func(cfg *connectplugin.ServeConfig, _ *hosttest.CA) { c.edit(cfg) })
			for who, w := range map[string]struct {
				cert *tls.Certificate
				ok   bool
			}{
				"its own":                 {host.ca.Issue(t, named(identity)), c.right},
				"another plugin's":        {host.ca.Issue(t, named("spiffe://pki.example/other")), c.other},
				"one without an identity": {host.ca.Issue(t, func(*x509.Certificate) {}), c.other},
				"one that looks alike":    {host.ca.Issue(t, hosttest.CommonName(identity)), false},
				"none":                    {nil, false},
				"a stranger's":            {hosttest.NewCA(t).Issue(t, named(identity)), false},
			} {
				err := host.enrolWith(t, "api", w.cert)
				if (err == nil) != w.ok {
					t.Errorf("certificate %s: %v; want accepted: %t", who, err, w.ok)
				}
				if err != nil && who == "none" && !errors.Is(err, connectplugin.ErrHandshakeRefused) {
					t.Errorf("certificate %s: %v is not a refusal of the host", who, err)
				}
			}
		})
	}
}

// The host's authority names plugins: whoever holds the certificate of one cannot
// be another, even where policy is open to everybody.
func TestAudit_PROTO42_CertificateOfAnotherSelfID(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(connectplugin.OpenPolicy()))
	enrol := func(cfg *tls.Config, selfID string) error {
		_, err := hosttest.EnrolOnce(t.Context(), connectplugin.ClientConfig{HostURL: host.URL, SelfID: selfID, TLS: cfg, Logger: hosttest.Logger(t)})
		return err
	}
	ofA, err := host.Authority.PluginTLS("a")
	if err != nil {
		t.Fatal(err)
	}
	for selfID, ok := range map[string]bool{"a": true, "b": false, "A": false, "a-": false, "host": false, "a.b": false} {
		if err := enrol(ofA, selfID); (err == nil) != ok {
			t.Errorf("the certificate of a, as %s: %v; want accepted: %t", selfID, err, ok)
		}
	}
	if err := enrol(hosttest.HostTLS(t, host), "b"); !errors.Is(err, connectplugin.ErrHandshakeRefused) {
		t.Errorf("the certificate of the host, as b: %v, want a refusal", err)
	}
	if err := enrol(host.StrangerTLS(), "b"); err != nil {
		t.Errorf("no certificate, open policy: %v", err)
	}
	// Another authority of the same name is another authority.
	strange, err := hosttest.NewAuthority(t).PluginTLS("b")
	if err != nil {
		t.Fatal(err)
	}
	strange.RootCAs = host.Authority.CertPool()
	if err := enrol(strange, "b"); err == nil {
		t.Error("the certificate of another authority was accepted")
	}
}

// useStolen tries every way to use a runtime token, and a grant, over an HTTP
// client, and returns what came of each.
func useStolen(t *testing.T, client *http.Client, base, runtimeID, token string, grant *connectpluginv1.CapabilityGrant) map[string]error {
	t.Helper()
	out := map[string]error{}
	header := hosttest.IdentityHeader(runtimeID, token)
	for protocol, opts := range hosttest.Protocols {
		for _, p := range hosttest.Procedures() {
			if !p.IsHandshake() {
				out[p.Path+" over "+protocol] = p.Call(t.Context(), client, base, header, nil, opts...)
			}
		}
		log := func(at string, header http.Header) error {
			req := connect.NewRequest(&loggerv1.LogRequest{})
			maps.Copy(req.Header(), header)
			_, err := loggerv1connect.NewLoggerClient(client, at, opts...).Log(t.Context(), req)
			return err
		}
		out["a route over "+protocol] = log(base+"/services/logger/"+runtimeID, header)
		out["the host's plugin over "+protocol] = log(base, header)
		out["the grant over "+protocol] = log(grant.GetEndpointUrl(), http.Header{"Authorization": {"Bearer " + grant.GetBearerToken()}})
		withID := http.Header{"Authorization": {"Bearer " + grant.GetBearerToken()}, "X-Plugin-Runtime-Id": {runtimeID}}
		out["the grant, as its owner, over "+protocol] = log(grant.GetEndpointUrl(), withID)
		renewal := hosttest.WithCredentials(hosttest.OldRequest("api"), runtimeID, token)
		_, out["a renewal over "+protocol] = connectpluginv1connect.NewHandshakeServiceClient(client, base, opts...).Handshake(t.Context(), renewal)
	}
	return out
}

// A token, or a grant, that was stolen from a plugin with a client certificate is
// of no use without that certificate's key, for any service (RFC 8705).
func TestAudit_PROTO42_TokensAreBoundToTheCertificate(t *testing.T) {
	t.Parallel()
	const identity = "spiffe://pki.example/api"
	host := startPKIHost(t, func(c *connectplugin.ServeConfig, _ *hosttest.CA) {
		c.Policy = hosttest.PolicyOf("api", func(p *connectplugin.PluginPolicy) { p.AllowUnproven = true })
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(hosttest.LoggerCapability(&hosttest.RecordingLogger{}))
		c.Plugins = connectplugin.PluginSet{"logger": hosttest.LoggerPlugin{}}
		c.Impls = map[string]any{"logger": &hosttest.RecordingLogger{}}
		c.Limits.HandshakesPerSecond, c.Limits.HandshakeBurst = 1e6, 1e6
	})
	own := host.ca.Issue(t, named(identity))
	victim, err := connectplugin.NewClient(connectplugin.ClientConfig{HostURL: host.URL, SelfID: "api", TLS: host.client(own), Logger: hosttest.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = victim.Close() })
	if err := victim.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	id, token := victim.RuntimeID(), victim.RuntimeToken()
	resp, err := connectpluginv1connect.NewCapabilityBrokerClient(victim.HTTPClient(), host.URL).
		RequestCapability(t.Context(), connect.NewRequest(&connectpluginv1.RequestCapabilityRequest{CapabilityType: "logger"}))
	if err != nil {
		t.Fatal(err)
	}
	grant := resp.Msg.GetGrant()
	for name, cert := range map[string]*tls.Certificate{
		"no certificate":                    nil,
		"another plugin's certificate":      host.ca.Issue(t, named("spiffe://pki.example/thief")),
		"another key for the same identity": host.ca.Issue(t, named(identity)),
	} {
		for use, err := range useStolen(t, host.http2(t, cert), host.URL, id, token, grant) {
			if connect.CodeOf(err) != connect.CodeUnauthenticated {
				t.Errorf("with %s, %s: %v, want unauthenticated", name, use, err)
			}
		}
	}
	for name, cert := range map[string]*tls.Certificate{"its own": own, "its own, renewed": host.ca.Reissue(t, own)} {
		client := host.http2(t, cert)
		if code := hosttest.ReportWith(t, client, host.URL, id, token); code != 0 {
			t.Errorf("the owner with %s certificate: %v", name, code)
		}
		for use, err := range useStolen(t, client, host.URL, id, token, grant) {
			renewal := strings.HasPrefix(use, "a renewal") // the first takes the token away from the others
			if err != nil && connect.CodeOf(err) == connect.CodeUnauthenticated && !renewal {
				t.Errorf("the owner with %s certificate, %s: %v", name, use, err)
			}
		}
	}
}
