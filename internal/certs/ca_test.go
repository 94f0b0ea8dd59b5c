package certs_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/certs"
)

func TestNewCA(t *testing.T) {
	t.Parallel()

	now := time.Now()
	for kind, isKind := range map[certs.KeyType]func(any) bool{
		certs.ECDSA:   func(k any) bool { key, ok := k.(*ecdsa.PublicKey); return ok && key.Params().BitSize == 256 },
		certs.Ed25519: func(k any) bool { _, ok := k.(ed25519.PublicKey); return ok },
	} {
		cert := newCA(t, kind, time.Hour, now).Certificate()
		if !isKind(cert.PublicKey) {
			t.Errorf("key type %d: a %T", kind, cert.PublicKey)
		}

		if !cert.IsCA || cert.MaxPathLen != 0 || !cert.MaxPathLenZero || cert.KeyUsage&x509.KeyUsageCertSign == 0 {
			t.Errorf("constraints: IsCA %t, MaxPathLen %d, KeyUsage %b", cert.IsCA, cert.MaxPathLen, cert.KeyUsage)
		}

		if back := now.Sub(cert.NotBefore); back < certs.ClockSkew || back > certs.ClockSkew+time.Second {
			t.Errorf("backdated by %s", back)
		}

		if got, err := certs.AuthorityDomain(cert); err != nil || got != "example.test" {
			t.Errorf("trust domain %q, %v", got, err)
		}

		if got := certs.CertificateIdentity(cert); got != "" {
			t.Errorf("an authority's certificate is that of %q", got)
		}
	}
}

func TestNewCARefuses(t *testing.T) {
	t.Parallel()

	now := time.Now()

	if _, err := certs.NewCA("Upper", certs.ECDSA, time.Hour, now); !errors.Is(err, certs.ErrIdentity) {
		t.Errorf("upper-case trust domain: %v", err)
	}

	if _, err := certs.NewCA(domain, 9, time.Hour, now); !errors.Is(err, certs.ErrKeyType) {
		t.Errorf("key type: %v", err)
	}

	if _, err := certs.NewCA(domain, certs.ECDSA, 0, now); !errors.Is(err, certs.ErrTTL) {
		t.Errorf("lifetime: %v", err)
	}
}

func TestIssue(t *testing.T) {
	t.Parallel()

	now := time.Now()
	ca := newCA(t, certs.ECDSA, 24*time.Hour, now)
	request := newRequest(t, pluginID("logger"), time.Hour)
	request.Hosts = []string{"localhost", "host.example", "localhost", "127.0.0.1", "::1", "::ffff:127.0.0.1", "0:0:0:0:0:0:0:1"}
	leaf := issue(t, ca, request, now).Leaf

	if got := certs.CertificateIdentity(leaf); got != "spiffe://example.test/plugin/logger" {
		t.Errorf("identity %q", got)
	}

	if !slices.Equal(leaf.DNSNames, []string{"localhost", "host.example"}) || len(leaf.IPAddresses) != 2 ||
		!leaf.IPAddresses[0].Equal(net.IPv4(127, 0, 0, 1)) || !leaf.IPAddresses[1].Equal(net.IPv6loopback) {
		t.Errorf("SANs %v %v", leaf.DNSNames, leaf.IPAddresses)
	}

	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := leaf.Verify(x509.VerifyOptions{
			Roots: ca.Pool(), DNSName: "localhost", KeyUsages: []x509.ExtKeyUsage{usage},
		}); err != nil {
			t.Errorf("usage %d: %v", usage, err)
		}
	}

	if leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature {
		t.Errorf("IsCA %t, KeyUsage %b", leaf.IsCA, leaf.KeyUsage)
	}

	if life := leaf.NotAfter.Sub(now); life > time.Hour || life < time.Hour-time.Second {
		t.Errorf("valid for %s, want an hour", life)
	}

	if long := issue(t, ca, newRequest(t, pluginID("b"), 48*time.Hour), now).Leaf; !long.NotAfter.Equal(ca.Certificate().NotAfter) {
		t.Errorf("outlives its authority: %s", long.NotAfter)
	}
}

func TestSerialsAreRandom(t *testing.T) {
	t.Parallel()

	now := time.Now()
	ca := newCA(t, certs.Ed25519, time.Hour, now)
	request := newRequest(t, pluginID("a"), time.Hour)
	seen, long := make(map[string]bool), 0

	for range 64 {
		serial := issue(t, ca, request, now).Leaf.SerialNumber
		if serial.Cmp(new(big.Int)) <= 0 || seen[serial.String()] {
			t.Fatalf("serial %s is not positive or not new", serial)
		}

		seen[serial.String()] = true

		if serial.BitLen() > 120 {
			long++
		}
	}

	if long < 32 {
		t.Errorf("only %d of 64 serials have more than 120 bits", long)
	}
}

func TestIssueRefuses(t *testing.T) {
	t.Parallel()

	now := time.Now()
	ca := newCA(t, certs.ECDSA, time.Hour, now)

	for name, test := range map[string]struct {
		change func(*certs.Request)
		at     time.Time
		want   error
	}{
		"foreign trust domain": {func(r *certs.Request) { r.ID.TrustDomain = "other.test" }, now, certs.ErrIdentity},
		"unknown role":         {func(r *certs.Request) { r.ID.Role = "root" }, now, certs.ErrIdentity},
		"slash in the name":    {func(r *certs.Request) { r.ID.Name = "a/../host" }, now, certs.ErrIdentity},
		"no name":              {func(r *certs.Request) { r.ID.Name = "" }, now, certs.ErrIdentity},
		"no lifetime":          {func(r *certs.Request) { r.TTL = 0 }, now, certs.ErrTTL},
		"empty host":           {func(r *certs.Request) { r.Hosts = []string{""} }, now, certs.ErrHost},
		"host with port":       {func(r *certs.Request) { r.Hosts = []string{"localhost:80"} }, now, certs.ErrHost},
		"URL":                  {func(r *certs.Request) { r.Hosts = []string{"https://x"} }, now, certs.ErrHost},
		"wild card":            {func(r *certs.Request) { r.Hosts = []string{"*.example"} }, now, certs.ErrHost},
		"empty label":          {func(r *certs.Request) { r.Hosts = []string{"a..b"} }, now, certs.ErrHost},
		"leading dash":         {func(r *certs.Request) { r.Hosts = []string{"-a.b"} }, now, certs.ErrHost},
		"long name":            {func(r *certs.Request) { r.Hosts = []string{strings.Repeat("a.", 127) + "a"} }, now, certs.ErrHost},
		"expired authority":    {func(*certs.Request) {}, now.Add(2 * time.Hour), certs.ErrCA},
	} {
		request := newRequest(t, pluginID("a"), time.Minute)
		test.change(&request)

		if _, err := ca.Issue(request, test.at); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}

// Two authorities that nobody gave a name do not speak for each other's plugins, and one
// that is loaded again speaks for its own.
func TestAudit_ATK10_TrustDomainsDifferByDefault(t *testing.T) {
	t.Parallel()

	now := time.Now()
	seen := map[string]bool{}

	for _, kind := range []certs.KeyType{certs.ECDSA, certs.Ed25519} {
		for range 4 {
			ca, err := certs.NewCA("", kind, time.Hour, now)
			if err != nil {
				t.Fatal(err)
			}

			if seen[ca.TrustDomain()] {
				t.Fatalf("trust domain %q again", ca.TrustDomain())
			}

			seen[ca.TrustDomain()] = true

			loaded, err := certs.ParseCA(ca.CertificatePEM(), caKey(t, ca), now)
			if err != nil || loaded.TrustDomain() != ca.TrustDomain() {
				t.Errorf("loaded: %v, %v, want %q", loaded, err, ca.TrustDomain())
			}
		}
	}
}

// An authority knows what it signed, whatever the certificate of another one says.
func TestAudit_ATK10_IssuedByAnotherAuthority(t *testing.T) {
	t.Parallel()

	now := time.Now()
	own, other := newCA(t, certs.ECDSA, time.Hour, now), newCA(t, certs.ECDSA, time.Hour, now)
	request := newRequest(t, pluginID("a"), time.Minute)

	if !own.Issued(issue(t, own, request, now).Leaf) {
		t.Error("its own certificate is denied")
	}

	if own.Issued(issue(t, other, request, now).Leaf) {
		t.Error("that of another with the same name is believed")
	}
}

// What an authority found out once holds for that certificate alone, to the last bit.
func TestAudit_ATK10_WhatIsRememberedIsOneCertificate(t *testing.T) {
	t.Parallel()

	now := time.Now()
	ca := newCA(t, certs.ECDSA, time.Hour, now)
	leaf := issue(t, ca, newRequest(t, pluginID("a"), time.Minute), now).Leaf

	for name, change := range map[string]func(*x509.Certificate){
		"what is signed": func(c *x509.Certificate) { c.RawTBSCertificate[len(c.RawTBSCertificate)-1] ^= 1 },
		"signature":      func(c *x509.Certificate) { c.Signature[len(c.Signature)-1] ^= 1 },
		"algorithm":      func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA384 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			altered := *leaf
			altered.RawTBSCertificate, altered.Signature = bytes.Clone(leaf.RawTBSCertificate), bytes.Clone(leaf.Signature)
			change(&altered)

			for range 2 {
				if !ca.Issued(leaf) || ca.Issued(&altered) {
					t.Fatalf("its own: %t, altered: %t", ca.Issued(leaf), ca.Issued(&altered))
				}
			}
		})
	}
}

func TestParseCA(t *testing.T) {
	t.Parallel()

	now := time.Now()
	ca := newCA(t, certs.Ed25519, time.Hour, now)
	keyPEM := caKey(t, ca)

	parsed, err := certs.ParseCA(ca.CertificatePEM(), keyPEM, now)
	if err != nil {
		t.Fatalf("ParseCA: %v", err)
	}

	if parsed.TrustDomain() != domain {
		t.Errorf("trust domain %q", parsed.TrustDomain())
	}

	// What the parsed authority issues, the original verifies.
	cert := issue(t, parsed, newRequest(t, pluginID("a"), time.Minute), now)
	server := serveTLS(t, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*cert}})

	if _, err := dialTLS(t.Context(), server, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: ca.Pool()}); err != nil {
		t.Errorf("dial: %v", err)
	}
}

func TestParseCARefuses(t *testing.T) {
	t.Parallel()

	now := time.Now()
	ca, other := newCA(t, certs.ECDSA, time.Hour, now), newCA(t, certs.ECDSA, time.Hour, now)
	request := newRequest(t, pluginID("a"), time.Minute)
	leaf := certs.EncodeCertificates(issue(t, ca, request, now).Certificate...)

	leafKey, err := certs.EncodeKey(request.Key)
	if err != nil {
		t.Fatal(err)
	}

	for name, test := range map[string]struct {
		cert, key []byte
		at        time.Time
		want      error
	}{
		"other key":        {ca.CertificatePEM(), caKey(t, other), now, certs.ErrCA},
		"expired":          {ca.CertificatePEM(), caKey(t, ca), now.Add(2 * time.Hour), certs.ErrCA},
		"not yet valid":    {ca.CertificatePEM(), caKey(t, ca), now.Add(-time.Hour), certs.ErrCA},
		"a leaf":           {leaf, leafKey, now, certs.ErrCA},
		"two certificates": {slices.Concat(ca.CertificatePEM(), leaf), caKey(t, ca), now, certs.ErrCA},
		"no certificate":   {nil, caKey(t, ca), now, certs.ErrPEM},
		"swapped":          {caKey(t, ca), ca.CertificatePEM(), now, certs.ErrPEM},
		"no key":           {ca.CertificatePEM(), nil, now, certs.ErrPEM},
	} {
		if _, err := certs.ParseCA(test.cert, test.key, test.at); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}

func caKey(tb testing.TB, ca *certs.CA) []byte {
	tb.Helper()

	key, err := ca.KeyPEM()
	if err != nil {
		tb.Fatalf("KeyPEM: %v", err)
	}

	return key
}

func BenchmarkIssue(b *testing.B) {
	now := time.Now()
	ca := newCA(b, certs.ECDSA, time.Hour, now)
	request := newRequest(b, pluginID("a"), time.Hour)

	b.ReportAllocs()

	for b.Loop() {
		if _, err := ca.Issue(request, now); err != nil {
			b.Fatal(err)
		}
	}
}
