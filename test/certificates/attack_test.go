package certificates_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"maps"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

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
