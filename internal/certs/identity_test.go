package certs_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"maps"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/certs"
)

func TestIDRoundTrip(t *testing.T) {
	t.Parallel()

	for want, id := range map[string]certs.ID{
		"spiffe://example.test/host":            {TrustDomain: domain, Role: certs.RoleHost},
		"spiffe://example.test/plugin/Logger_1": {TrustDomain: domain, Role: certs.RolePlugin, Name: "Logger_1"},
		"spiffe://example.test/launch/a.b-c":    {TrustDomain: domain, Role: certs.RoleLaunch, Name: "a.b-c"},
	} {
		if got := id.String(); got != want {
			t.Errorf("String() = %q, want %q", got, want)
		}

		if got, err := certs.ParseID(want); err != nil || got != id {
			t.Errorf("ParseID(%q) = %+v, %v, want %+v", want, got, err, id)
		}
	}
}

func TestParseIDRefuses(t *testing.T) {
	t.Parallel()

	for _, s := range []string{
		"", "host", "https://example.test/host", "spiffe://", "spiffe:///host", "spiffe://example.test",
		"spiffe://example.test/", "spiffe://example.test/host/", "spiffe://example.test/host/x",
		"spiffe://example.test/plugin", "spiffe://example.test/plugin/", "spiffe://example.test/plugin/a/b",
		"spiffe://example.test/plugin/..", "spiffe://example.test/plugin/.", "spiffe://example.test/plugin/a%20b",
		"spiffe://example.test/plugin/a b", "spiffe://example.test/plugin/é", "spiffe://example.test/admin/x",
		"spiffe://Example.test/host", "spiffe://user@example.test/host", "spiffe://example.test:443/host",
		"spiffe://example.test/plugin/a?x", "spiffe://example.test/plugin/a#x",
		"spiffe://" + strings.Repeat("a", 256) + "/host", "spiffe://example.test/plugin/" + strings.Repeat("a", 256),
	} {
		if id, err := certs.ParseID(s); !errors.Is(err, certs.ErrIdentity) {
			t.Errorf("ParseID(%q) = %+v, %v, want ErrIdentity", s, id, err)
		}
	}
}

func FuzzParseID(f *testing.F) {
	f.Add("spiffe://example.test/plugin/logger")
	f.Add("spiffe://example.test/host")
	f.Add("spiffe://example.test/host/")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := certs.ParseID(s)
		if err != nil {
			return
		}

		if got := id.String(); got != s {
			t.Fatalf("ParseID(%q).String() = %q", s, got)
		}

		if uri, err := url.Parse(s); err != nil || uri.String() != s {
			t.Fatalf("url.Parse(%q) = %v, %v", s, uri, err)
		}
	})
}

func TestCertificateIdentity(t *testing.T) {
	t.Parallel()

	web := &url.URL{Scheme: "https", Host: "example.test"}
	subject := pkix.Name{CommonName: "cn"}

	for name, test := range map[string]struct {
		cert *x509.Certificate
		want string
	}{
		"SPIFFE id": {&x509.Certificate{
			URIs: []*url.URL{{Scheme: "spiffe", Host: "example.test", Path: "/plugin/a"}}, DNSNames: []string{"dns"}, Subject: subject,
		}, "spiffe://example.test/plugin/a"},
		"other URIs do not count": {&x509.Certificate{
			URIs: []*url.URL{web}, DNSNames: []string{"dns", "dns2"}, Subject: subject,
		}, "dns"},
		"common name": {&x509.Certificate{Subject: subject}, "cn"},
	} {
		if got := certs.CertificateIdentity(test.cert); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

func TestAudit_AUTH007_CertificateWithoutSubject(t *testing.T) {
	t.Parallel()

	for name, cert := range map[string]*x509.Certificate{
		"nil":        nil,
		"empty":      {},
		"nil URI":    {URIs: []*url.URL{nil}},
		"no subject": {SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{}}},
	} {
		if got := certs.CertificateIdentity(cert); got != "" {
			t.Errorf("%s: identity %q, want none", name, got)
		}

		claims := certs.Claims(cert)
		for _, key := range []string{certs.ClaimOrganization, certs.ClaimOrganizationalUnit, certs.ClaimCommonName} {
			if value, ok := claims[key]; ok {
				t.Errorf("%s: claim %s = %q, want none", name, key, value)
			}
		}
	}

	if got := certs.Claims(&x509.Certificate{Subject: pkix.Name{OrganizationalUnit: []string{"ops"}}}); got[certs.ClaimOrganizationalUnit] != "ops" {
		t.Errorf("the claim beside the missing ones is lost: %v", got)
	}
}

func TestClaims(t *testing.T) {
	t.Parallel()

	got := certs.Claims(&x509.Certificate{
		SerialNumber: big.NewInt(255),
		NotAfter:     time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC),
		Issuer:       pkix.Name{CommonName: "ca"},
		Subject: pkix.Name{
			CommonName: "cn", Organization: []string{"org", "org2"}, OrganizationalUnit: []string{"ou"},
		},
	})
	want := map[string]string{
		"common_name": "cn", "organization": "org", "organizational_unit": "ou",
		"issuer": "CN=ca", "serial": "ff", "not_after": "2030-01-02T03:04:05Z",
	}

	if !maps.Equal(got, want) {
		t.Errorf("Claims = %v, want %v", got, want)
	}
}
