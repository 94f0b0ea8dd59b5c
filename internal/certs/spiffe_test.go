package certs_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/certs"
)

// malformedIDs are spellings that the SPIFFE standard does not allow, or that name
// nobody.
var malformedIDs = map[string]string{
	"upper-case scheme":       "SPIFFE://example.test/a",
	"mixed scheme":            "Spiffe://example.test/a",
	"no authority":            "spiffe:/example.test/a",
	"opaque":                  "spiffe:example.test/a",
	"no trust domain":         "spiffe:///a",
	"upper-case domain":       "spiffe://Example.test/a",
	"domain with an escape":   "spiffe://ex%61mple.test/a",
	"domain with a comma":     "spiffe://example,test/a",
	"long domain":             "spiffe://" + strings.Repeat("d", 256) + "/a",
	"port":                    "spiffe://example.test:443/a",
	"empty port":              "spiffe://example.test:/a",
	"user":                    "spiffe://me@example.test/a",
	"empty user":              "spiffe://@example.test/a",
	"trust domain alone":      "spiffe://example.test",
	"no path":                 "spiffe://example.test/",
	"trailing slash":          "spiffe://example.test/a/",
	"empty segment":           "spiffe://example.test/a//b",
	"empty segment at first":  "spiffe://example.test//a",
	"dot segment":             "spiffe://example.test/a/./b",
	"dot segments":            "spiffe://example.test/a/../b",
	"dot segment at last":     "spiffe://example.test/a/..",
	"escape":                  "spiffe://example.test/%61",
	"escaped slash":           "spiffe://example.test/a%2Fb",
	"character":               "spiffe://example.test/a~b",
	"colon":                   "spiffe://example.test/a:b",
	"plus":                    "spiffe://example.test/a+b",
	"query":                   "spiffe://example.test/a?b",
	"empty query":             "spiffe://example.test/a?",
	"fragment":                "spiffe://example.test/a#b",
	"empty fragment":          "spiffe://example.test/a#",
	"too long":                "spiffe://example.test/" + strings.Repeat("a", 2048),
	"backslash in the domain": "spiffe://example.test\\a/b",
}

// goodIDs are spellings that it allows.
var goodIDs = map[string]string{
	"usual":       "spiffe://example.test/ns/default/sa/web",
	"characters":  "spiffe://a_b-c.1/A.b-c_9/...",
	"long":        "spiffe://example.test/" + strings.Repeat("a", 2048-len("spiffe://example.test/")),
	"long domain": "spiffe://" + strings.Repeat("d", 255) + "/a",
}

func TestAudit_USE36_SPIFFEIDsAreReadAsTheStandardSays(t *testing.T) {
	t.Parallel()

	for name, id := range malformedIDs {
		if err := certs.ValidateSPIFFE(id); !errors.Is(err, certs.ErrSPIFFE) {
			t.Errorf("%s: %.80q: %v, want ErrSPIFFE", name, id, err)
		}

		if !certs.IsSPIFFE(id) {
			t.Errorf("%s: %.80q is taken for another kind of name", name, id)
		}
	}

	for name, id := range goodIDs {
		if err := certs.ValidateSPIFFE(id); err != nil {
			t.Errorf("%s: %.80q: %v", name, id, err)
		}
	}

	for _, name := range []string{"", "spiffe", "spiffe.example.test", "localhost", "https://example.test/a"} {
		if certs.IsSPIFFE(name) {
			t.Errorf("%q is taken for a SPIFFE id", name)
		}
	}
}

// The names of a certificate are read as they stand in it, not as net/url understands them.
func TestAudit_USE36_CertificatesAreReadAsTheStandardSays(t *testing.T) {
	t.Parallel()

	for name, id := range malformedIDs {
		cert, err := withNames(t, "dns.test", nil, id)
		if err != nil {
			continue // crypto/x509 refuses it itself
		}

		if got, err := certs.Identity(cert); got != "" || !errors.Is(err, certs.ErrSPIFFE) {
			t.Errorf("%s: %.80q is read as %.80q, %v", name, id, got, err)
		}

		if got := certs.CertificateIdentity(cert); got != "" {
			t.Errorf("%s: %.80q is the identity %.80q", name, id, got)
		}
	}

	for name, id := range goodIDs {
		cert, err := withNames(t, "dns.test", nil, id)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}

		if got, err := certs.Identity(cert); err != nil || got != id {
			t.Errorf("%s: %.80q is read as %.80q, %v", name, id, got, err)
		}
	}
}

func TestAudit_USE36_ACertificateHasOneSPIFFEID(t *testing.T) {
	t.Parallel()

	const id = "spiffe://example.test/a"

	signs := func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign }
	authority := func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }

	for name, test := range map[string]struct {
		dns  string
		edit func(*x509.Certificate)
		uris []string
		want string // "" for a refusal
	}{
		"alone":             {"", nil, []string{id}, id},
		"beside a DNS name": {"dns.test", nil, []string{id}, id},
		"other URI":         {"dns.test", nil, []string{"https://example.test/"}, "dns.test"},
		"two":               {"", nil, []string{id, id + "/b"}, ""},
		"twice":             {"", nil, []string{id, id}, ""},
		"another URI first": {"", nil, []string{"https://example.test/", id}, ""},
		"another URI last":  {"", nil, []string{id, "https://example.test/"}, ""},
		"a malformed one":   {"", nil, []string{id, "spiffe://example.test/b/"}, ""},
		"an authority":      {"", authority, []string{id}, ""},
		"may sign":          {"", signs, []string{id}, ""},
		"as a DNS name":     {id, nil, nil, ""},
		"as a common name":  {"", func(c *x509.Certificate) { c.Subject.CommonName = id }, nil, ""},
		"malformed, common": {"", func(c *x509.Certificate) { c.Subject.CommonName = "SPIFFE:a" }, nil, ""},
	} {
		cert, err := withNames(t, test.dns, test.edit, test.uris...)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}

		if got, err := certs.Identity(cert); got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s: identity %q, %v, want %q", name, got, err, test.want)
		}
	}
}

func TestTrustDomainOf(t *testing.T) {
	t.Parallel()

	for identity, want := range map[string]string{
		"spiffe://example.test/a/b": "example.test", "spiffe://example.test": "example.test", "example.test": "", "": "",
	} {
		if got := certs.TrustDomainOf(identity); got != want {
			t.Errorf("TrustDomainOf(%q) = %q, want %q", identity, got, want)
		}
	}
}

func FuzzValidateSPIFFE(f *testing.F) {
	for _, id := range malformedIDs {
		f.Add(id)
	}

	for _, id := range goodIDs {
		f.Add(id)
	}

	f.Fuzz(func(t *testing.T, id string) {
		if certs.ValidateSPIFFE(id) != nil {
			return
		}

		domain, path := certs.TrustDomainOf(id), strings.TrimPrefix(id, "spiffe://")
		if !certs.IsSPIFFE(id) || certs.ValidateTrustDomain(domain) != nil || strings.ContainsAny(path, "%?#@:~ ") ||
			strings.HasSuffix(id, "/") || strings.Contains(path, "//") || strings.Contains(path+"/", "/./") || strings.Contains(path+"/", "/../") {
			t.Errorf("%q passes", id)
		}
	})
}

// withNames makes a certificate whose subjectAltName is written byte for byte.
func withNames(tb testing.TB, dns string, edit func(*x509.Certificate), uris ...string) (*x509.Certificate, error) {
	tb.Helper()

	key, err := certs.NewKey(certs.ECDSA)
	if err != nil {
		tb.Fatal(err)
	}

	var names []asn1.RawValue
	if dns != "" {
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(dns)})
	}

	for _, uri := range uris {
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(uri)})
	}

	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}

	if len(names) > 0 {
		value, err := asn1.Marshal(names)
		if err != nil {
			tb.Fatal(err)
		}

		template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}}
	}

	if edit != nil {
		edit(template)
	}

	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}

	return x509.ParseCertificate(der)
}
