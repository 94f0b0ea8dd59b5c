package attack_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// twoAuthorities starts a host that trusts its own Authority and a company's.
func twoAuthorities(t *testing.T, policy *connectplugin.Policy, edit func(*connectplugin.ServeConfig)) (*hosttest.Host, *hosttest.CA) {
	t.Helper()
	company := hosttest.NewCA(t)
	return hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		cfg, err := c.Authority.HostTLS()
		if err != nil {
			t.Fatal(err)
		}
		cfg.ClientCAs = bothPools(c.Authority, company)
		c.TLS, c.Policy = cfg, policy
		if edit != nil {
			edit(c)
		}
	}), company
}

func bothPools(a *connectplugin.Authority, company *hosttest.CA) *x509.CertPool {
	both := a.CertPool()
	both.AddCert(company.Cert)
	return both
}

// A certificate of another authority among the roots that says to be a plugin, a launch
// or the host is nobody's, whichever way policy is written.
func TestAudit_ATK10_AnotherAuthorityCannotIssuePlugins(t *testing.T) {
	t.Parallel()
	const storage = "spiffe://test.example/plugin/storage"
	policies := map[string]*connectplugin.Policy{
		"open":                 connectplugin.OpenPolicy(),
		"by self id":           policyFor(map[string]func(*connectplugin.PluginPolicy){"storage": nil}),
		"unproven":             policyFor(map[string]func(*connectplugin.PluginPolicy){"storage": unproven}),
		"by its certificate":   policyFor(map[string]func(*connectplugin.PluginPolicy){storage: nil}),
		"names certificates":   policyFor(map[string]func(*connectplugin.PluginPolicy){"storage": withCertificates(storage)}),
		"default, unproven":    {Default: &connectplugin.PluginPolicy{AllowUnproven: true}},
		"default, certificate": {Default: &connectplugin.PluginPolicy{Certificates: []string{storage}}},
	}
	// The configuration that the operator wrote himself checks nothing besides.
	plain := func(c *connectplugin.ServeConfig) { c.TLS.VerifyConnection = nil }
	chosen := func(c *connectplugin.ServeConfig) {
		inner := c.TLS.Clone()
		inner.VerifyConnection = nil
		c.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return inner, nil }
	}
	for name, policy := range policies {
		for way, edit := range map[string]func(*connectplugin.ServeConfig){"of the authority": nil, "plain": plain, "chosen": chosen} {
			t.Run(name+", TLS "+way, func(t *testing.T) {
				t.Parallel()
				host, company := twoAuthorities(t, policy, edit)
				for who, forged := range map[string]func(*x509.Certificate){
					"storage": hosttest.URI(storage), "another plugin": hosttest.URI("spiffe://test.example/plugin/other"),
					"a launch": hosttest.URI("spiffe://test.example/launch/storage"), "the host": hosttest.URI("spiffe://test.example/host"),
					"nobody known": hosttest.URI("spiffe://test.example/ns/web"), "in its common name": hosttest.CommonName(storage),
					"in a DNS name": hosttest.DNS(storage),
				} {
					cfg := host.StrangerTLS()
					cfg.Certificates = []tls.Certificate{*company.Certify(t, forged)}
					if _, err := enrol(t, connectplugin.ClientConfig{HostURL: host.URL, SelfID: "storage", TLS: cfg}); err == nil {
						t.Errorf("a company's certificate for %s enrolled as storage", who)
					}
				}
				own, err := host.Authority.PluginTLS("storage")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := enrol(t, connectplugin.ClientConfig{HostURL: host.URL, SelfID: "storage", TLS: own}); err != nil {
					t.Errorf("storage itself: %v", err)
				}
			})
		}
	}
}

// The company's own names are as good as before.
func TestAudit_ATK10_OtherAuthoritiesSpeakForTheirOwn(t *testing.T) {
	t.Parallel()
	const web = "spiffe://company.example/web"
	host, company := twoAuthorities(t, policyFor(map[string]func(*connectplugin.PluginPolicy){"web": withCertificates(web, "web.company.example")}), nil)
	for who, edit := range map[string]func(*x509.Certificate){"SPIFFE id": hosttest.URI(web), "DNS name": hosttest.DNS("web.company.example")} {
		cfg := host.StrangerTLS()
		cfg.Certificates = []tls.Certificate{*company.Certify(t, edit)}
		if _, err := enrol(t, connectplugin.ClientConfig{HostURL: host.URL, SelfID: "web", TLS: cfg}); err != nil {
			t.Errorf("%s: %v", who, err)
		}
	}
	// Nor does a certificate that names nobody in the trust domain become a plugin of it.
	cfg := host.StrangerTLS()
	cfg.Certificates = []tls.Certificate{*company.Certify(t, hosttest.URI(web+"/x"))}
	if _, err := enrol(t, connectplugin.ClientConfig{HostURL: host.URL, SelfID: "web", TLS: cfg}); !errors.Is(err, connectplugin.ErrHandshakeRefused) {
		t.Errorf("another name of the company: %v", err)
	}
}

// Who answers for a plugin shows a certificate of the Authority, even where the host
// dials plugins with a configuration that trusts others, too.
func TestAudit_ATK10_AnotherAuthorityCannotAnswerForAPlugin(t *testing.T) {
	t.Parallel()
	policy := policyFor(map[string]func(*connectplugin.PluginPolicy){"storage": withSecret, "api": withSecret})
	for name, genuine := range map[string]bool{"the authority's": true, "the company's": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host, company := twoAuthorities(t, policy, func(c *connectplugin.ServeConfig) {
				dial, err := c.Authority.HostTLS()
				if err != nil {
					t.Fatal(err)
				}
				dial.RootCAs, dial.VerifyConnection = c.TLS.ClientCAs, nil
				c.PluginTLS = dial
			})
			e := &echo{}
			host.StartPlugin(t, "storage", func(c *connectplugin.PluginServerConfig) {
				c.Services = []connectplugin.PluginService{e.service("echo")}
				if !genuine {
					c.TLS = c.Client.TLS.Clone()
					c.TLS.GetCertificate = nil
					c.TLS.Certificates = []tls.Certificate{*company.Certify(t, hosttest.URI("spiffe://test.example/plugin/storage"), hosttest.Loopback)}
				}
			})
			errs := callThrough(t, host)
			if genuine {
				wantServed(t, name, errs)
				return
			}
			wantRefused(t, name, errs, connect.CodeUnavailable)
			if n := e.calls.Load(); n != 0 {
				t.Errorf("%d calls were served by the impostor", n)
			}
		})
	}
}

// callThrough calls the echo service through the host as "api".
func callThrough(t *testing.T, host *hosttest.Host) map[string]error {
	t.Helper()
	api := host.Enrol(t, "api", func(c *connectplugin.ClientConfig) { c.Metadata.Requires = hosttest.Requires("echo") })
	conn, err := api.Service(t.Context(), "echo", "")
	if err != nil {
		t.Fatal(err)
	}
	return callEcho(t.Context(), conn.HTTPClient(), conn.BaseURL())
}

// Nor is another authority's certificate for the host good towards plugins and clients
// that trust that authority, too: in the plugin's process, from files, without a
// certificate.
func TestAudit_ATK10_AnotherAuthorityCannotBeTheHost(t *testing.T) {
	t.Parallel()
	authority, company := hosttest.NewAuthority(t), hosttest.NewCA(t)
	both := bothPools(authority, company)
	inProcess, err := authority.PluginTLS("storage")
	if err != nil {
		t.Fatal(err)
	}
	inProcess.RootCAs = both
	bare := authority.ClientTLS()
	bare.RootCAs = both
	files := credentialsOfBoth(t, authority, company)
	for name, cfg := range map[string]*tls.Config{"in process": inProcess, "from files": files, "without a certificate": bare} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			forged := company.Certify(t, hosttest.URI("spiffe://test.example/host"), hosttest.Loopback)
			impostor := company.Start(t, forged, func(c *connectplugin.ServeConfig) { c.Policy = connectplugin.OpenPolicy() })
			if _, err := enrol(t, connectplugin.ClientConfig{HostURL: impostor.URL, SelfID: "storage", TLS: cfg}); err == nil {
				t.Error("enrolled with an impostor")
			}
			host := hosttest.Start(t, func(c *connectplugin.ServeConfig) { c.Authority, c.Policy = authority, connectplugin.OpenPolicy() })
			if _, err := enrol(t, connectplugin.ClientConfig{HostURL: host.URL, SelfID: "storage", TLS: cfg}); err != nil {
				t.Errorf("the host itself: %v", err)
			}
		})
	}
}
