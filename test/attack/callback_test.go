package attack_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// byCallback returns how a peer's certificate is verified by whoever takes that into
// his own hands, as go-spiffe does.
func byCallback(ca *hosttest.CA) func([][]byte, [][]*x509.Certificate) error {
	return func(raw [][]byte, chains [][]*x509.Certificate) error {
		if chains != nil {
			return errors.New("verified by somebody else")
		}
		leaf, err := x509.ParseCertificate(raw[0])
		if err != nil {
			return err
		}
		_, err = leaf.Verify(x509.VerifyOptions{Roots: ca.Pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		return err
	}
}

// callbackServer is a server's configuration as go-spiffe's MTLSServerConfig makes it,
// and callbackClient a client's as MTLSClientConfig does.
func callbackServer(ca *hosttest.CA, own *tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, ClientAuth: tls.RequireAnyClientCert, VerifyPeerCertificate: byCallback(ca),
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own, nil },
	}
}

func callbackClient(ca *hosttest.CA, own *tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, VerifyPeerCertificate: byCallback(ca),
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own, nil },
	}
}

func callbackHost(t *testing.T, ca *hosttest.CA, policy *connectplugin.Policy) *hosttest.Host {
	t.Helper()
	own := ca.Certify(t, hosttest.URI(hostID))
	return hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Authority, c.TLS, c.PluginTLS, c.Policy = nil, callbackServer(ca, own), callbackClient(ca, own), policy
	})
}

// Configurations that verify in a callback are used as they are, in every role.
func TestAudit_USE36_ConfigurationsOfGoSPIFFE(t *testing.T) {
	t.Parallel()
	ca, e := hosttest.NewCA(t), &echo{}
	host := callbackHost(t, ca, policyFor(map[string]func(*connectplugin.PluginPolicy){storageID: nil, "api": withCertificates(apiID)}))
	storage := ca.Certify(t, hosttest.URI(storageID))
	host.StartPlugin(t, "storage", func(c *connectplugin.PluginServerConfig) {
		c.Client.TLS, c.Client.Secret, c.TLS = callbackClient(ca, storage), nil, callbackServer(ca, storage)
		c.Services = []connectplugin.PluginService{e.service("echo")}
	})
	api, err := enrol(t, connectplugin.ClientConfig{
		HostURL: host.URL, SelfID: "api", TLS: callbackClient(ca, ca.Certify(t, hosttest.URI(apiID))),
		Metadata: connectplugin.PluginMetadata{Requires: hosttest.Requires("echo")},
	})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := api.Service(t.Context(), "echo", "")
	if err != nil {
		t.Fatal(err)
	}
	wantServed(t, "callbacks", callEcho(t.Context(), conn.HTTPClient(), conn.BaseURL()))
}

// What the callback refuses is nobody, and of what it accepts SPIFFE ids alone are
// believed.
func TestAudit_USE36_CallbacksAreBelievedInSPIFFEIDsOnly(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	host := callbackHost(t, ca, policyFor(map[string]func(*connectplugin.PluginPolicy){"api": withCertificates(apiID, "api.company.example", "api")}))
	for name, c := range map[string]struct {
		cert *tls.Certificate
		ok   bool
	}{
		"SPIFFE id":            {ca.Certify(t, hosttest.URI(apiID)), true},
		"another SPIFFE id":    {ca.Certify(t, hosttest.URI(storageID)), false},
		"of somebody else":     {hosttest.NewCA(t).Certify(t, hosttest.URI(apiID)), false},
		"a DNS name":           {ca.Certify(t, hosttest.DNS("api.company.example")), false},
		"a common name":        {ca.Certify(t, hosttest.CommonName("api")), false},
		"a name that looks so": {ca.Certify(t, hosttest.CommonName(apiID)), false},
	} {
		_, err := enrol(t, connectplugin.ClientConfig{HostURL: host.URL, SelfID: "api", TLS: callbackClient(ca, c.cert)})
		if (err == nil) != c.ok {
			t.Errorf("%s: %v, want accepted: %t", name, err, c.ok)
		}
	}
	if _, err := enrol(t, connectplugin.ClientConfig{HostURL: host.URL, SelfID: "api", TLS: &tls.Config{
		InsecureSkipVerify: true, VerifyPeerCertificate: byCallback(ca),
	}}); err == nil {
		t.Error("nobody enrolled")
	}
}

// Where a host takes any certificate and nothing verifies it, none is believed.
func TestAudit_USE36_UnverifiedCertificatesAreNobodys(t *testing.T) {
	t.Parallel()
	ca, stranger := hosttest.NewCA(t), hosttest.NewCA(t)
	policy := policyFor(map[string]func(*connectplugin.PluginPolicy){"api": withCertificates(apiID)})
	for name, auth := range map[string]tls.ClientAuthType{"asked for": tls.RequestClientCert, "demanded": tls.RequireAnyClientCert} {
		for way, verify := range map[string]func([][]byte, [][]*x509.Certificate) error{
			"nobody verifies": nil, "a callback for what is only asked for": func([][]byte, [][]*x509.Certificate) error { return nil },
		} {
			if auth == tls.RequireAnyClientCert && verify != nil {
				continue // that is how the callback takes over
			}
			host := ca.Start(t, ca.Certify(t, hosttest.Loopback), func(c *connectplugin.ServeConfig) {
				c.TLS.ClientAuth, c.TLS.VerifyPeerCertificate, c.Policy = auth, verify, policy
			})
			cfg := ca.TLS(stranger.Certify(t, hosttest.URI(apiID)))
			if _, err := enrol(t, connectplugin.ClientConfig{HostURL: host.URL, SelfID: "api", TLS: cfg}); !errors.Is(err, connectplugin.ErrHandshakeRefused) {
				t.Errorf("%s, %s: %v", name, way, err)
			}
		}
	}
}

// A provider behind a callback that accepts the whole company is still the one that
// enrolled, and one whose identity the host does not know is nobody.
func TestAudit_USE36_ProvidersBehindACallback(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	storage := ca.Certify(t, hosttest.URI(storageID))
	for name, c := range map[string]struct{ enrols, serves *tls.Certificate }{
		"another answers":        {storage, ca.Certify(t, hosttest.URI(apiID))},
		"a host name answers":    {storage, ca.Certify(t, hosttest.DNS("localhost"), hosttest.Loopback)},
		"a look-alike":           {storage, ca.Certify(t, hosttest.CommonName(storageID))},
		"enrolled without an id": {ca.Certify(t, hosttest.DNS("storage")), storage},
		"enrolled with a secret": {nil, storage},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			own, e := ca.Certify(t, hosttest.URI(hostID), hosttest.Loopback), &echo{}
			proof := withSecret
			if c.enrols != nil {
				proof = withCertificates(storageID, "storage")
			}
			host := ca.Start(t, own, func(s *connectplugin.ServeConfig) {
				s.PluginTLS = callbackClient(ca, own)
				s.Policy = policyFor(map[string]func(*connectplugin.PluginPolicy){"storage": proof, "api": withCertificates(apiID)})
			})
			host.StartPlugin(t, "storage", func(p *connectplugin.PluginServerConfig) {
				p.Client.TLS, p.Client.HostIdentity, p.TLS = ca.TLS(c.enrols), hostID, ca.TLS(c.serves)
				if c.enrols != nil {
					p.Client.Secret = nil
				}
				p.Services = []connectplugin.PluginService{e.service("echo")}
			})
			wantRefused(t, name, callAsAPI(t, host, ca))
			if n := e.calls.Load(); n != 0 {
				t.Errorf("%d calls were served", n)
			}
		})
	}
}

// What cannot be used unchanged is refused in words that say what to change.
func TestAudit_USE36_RefusedConfigurationsSayWhatToChange(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	own := ca.Certify(t, hosttest.URI(hostID))
	_, err := connectplugin.NewHost(&connectplugin.ServeConfig{TLS: callbackServer(ca, own)})
	if !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), "PluginTLS") || !strings.Contains(err.Error(), "MTLSClientConfig") {
		t.Errorf("no PluginTLS: %v", err)
	}
	plugin := connectplugin.PluginServerConfig{
		Client:   connectplugin.ClientConfig{HostURL: "https://127.0.0.1:1", SelfID: "a", TLS: callbackClient(ca, own)},
		Services: []connectplugin.PluginService{(&echo{}).service("echo")},
	}
	if err := plugin.Validate(); !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), "MTLSServerConfig") {
		t.Errorf("no server side: %v", err)
	}
	// One that is chosen for a client cannot be told from one that verifies nothing.
	host := ca.Start(t, ca.Certify(t, hosttest.Loopback), func(c *connectplugin.ServeConfig) {
		c.Policy = connectplugin.OpenPolicy()
		c.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return callbackServer(ca, own), nil }
	})
	if _, err := enrol(t, connectplugin.ClientConfig{HostURL: host.URL, SelfID: "api", TLS: callbackClient(ca, own)}); err == nil {
		t.Error("a chosen configuration with a callback served")
	}
}
