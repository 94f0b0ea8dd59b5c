package certs

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
)

const (
	spiffeScheme = "spiffe"
	spiffePrefix = spiffeScheme + "://"

	// Bounds of the SPIFFE standard, in bytes.
	maxSPIFFEID    = 2048
	maxTrustDomain = 255

	// tagURI is the number of uniformResourceIdentifier in a GeneralName (RFC 5280).
	tagURI = 6
)

var (
	// ErrSPIFFE is returned for a SPIFFE id, or a certificate with one, that the
	// SPIFFE standard does not allow.
	ErrSPIFFE = errors.New("invalid SPIFFE id")

	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// IsSPIFFE reports whether s means to be a SPIFFE id, well-formed or not.
func IsSPIFFE(s string) bool {
	return len(s) > len(spiffeScheme) && s[len(spiffeScheme)] == ':' && strings.EqualFold(s[:len(spiffeScheme)], spiffeScheme)
}

// ValidateSPIFFE reports whether s is the SPIFFE id of somebody, byte for byte as
// the standard (SPIFFE-ID, section 2) wants it: spiffe://, a trust domain, and a path
// of segments of letters, digits, '.', '-' and '_' that is not empty. So there are no
// upper-case trust domains, escapes, ports, queries, fragments, empty or dot
// segments, and one id has one spelling.
func ValidateSPIFFE(s string) error {
	rest, ok := strings.CutPrefix(s, spiffePrefix)
	if !ok || len(s) > maxSPIFFEID {
		return fmt.Errorf("%w: it begins with %s and has at most %d bytes", ErrSPIFFE, spiffePrefix, maxSPIFFEID)
	}

	domain, path, named := strings.Cut(rest, "/")
	if err := ValidateTrustDomain(domain); err != nil {
		return fmt.Errorf("%w: %w", ErrSPIFFE, err)
	}

	if !named {
		return fmt.Errorf("%w: %.256q is a trust domain, nobody in it", ErrSPIFFE, s)
	}

	for segment := range strings.SplitSeq(path, "/") {
		if err := validateSegment(segment); err != nil {
			return fmt.Errorf("%w: path %.256q: %w", ErrSPIFFE, path, err)
		}
	}

	return nil
}

// TrustDomainOf returns the trust domain of a SPIFFE id, "" for any other identity.
func TrustDomainOf(identity string) string {
	rest, ok := strings.CutPrefix(identity, spiffePrefix)
	if !ok {
		return ""
	}

	domain, _, _ := strings.Cut(rest, "/")

	return domain
}

// ValidateTrustDomain reports whether s is a SPIFFE trust domain: lower-case
// letters, digits, dots, dashes and underscores, at most 255 of them.
func ValidateTrustDomain(s string) error {
	if s == "" || len(s) > maxTrustDomain {
		return fmt.Errorf("%w: a trust domain has 1 to %d characters, got %d", ErrIdentity, maxTrustDomain, len(s))
	}

	for i := range len(s) {
		if c := s[i]; !isNameByte(c) || isUpper(c) {
			return fmt.Errorf("%w: trust domain %.256q may hold a-z, 0-9, '.', '-' and '_' only", ErrIdentity, s)
		}
	}

	return nil
}

// validateSegment reports whether s is a single path segment of a SPIFFE id.
func validateSegment(s string) error {
	switch s {
	case "":
		return fmt.Errorf("%w: a segment is empty", ErrIdentity)
	case ".", "..":
		return fmt.Errorf("%w: %.256q is a dot segment", ErrIdentity, s)
	}

	for i := range len(s) {
		if !isNameByte(s[i]) {
			return fmt.Errorf("%w: %.256q may hold a-z, A-Z, 0-9, '.', '-' and '_' only", ErrIdentity, s)
		}
	}

	return nil
}

// spiffeOf returns the SPIFFE id of a leaf certificate, "" for a certificate that has
// none. A certificate that has one has no other URI and may sign no other certificate
// (X509-SVID, sections 2 and 3).
func spiffeOf(cert *x509.Certificate) (string, error) {
	uris, err := uriNames(cert)
	if err != nil {
		return "", err
	}

	id := ""

	for _, uri := range uris {
		if IsSPIFFE(uri) {
			id = uri
		}
	}

	switch {
	case id == "":
		return "", nil
	case len(uris) > 1:
		return "", fmt.Errorf("%w: the certificate has %d URIs, it may have one", ErrSPIFFE, len(uris))
	case cert.IsCA || cert.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return "", fmt.Errorf("%w: %.256q stands in the certificate of an authority, which is nobody's", ErrSPIFFE, id)
	}

	if err := ValidateSPIFFE(id); err != nil {
		return "", err
	}

	return id, nil
}

// uriNames returns the URIs of a certificate as they stand in it. What net/url makes
// of them is not the same: it drops an empty fragment and changes the scheme's case.
func uriNames(cert *x509.Certificate) ([]string, error) {
	if len(cert.Raw) == 0 { // not read from anywhere, so nothing else is known
		return parsedURIs(cert), nil
	}

	for _, ext := range cert.Extensions {
		if ext.Id.Equal(oidSubjectAltName) {
			return writtenURIs(ext.Value)
		}
	}

	return nil, nil
}

func parsedURIs(cert *x509.Certificate) []string {
	var uris []string

	for _, uri := range cert.URIs {
		if uri != nil {
			uris = append(uris, uri.String())
		}
	}

	return uris
}

// writtenURIs reads the URIs of a subjectAltName extension (RFC 5280, 4.2.1.6).
func writtenURIs(der []byte) ([]string, error) {
	var names []asn1.RawValue
	if _, err := asn1.Unmarshal(der, &names); err != nil {
		return nil, fmt.Errorf("%w: subject alternative names: %w", ErrIdentity, err)
	}

	var uris []string

	for _, name := range names {
		if name.Class == asn1.ClassContextSpecific && name.Tag == tagURI {
			uris = append(uris, string(name.Bytes))
		}
	}

	return uris, nil
}
