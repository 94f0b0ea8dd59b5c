package attack_test

import (
	"context"
	"crypto/tls"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A server of the user's own that trusts a company, too, and checks nothing besides, is told
// nobody's name in the Authority's trust domain by the company.
func TestAudit_ATK10_AServerOfTheUsersOwn(t *testing.T) {
	t.Parallel()
	e := &echo{}
	host, company := twoAuthorities(t, policyFor(map[string]func(*connectplugin.PluginPolicy){"storage": nil}), offersEcho(e))
	cfg := hosttest.HostTLS(t, host)
	cfg.ClientCAs, cfg.VerifyConnection = bothPools(host.Authority, company), nil
	base := hosttest.ServeTLS(t, cfg, host.Handler())
	call := func(certificate *tls.Certificate) map[string]error {
		show := host.StrangerTLS()
		show.Certificates = []tls.Certificate{*certificate}
		return callEcho(t.Context(), hosttest.HTTPClient(t, show), base)
	}
	for _, forged := range []string{"spiffe://test.example/host", "spiffe://test.example/ns/web", "spiffe://test.example/plugin/storage"} {
		wantRefused(t, forged, call(company.Certify(t, hosttest.URI(forged))), connect.CodeUnauthenticated)
	}
	if n := e.calls.Load(); n != 0 {
		t.Errorf("%d calls were served", n)
	}
	wantServed(t, "the company's own", call(company.Certify(t, hosttest.URI(oneID))))
}

// Two authorities that were told nothing have trust domains of their own, so that a host which
// trusts both takes none's plugins for the other's.
func TestAudit_ATK10_AuthoritiesAreApartByDefault(t *testing.T) {
	t.Parallel()
	var all [2]*connectplugin.Authority
	for i := range all {
		a, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{})
		if err != nil {
			t.Fatal(err)
		}
		all[i] = a
	}
	if all[0].TrustDomain() == all[1].TrustDomain() {
		t.Fatalf("both have %q", all[0].TrustDomain())
	}
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		cfg, err := all[0].HostTLS()
		if err != nil {
			t.Fatal(err)
		}
		cfg.ClientCAs = all[1].CertPool() // besides, of this one no plugin comes
		c.Authority, c.TLS = all[0], cfg
		c.Policy = policyFor(map[string]func(*connectplugin.PluginPolicy){"storage": nil})
	})
	foreign, err := all[1].PluginTLS("storage")
	if err != nil {
		t.Fatal(err)
	}
	foreign.RootCAs, foreign.VerifyConnection = all[0].CertPool(), nil
	if _, err := enrol(t, connectplugin.ClientConfig{HostURL: host.URL, SelfID: "storage", TLS: foreign}); err == nil {
		t.Error("a plugin of the other authority is a plugin of this one")
	}
}

// What the host itself provides is nobody's who claims the runtime id under which it does.
func TestAudit_OWN1_TheHostsTypesAreItsOwn(t *testing.T) {
	t.Parallel()
	open := connectplugin.OpenPolicy()
	open.AllowMultiple = nil
	host := hosttest.Start(t, hosttest.WithPolicy(open))
	_, err := host.Registry().RegisterService(t.Context(), hosttest.InProcess("internal", &connectpluginv1.RegisterServiceRequest{ServiceType: "store", Version: "1.0.0"}))
	if err != nil {
		t.Fatal(err)
	}
	for _, selfID := range []string{"internal", "another"} {
		c := host.Enrol(t, selfID, func(c *connectplugin.ClientConfig) {
			c.Secret, c.Metadata.Provides = nil, hosttest.Provides("store", "mine")
		})
		if _, err := hosttest.Register(t, c, "store", "1.0.0"); connect.CodeOf(err) != connect.CodeAlreadyExists {
			t.Errorf("%s registered the host's type: %v", selfID, err)
		}
		if selfID != "internal" {
			continue
		}
		if _, err := hosttest.Register(t, c, "mine", "1.0.0"); err != nil {
			t.Errorf("%s, a type of its own: %v", selfID, err)
		}
	}
	_, err = host.Registry().RegisterService(t.Context(), hosttest.InProcess("internal", &connectpluginv1.RegisterServiceRequest{ServiceType: "store", Version: "1.1.0"}))
	if err != nil {
		t.Errorf("the host itself: %v", err)
	}
}

// A registration that meets its narrowing is not left over. Here the operator narrows the
// plugin when its earlier life ends, which is in the midst of its registration.
func TestAudit_OWN2_ANarrowingMeetsARegistration(t *testing.T) {
	t.Parallel()
	var onEnd atomic.Pointer[func()]
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = policyFor(map[string]func(*connectplugin.PluginPolicy){"storage": withSecret})
		c.Audit = func(e connectplugin.AuditEvent) {
			if f := onEnd.Load(); f != nil && e.Kind == connectplugin.AuditEnded {
				(*f)()
			}
		}
	})
	enrol := func() (*connectplugin.Client, func(serviceType string) error) {
		c := host.Enrol(t, "storage", func(c *connectplugin.ClientConfig) { c.Metadata.Provides = hosttest.Provides("a", "b") })
		return c, func(serviceType string) error {
			return hosttest.RegisterWith(t, c, &connectpluginv1.RegisterServiceRequest{
				ServiceType: serviceType, Version: "1.0.0", EndpointPath: "/" + serviceType + "/",
				Metadata: map[string]string{"base_url": "https://127.0.0.1:1"},
			})
		}
	}
	_, register := enrol()
	if err := register("b"); err != nil {
		t.Fatal(err)
	}
	second, again := enrol()
	narrowed := false
	narrow := func() {
		narrowed = true
		host.Registry().SetAllowedServices(second.RuntimeID(), []string{"a"})
	}
	onEnd.Store(&narrow)
	err := again("b")
	onEnd.Store(nil)
	if !narrowed {
		t.Fatal("the earlier life did not end")
	}
	if connect.CodeOf(err) != connect.CodePermissionDenied || host.Registered("b", second.RuntimeID()) {
		t.Errorf("what the plugin may not provide is in service: %v", err)
	}
	if err := again("a"); err != nil {
		t.Errorf("what it may: %v", err)
	}
}

// One plugin cannot have all connections of a host, however few calls it makes over them.
func TestAudit_OWN10_OnePluginLeavesConnectionsToOthers(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Rights(map[string][2][]string{"hostile": {}, "honest": {}})
		c.Limits.MaxConnections, c.Limits.MaxConnectionsPerPeer = 24, 6
	})
	hostile := host.Enrol(t, "hostile", nil)
	header := hosttest.IdentityHeader(hostile.RuntimeID(), hostile.RuntimeToken())
	for range 30 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, host.URL+"/connectplugin.v1.PluginLifecycle/ReportHealth", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = header.Clone()
		r.Header.Set("Content-Type", "application/proto")
		if resp, err := host.Stranger(t).Do(r); err == nil { // each on a connection of its own, which stays
			_ = resp.Body.Close()
		}
		cancel()
	}
	cfg := host.ClientConfig(t, "honest")
	cfg.Timeout = 2 * time.Second
	honest, err := connectplugin.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = honest.Close() })
	deadline := time.Now().Add(hosttest.Wait)
	for honest.Connect(t.Context()) != nil {
		if time.Now().After(deadline) {
			t.Fatal("one plugin has all connections")
		}
	}
}
