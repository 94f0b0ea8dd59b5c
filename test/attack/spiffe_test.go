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

const (
	hostID    = "spiffe://company.example/connectplugin/host"
	storageID = "spiffe://company.example/ns/default/sa/storage"
	apiID     = "spiffe://company.example/ns/default/sa/api"
)

// strict are names that the SPIFFE standard does not allow beside the one that does.
var strict = map[string]func(id string) func(*x509.Certificate){
	"two ids":           func(id string) func(*x509.Certificate) { return hosttest.URI(id, id+"/x") },
	"another URI":       func(id string) func(*x509.Certificate) { return hosttest.URI("https://company.example", id) },
	"trailing slash":    func(id string) func(*x509.Certificate) { return hosttest.URI(id + "/") },
	"escape":            func(id string) func(*x509.Certificate) { return hosttest.URI(id + "%61") },
	"empty segment":     func(id string) func(*x509.Certificate) { return hosttest.URI(id + "//a") },
	"dot segment":       func(id string) func(*x509.Certificate) { return hosttest.URI(id + "/../a") },
	"query":             func(id string) func(*x509.Certificate) { return hosttest.URI(id + "?a") },
	"upper-case domain": func(string) func(*x509.Certificate) { return hosttest.URI("spiffe://Company.example/a") },
	"port":              func(string) func(*x509.Certificate) { return hosttest.URI("spiffe://company.example:1/a") },
	"no path":           func(string) func(*x509.Certificate) { return hosttest.URI("spiffe://company.example") },
	"common name":       hosttest.CommonName,
	"DNS name":          func(id string) func(*x509.Certificate) { return hosttest.DNS(id) },
}

// spiffeHost is a host whose certificate has no host name, and whose plugins have
// SPIFFE ids of a company.
func spiffeHost(t *testing.T, ca *hosttest.CA) *hosttest.Host {
	t.Helper()
	return ca.Start(t, ca.Certify(t, hosttest.URI(hostID)), func(c *connectplugin.ServeConfig) {
		c.Policy = policyFor(map[string]func(*connectplugin.PluginPolicy){storageID: nil, "api": withCertificates(apiID)})
	})
}

// serveStorage starts a plugin that enrols with one certificate and serves with another,
// nil for the same.
func serveStorage(t *testing.T, host *hosttest.Host, ca *hosttest.CA, e *echo, serves *tls.Certificate) {
	t.Helper()
	own := ca.Certify(t, hosttest.URI(storageID))
	host.StartPlugin(t, "storage", func(c *connectplugin.PluginServerConfig) {
		c.Client.TLS, c.Client.Secret, c.Client.HostIdentity = ca.TLS(own), nil, hostID
		if serves != nil {
			c.TLS = ca.TLS(serves)
		}
		c.Services = []connectplugin.PluginService{e.service("echo")}
	})
}

func callAsAPI(t *testing.T, host *hosttest.Host, ca *hosttest.CA) map[string]error {
	t.Helper()
	api, err := enrol(t, connectplugin.ClientConfig{
		HostURL: host.URL, SelfID: "api", TLS: ca.TLS(ca.Certify(t, hosttest.URI(apiID))), HostIdentity: hostID,
		Metadata: connectplugin.PluginMetadata{Requires: hosttest.Requires("echo")},
	})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := api.Service(t.Context(), "echo", "")
	if err != nil {
		t.Fatal(err)
	}
	return callEcho(t.Context(), conn.HTTPClient(), conn.BaseURL())
}

// Host, provider and caller have no other name than a SPIFFE id, and no Authority.
func TestAudit_USE36_SPIFFEIDsAreNamesEnough(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	host, e := spiffeHost(t, ca), &echo{}
	serveStorage(t, host, ca, e, nil)
	wantServed(t, "SPIFFE ids only", callAsAPI(t, host, ca))
	// Without names in its certificate the host is trusted by none but those that know its id.
	_, err := enrol(t, connectplugin.ClientConfig{HostURL: host.URL, SelfID: "api", TLS: ca.TLS(ca.Certify(t, hosttest.URI(apiID)))})
	if err == nil {
		t.Error("a host without a name was believed by a client that names none")
	}
}

// Nobody but the one that enrolled answers for a provider without a host name.
func TestAudit_USE36_ProvidersAreKnownByTheirSPIFFEID(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	for name, cert := range map[string]*tls.Certificate{
		"another id":       ca.Certify(t, hosttest.URI(storageID+"/x")),
		"a host name":      ca.Certify(t, hosttest.DNS("localhost"), hosttest.Loopback),
		"another company":  hosttest.NewCA(t).Certify(t, hosttest.URI(storageID), hosttest.Loopback),
		"as a common name": ca.Certify(t, hosttest.CommonName(storageID), hosttest.Loopback),
		"two ids":          ca.Certify(t, hosttest.URI(storageID, storageID+"/x"), hosttest.Loopback),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host, e := spiffeHost(t, ca), &echo{}
			serveStorage(t, host, ca, e, cert)
			wantRefused(t, name, callAsAPI(t, host, ca), connect.CodeUnavailable)
			if n := e.calls.Load(); n != 0 {
				t.Errorf("%d calls reached it", n)
			}
		})
	}
}

// A caller is who its certificate says in the spelling of the standard, or nobody.
func TestAudit_USE36_CallersAreReadStrictly(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	host := ca.Start(t, ca.Certify(t, hosttest.URI(hostID)), func(c *connectplugin.ServeConfig) {
		c.Policy = connectplugin.OpenPolicy()
	})
	try := func(edit func(*x509.Certificate)) error {
		_, err := enrol(t, connectplugin.ClientConfig{HostURL: host.URL, SelfID: "api", TLS: ca.TLS(ca.Certify(t, edit)), HostIdentity: hostID})
		return err
	}
	for name, edit := range strict {
		if err := try(edit(apiID)); err == nil {
			t.Errorf("%s: enrolled", name)
		}
	}
	for name, edit := range map[string]func(*x509.Certificate){
		"SPIFFE id": hosttest.URI(apiID), "host name": hosttest.DNS("api.company.example"), "common name": hosttest.CommonName("api"),
		"another kind of URI": hosttest.URI("https://company.example/a/"), "no name": func(*x509.Certificate) {},
	} {
		if err := try(edit); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The host is who the client names, in the spelling of the standard.
func TestAudit_USE36_HostsAreReadStrictly(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	names := map[string]func(*x509.Certificate){"another id": hosttest.URI(hostID + "/x"), "host names": hosttest.DNS("localhost")}
	for name, edit := range strict {
		names[name] = edit(hostID)
	}
	for name, edit := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := ca.Start(t, ca.Certify(t, edit, hosttest.Loopback), func(c *connectplugin.ServeConfig) { c.Policy = connectplugin.OpenPolicy() })
			if _, err := enrol(t, connectplugin.ClientConfig{HostURL: host.URL, SelfID: "api", TLS: ca.TLS(nil), HostIdentity: hostID}); err == nil {
				t.Error("believed")
			}
		})
	}
	foreign := hosttest.NewCA(t)
	host := foreign.Start(t, foreign.Certify(t, hosttest.URI(hostID)), func(c *connectplugin.ServeConfig) { c.Policy = connectplugin.OpenPolicy() })
	if _, err := enrol(t, connectplugin.ClientConfig{HostURL: host.URL, SelfID: "api", TLS: ca.TLS(nil), HostIdentity: hostID}); err == nil {
		t.Error("the same id of another company was believed")
	}
	// With an Authority it is the same id as ever.
	own := hosttest.Start(t, func(c *connectplugin.ServeConfig) { c.Policy = connectplugin.OpenPolicy() })
	cfg := connectplugin.ClientConfig{HostURL: own.URL, SelfID: "api", TLS: own.StrangerTLS(), HostIdentity: own.Authority.HostIdentity()}
	if _, err := enrol(t, cfg); err != nil {
		t.Errorf("HostIdentity with an Authority: %v", err)
	}
}

// Any other identity is demanded besides the host's name, not in its place.
func TestAudit_USE36_OtherIdentitiesOfTheHost(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	for name, c := range map[string]struct {
		names    []func(*x509.Certificate)
		identity string
		ok       bool
	}{
		"right":              {[]func(*x509.Certificate){hosttest.DNS("host.example"), hosttest.Loopback}, "host.example", true},
		"common name":        {[]func(*x509.Certificate){hosttest.CommonName("the host"), hosttest.Loopback}, "the host", true},
		"another":            {[]func(*x509.Certificate){hosttest.DNS("other.example"), hosttest.Loopback}, "host.example", false},
		"not the first name": {[]func(*x509.Certificate){hosttest.DNS("other.example", "host.example"), hosttest.Loopback}, "host.example", false},
		"another address":    {[]func(*x509.Certificate){hosttest.DNS("host.example")}, "host.example", false},
	} {
		host := ca.Start(t, ca.Certify(t, c.names...), func(s *connectplugin.ServeConfig) { s.Policy = connectplugin.OpenPolicy() })
		_, err := enrol(t, connectplugin.ClientConfig{HostURL: host.URL, SelfID: "api", TLS: ca.TLS(nil), HostIdentity: c.identity})
		if (err == nil) != c.ok {
			t.Errorf("%s: %v, want accepted: %t", name, err, c.ok)
		}
	}
}

// Names that can be nobody's are mistakes, wherever they are written.
func TestAudit_USE36_MistakenIdentitiesAreRefused(t *testing.T) {
	t.Parallel()
	for _, identity := range []string{"*", "spiffe://Company.example/a", "spiffe://company.example", "SPIFFE://company.example/a", "spiffe://company.example/a/"} {
		client := connectplugin.ClientConfig{HostURL: "https://127.0.0.1:1", SelfID: "a", HostIdentity: identity}
		if err := client.Validate(); !errors.Is(err, connectplugin.ErrInvalidConfig) {
			t.Errorf("ClientConfig.HostIdentity %q: %v", identity, err)
		}
		client.HostIdentity = ""
		plugin := connectplugin.PluginServerConfig{Client: client, HostIdentity: identity}
		if err := plugin.Validate(); !errors.Is(err, connectplugin.ErrInvalidConfig) {
			t.Errorf("PluginServerConfig.HostIdentity %q: %v", identity, err)
		}
		for field, policy := range map[string]*connectplugin.Policy{
			"Plugins": policyFor(map[string]func(*connectplugin.PluginPolicy){identity: nil}),
			"Certificates": policyFor(map[string]func(*connectplugin.PluginPolicy){
				"a": withCertificates("spiffe://company.example/a", identity),
			}),
		} {
			host := connectplugin.ServeConfig{Authority: hosttest.NewAuthority(t), Policy: policy}
			if err := host.Validate(); !errors.Is(err, connectplugin.ErrInvalidConfig) {
				t.Errorf("Policy.%s %q: %v", field, identity, err)
			}
		}
	}
}

// "*" among a plugin's certificates would let whoever has a certificate be that plugin.
func TestAudit_ATK19_AnyCertificateIsNoProof(t *testing.T) {
	t.Parallel()
	anyone := withCertificates("*")
	policies := map[string]*connectplugin.Policy{
		"one plugin":   policyFor(map[string]func(*connectplugin.PluginPolicy){"a": anyone}),
		"beside names": policyFor(map[string]func(*connectplugin.PluginPolicy){"a": withCertificates(storageID, "*")}),
		"unproven": policyFor(map[string]func(*connectplugin.PluginPolicy){
			"a": func(p *connectplugin.PluginPolicy) { p.AllowUnproven, p.Certificates = true, []string{"*"} },
		}),
		"default": {Default: &connectplugin.PluginPolicy{AllowUnproven: true, Certificates: []string{"*"}}},
		"empty":   policyFor(map[string]func(*connectplugin.PluginPolicy){"a": withCertificates("")}),
	}
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = policyFor(map[string]func(*connectplugin.PluginPolicy){"a": withCertificates("spiffe://test.example/plugin/a")})
	})
	for name, policy := range policies {
		cfg := connectplugin.ServeConfig{Authority: host.Authority, Policy: policy}
		if err := cfg.Validate(); !errors.Is(err, connectplugin.ErrInvalidConfig) {
			t.Errorf("%s: Validate: %v", name, err)
		}
		if _, err := connectplugin.NewHost(&cfg); !errors.Is(err, connectplugin.ErrInvalidConfig) {
			t.Errorf("%s: NewHost: %v", name, err)
		}
		if err := host.SetPolicy(policy); !errors.Is(err, connectplugin.ErrInvalidConfig) {
			t.Errorf("%s: SetPolicy: %v", name, err)
		}
	}
	own, err := host.Authority.PluginTLS("a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := enrol(t, connectplugin.ClientConfig{HostURL: host.URL, SelfID: "a", TLS: own}); err != nil {
		t.Errorf("the one that is named: %v", err)
	}
	if _, err := enrol(t, connectplugin.ClientConfig{HostURL: host.URL, SelfID: "a", TLS: host.StrangerTLS()}); !errors.Is(err, connectplugin.ErrHandshakeRefused) {
		t.Errorf("nobody: %v", err)
	}
}
