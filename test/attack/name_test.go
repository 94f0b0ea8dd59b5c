package attack_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

const (
	oneID   = "spiffe://company.example/one"
	otherID = "spiffe://company.example/other"
)

// namesHost is a host that knows plugins by the identities of a company's certificates.
type namesHost struct {
	*hosttest.Host

	ca *hosttest.CA
}

func startNamesHost(t *testing.T, policy *connectplugin.Policy, edit func(*connectplugin.ServeConfig)) *namesHost {
	t.Helper()
	ca := hosttest.NewCA(t)
	return &namesHost{ca.Start(t, ca.Certify(t, hosttest.URI(hostID), hosttest.Loopback), func(c *connectplugin.ServeConfig) {
		c.Policy = policy
		if edit != nil {
			edit(c)
		}
	}), ca}
}

// config is that of a client with a new certificate.
func (h *namesHost) config(t *testing.T, selfID string, edits ...func(*x509.Certificate)) connectplugin.ClientConfig {
	t.Helper()
	cfg := connectplugin.ClientConfig{HostURL: h.URL, SelfID: selfID, SelfVersion: "1.0.0", TLS: h.ca.TLS(h.ca.Certify(t, edits...))}
	cfg.Metadata.Provides = hosttest.Provides("store", "mine")
	return cfg
}

func (h *namesHost) enrol(t *testing.T, selfID string, edits ...func(*x509.Certificate)) *connectplugin.Client {
	t.Helper()
	c, err := enrol(t, h.config(t, selfID, edits...))
	if err != nil {
		t.Fatalf("%s: %v", selfID, err)
	}
	return c
}

// However many self ids the holder of an identity claims, with however many certificates, it
// has the instances of one plugin.
func TestAudit_ATK01_LimitsCountTheName(t *testing.T) {
	t.Parallel()
	for what, id := range map[string]func(*x509.Certificate){
		oneID: hosttest.URI(oneID), "one.company.example": hosttest.DNS("one.company.example"), "One of the company": hosttest.CommonName("One of the company"),
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			host := startNamesHost(t, policyFor(map[string]func(*connectplugin.PluginPolicy){
				what: func(p *connectplugin.PluginPolicy) { p.MaxInstances = 2 }, otherID: nil,
			}), nil)
			enrolled := 0
			for i := range 8 {
				switch _, err := enrol(t, host.config(t, fmt.Sprint("claim-", i), id)); {
				case err == nil:
					enrolled++
				case connect.CodeOf(err) != connect.CodeResourceExhausted:
					t.Errorf("claim %d: %v", i, err)
				}
			}
			if enrolled != 2 {
				t.Errorf("%d instances, want 2", enrolled)
			}
			host.enrol(t, "claim-0", hosttest.URI(otherID))
		})
	}
}

// A type belongs to the name, and not to the self id that somebody else may claim, too.
func TestAudit_ATK01_TypesBelongToTheName(t *testing.T) {
	t.Parallel()
	host := startNamesHost(t, policyFor(map[string]func(*connectplugin.PluginPolicy){oneID: nil, otherID: nil}), nil)
	owner := host.enrol(t, "storage", hosttest.URI(oneID))
	if _, err := hosttest.Register(t, owner, "store", "1.0.0"); err != nil {
		t.Fatal(err)
	}
	for _, claim := range []string{"storage", "another"} {
		thief := host.enrol(t, claim, hosttest.URI(otherID))
		if _, err := hosttest.Register(t, thief, "store", "1.0.0"); connect.CodeOf(err) != connect.CodeAlreadyExists {
			t.Errorf("registered by another plugin that claims to be %s: %v", claim, err)
		}
		if _, err := hosttest.Register(t, thief, "mine", "1.0.0"); err != nil {
			t.Errorf("a type of its own: %v", err)
		}
	}
	second := host.enrol(t, "whatever", hosttest.URI(oneID))
	if _, err := hosttest.Register(t, second, "store", "1.0.0"); err != nil {
		t.Errorf("a second instance of the owner: %v", err)
	}
}

// Providers, host plugins, capabilities, the audit and the operator are told the name.
func TestAudit_ATK01_OthersAreToldTheName(t *testing.T) {
	t.Parallel()
	s, own := &seen{}, &seen{}
	provider, plugin := &echo{seen: s.note}, &echo{seen: own.note}
	host := startNamesHost(t, policyFor(map[string]func(*connectplugin.PluginPolicy){oneID: nil, otherID: nil}), func(c *connectplugin.ServeConfig) {
		c.Plugins = connectplugin.PluginSet{"echo": hostEcho{plugin}}
		c.Impls = map[string]any{"echo": true}
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(hosttest.NewCapability(plugin.handler(), "echo", "1.0.0"))
	})
	serveAs(t, host, "storage", otherID, provider.service("echo"))
	cfg := host.config(t, "admin", hosttest.URI(oneID))
	cfg.Metadata.Requires = hosttest.Requires("echo")
	caller, err := enrol(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := caller.Service(t.Context(), "echo", "")
	if err != nil {
		t.Fatal(err)
	}
	capability, err := caller.Capability(t.Context(), "echo", "")
	if err != nil {
		t.Fatal(err)
	}
	wantServed(t, "route", callEcho(t.Context(), lying{conn.HTTPClient()}, conn.BaseURL()))
	wantServed(t, "host plugin", callEcho(t.Context(), lying{caller.HTTPClient()}, host.URL))
	wantServed(t, "capability", callEcho(t.Context(), lying{capability.HTTPClient()}, capability.BaseURL()))
	told := slices.Concat(s.callers, own.callers)
	for _, got := range told {
		if got.SelfID != oneID || got.RuntimeID != caller.RuntimeID() {
			t.Errorf("told of %+v", got)
		}
	}
	if len(told) != 3*2*len(protocols) {
		t.Errorf("%d calls were served", len(told))
	}
	for _, header := range slices.Concat(s.headers, own.headers) {
		if got := header.Values("X-Plugin-Caller-Self-Id"); len(got) != 1 || got[0] != oneID {
			t.Errorf("the header says %q", got)
		}
	}
	if strings.Contains(caller.RuntimeID(), "admin") {
		t.Errorf("the runtime id shows the claim: %s", caller.RuntimeID())
	}
	for _, p := range host.Plugins() {
		if p.SelfID != oneID && p.SelfID != otherID {
			t.Errorf("the operator is told of %q", p.SelfID)
		}
	}
	for _, e := range host.Audit.Events() {
		if e.SelfID == "admin" || e.SelfID == "storage" {
			t.Errorf("audit: %+v", e)
		}
	}
}

// Where the operator says which self ids an identity may claim, it claims no others.
func TestAudit_ATK01_SelfIDsThatMayBeClaimed(t *testing.T) {
	t.Parallel()
	may := func(selfIDs ...string) *connectplugin.Policy {
		return policyFor(map[string]func(*connectplugin.PluginPolicy){oneID: func(p *connectplugin.PluginPolicy) { p.SelfIDs = selfIDs }})
	}
	host := startNamesHost(t, may("storage", "cache"), nil)
	if _, err := enrol(t, host.config(t, "admin", hosttest.URI(oneID))); !errors.Is(err, connectplugin.ErrHandshakeRefused) {
		t.Errorf("another self id: %v", err)
	}
	storage, cache := host.enrol(t, "storage", hosttest.URI(oneID)), host.enrol(t, "cache", hosttest.URI(oneID))
	hosttest.SetPolicy(t, host.Host, may("cache"))
	if _, err := hosttest.Register(t, cache, "mine", "1.0.0"); err != nil {
		t.Errorf("one that may still be claimed: %v", err)
	}
	if alive(host, storage.RuntimeID()) {
		t.Error("one that may not be claimed any more lives")
	}
	for field, p := range map[string]*connectplugin.Policy{
		"SelfIDs[0]":             may("no spaces"),
		"Policy.Default.SelfIDs": {Default: &connectplugin.PluginPolicy{SelfIDs: []string{"a"}}},
	} {
		if err := host.SetPolicy(p); !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func alive(host *namesHost, runtimeID string) bool {
	for _, p := range host.Plugins() {
		if p.RuntimeID == runtimeID {
			return true
		}
	}
	return false
}

// A plugin that policy knows by another name from now on begins anew under that.
func TestAudit_ATK01_ANewNameIsANewIdentity(t *testing.T) {
	t.Parallel()
	byCertificate := policyFor(map[string]func(*connectplugin.PluginPolicy){oneID: nil, otherID: nil})
	bySelfID := policyFor(map[string]func(*connectplugin.PluginPolicy){"storage": withCertificates(oneID), otherID: nil})
	host := startNamesHost(t, byCertificate, nil)
	bystander := host.enrol(t, "bystander", hosttest.URI(otherID))
	for name, next := range map[string]*connectplugin.Policy{"storage": bySelfID, oneID: byCertificate} {
		hosttest.SetPolicy(t, host.Host, next)
		c := host.enrol(t, "storage", hosttest.URI(oneID))
		for _, p := range host.Plugins() {
			if p.RuntimeID == c.RuntimeID() && p.SelfID != name {
				t.Errorf("known as %q, want %q", p.SelfID, name)
			}
		}
		other := byCertificate
		if name == oneID {
			other = bySelfID
		}
		hosttest.SetPolicy(t, host.Host, other)
		if alive(host, c.RuntimeID()) {
			t.Errorf("%s lives on under a name that policy does not have", name)
		}
	}
	if !alive(host, bystander.RuntimeID()) {
		t.Error("the bystander ended")
	}
}

// Nobody claims the name of a plugin that is known by its certificate, and another
// authority's certificate is not taken for a self id that the host's own certifies.
func TestAudit_ATK01_NamesAreNobodyElses(t *testing.T) {
	t.Parallel()
	const web = "web.company.example"
	host := startNamesHost(t, policyFor(map[string]func(*connectplugin.PluginPolicy){
		web: func(p *connectplugin.PluginPolicy) { p.SelfIDs = []string{"*"} },
	}), func(c *connectplugin.ServeConfig) {
		c.Policy.Default = &connectplugin.PluginPolicy{AllowUnproven: true}
	})
	for who, edits := range map[string][]func(*x509.Certificate){"nobody": nil, "another": {hosttest.URI(oneID)}} {
		if _, err := enrol(t, host.config(t, web, edits...)); !errors.Is(err, connectplugin.ErrHandshakeRefused) {
			t.Errorf("%s enrolled as %s: %v", who, web, err)
		}
	}
	host.enrol(t, "anything", hosttest.DNS(web))
	host.enrol(t, web, hosttest.DNS(web))
	host.enrol(t, "anything")

	both, company := twoAuthorities(t, policyFor(map[string]func(*connectplugin.PluginPolicy){"storage": nil, oneID: nil}), nil)
	for what, edit := range map[string]func(*x509.Certificate){"DNS name": hosttest.DNS("storage"), "common name": hosttest.CommonName("storage")} {
		for _, claim := range []string{"storage", "anything"} {
			if _, err := enrol(t, companyConfig(t, both, company, claim, edit)); !errors.Is(err, connectplugin.ErrHandshakeRefused) {
				t.Errorf("the company's %s is storage when it claims %s: %v", what, claim, err)
			}
		}
	}
	if _, err := enrol(t, companyConfig(t, both, company, "anything", hosttest.URI(oneID))); err != nil {
		t.Errorf("the company's own: %v", err)
	}
}

func companyConfig(t *testing.T, host *hosttest.Host, company *hosttest.CA, selfID string, edit func(*x509.Certificate)) connectplugin.ClientConfig {
	t.Helper()
	cfg := host.StrangerTLS()
	cfg.Certificates = []tls.Certificate{*company.Certify(t, edit)}
	return connectplugin.ClientConfig{HostURL: host.URL, SelfID: selfID, TLS: cfg}
}

// Who is revoked by name stays out, whatever self id it claims.
func TestAudit_ATK01_ARevokedNameStaysOut(t *testing.T) {
	t.Parallel()
	host := startNamesHost(t, policyFor(map[string]func(*connectplugin.PluginPolicy){oneID: nil, otherID: nil}), nil)
	host.enrol(t, "a", hosttest.URI(oneID))
	host.enrol(t, "b", hosttest.URI(oneID))
	if n := host.RevokeSelf(oneID); n != 2 {
		t.Errorf("%d ended", n)
	}
	for _, claim := range []string{"a", "c"} {
		if _, err := enrol(t, host.config(t, claim, hosttest.URI(oneID))); connect.CodeOf(err) != connect.CodePermissionDenied {
			t.Errorf("back as %s: %v", claim, err)
		}
	}
	host.enrol(t, "a", hosttest.URI(otherID))
	host.Readmit(oneID)
	host.enrol(t, "a", hosttest.URI(oneID))
}

// Two names in two certificates of one key are two plugins: an identity is renewed by its
// own name.
func TestAudit_ATK01_RenewalsKeepTheName(t *testing.T) {
	t.Parallel()
	host := startNamesHost(t, policyFor(map[string]func(*connectplugin.PluginPolicy){oneID: nil, otherID: nil}), nil)
	one := host.ca.Certify(t, hosttest.URI(oneID))
	leaf := *one.Leaf
	leaf.URIs = nil
	hosttest.URI(otherID)(&leaf)
	other := host.ca.Reissue(t, &tls.Certificate{Leaf: &leaf, PrivateKey: one.PrivateKey})
	shake := func(cert *tls.Certificate, id, token string) (*connect.Response[connectpluginv1.HandshakeResponse], error) {
		req := connect.NewRequest(hosttest.OldRequest("storage"))
		if id != "" {
			req = hosttest.WithCredentials(req.Msg, id, token)
		}
		return connectpluginv1connect.NewHandshakeServiceClient(hosttest.HTTPClient(t, host.ca.TLS(cert)), host.URL).Handshake(t.Context(), req)
	}
	first, err := shake(one, "", "")
	if err != nil {
		t.Fatal(err)
	}
	id, token := first.Msg.GetRuntimeId(), first.Msg.GetRuntimeToken()
	if _, err := shake(other, id, token); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("renewed under another name: %v", err)
	}
	again, err := shake(host.ca.Reissue(t, one), id, token)
	if err != nil || again.Msg.GetRuntimeId() != id {
		t.Errorf("renewed with a later certificate: %v, %v", again, err)
	}
}
