package certs

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
)

// maxName bounds the name in an [ID], in bytes.
const maxName = 255

// Claims that [Claims] extracts from a certificate.
const (
	ClaimCommonName         = "common_name"
	ClaimOrganization       = "organization"
	ClaimOrganizationalUnit = "organizational_unit"
	ClaimIssuer             = "issuer"
	ClaimSerial             = "serial"
	ClaimNotAfter           = "not_after"
)

// ErrIdentity is returned for an identity that cannot stand in a certificate.
var ErrIdentity = errors.New("invalid certificate identity")

// Role says what the owner of a certificate is.
type Role string

// The roles of an [ID].
const (
	RoleHost   Role = "host"   // a host; it has no name
	RolePlugin Role = "plugin" // a plugin, named by its self id
	RoleLaunch Role = "launch" // one launch of a plugin, named by the launch's id
)

// ID is the identity in a certificate of a [CA], written as a SPIFFE id:
// spiffe://<trust domain>/host, …/plugin/<self id> or …/launch/<launch id>.
type ID struct {
	TrustDomain string
	Role        Role
	Name        string // empty for a host
}

// String returns the SPIFFE id.
func (id ID) String() string {
	s := spiffePrefix + id.TrustDomain + "/" + string(id.Role)
	if id.Name == "" {
		return s
	}

	return s + "/" + id.Name
}

// Validate reports whether the identity can be written as a SPIFFE id that reads
// back as the same identity.
func (id ID) Validate() error {
	if err := ValidateTrustDomain(id.TrustDomain); err != nil {
		return err
	}

	switch id.Role {
	case RoleHost:
		if id.Name != "" {
			return fmt.Errorf("%w: a host has no name, got %.256q", ErrIdentity, id.Name)
		}

		return nil
	case RolePlugin, RoleLaunch:
		return validateName(id.Name)
	default:
		return fmt.Errorf("%w: unknown role %.256q", ErrIdentity, id.Role)
	}
}

// ParseID reads a SPIFFE id that [ID.String] wrote.
func ParseID(s string) (ID, error) {
	rest, ok := strings.CutPrefix(s, spiffePrefix)
	if !ok {
		return ID{}, fmt.Errorf("%w: %.256q is no SPIFFE id", ErrIdentity, s)
	}

	domain, path, _ := strings.Cut(rest, "/")
	role, name, named := strings.Cut(path, "/")
	id := ID{TrustDomain: domain, Role: Role(role), Name: name}

	if err := id.Validate(); err != nil {
		return ID{}, err
	}

	if named && name == "" {
		return ID{}, fmt.Errorf("%w: %.256q ends in a slash", ErrIdentity, s)
	}

	return id, nil
}

// validateName reports whether s can be the name in an [ID].
func validateName(s string) error {
	if len(s) > maxName {
		return fmt.Errorf("%w: a name has 1 to %d characters, got %d", ErrIdentity, maxName, len(s))
	}

	return validateSegment(s)
}

func isNameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || isUpper(c) || '0' <= c && c <= '9' || c == '.' || c == '-' || c == '_'
}

func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }

// Identity returns the name by which a verified leaf certificate is known: its
// SPIFFE id, else its first DNS SAN, else the common name of its subject, else "". It
// is an error that matches [ErrSPIFFE] if the certificate has a SPIFFE id against the
// standard, or a DNS or common name that is spelled like one: an authority that
// vouches for host names is not to be believed in SPIFFE ids. It accepts any
// certificate, nil included.
func Identity(cert *x509.Certificate) (string, error) {
	if cert == nil {
		return "", nil
	}

	if id, err := spiffeOf(cert); id != "" || err != nil {
		return id, err
	}

	name := cert.Subject.CommonName
	if len(cert.DNSNames) > 0 {
		name = cert.DNSNames[0]
	}

	if IsSPIFFE(name) {
		return "", fmt.Errorf("%w: %.256q is no URI of the certificate, but another name", ErrSPIFFE, name)
	}

	return name, nil
}

// CertificateIdentity is [Identity], and "" where that is an error.
func CertificateIdentity(cert *x509.Certificate) string {
	name, err := Identity(cert)
	if err != nil {
		return ""
	}

	return name
}

// Claims returns what a verified certificate says about its owner, under the
// Claim… keys. What the certificate does not say is absent; where it says several,
// the first counts. It accepts any certificate, nil included; the map is the caller's.
func Claims(cert *x509.Certificate) map[string]string {
	claims := make(map[string]string)
	if cert == nil {
		return claims
	}

	put := func(key, value string) {
		if value != "" {
			claims[key] = value
		}
	}

	put(ClaimCommonName, cert.Subject.CommonName)
	put(ClaimOrganization, first(cert.Subject.Organization))
	put(ClaimOrganizationalUnit, first(cert.Subject.OrganizationalUnit))
	put(ClaimIssuer, cert.Issuer.String())

	if cert.SerialNumber != nil {
		put(ClaimSerial, cert.SerialNumber.Text(hexBase))
	}

	if !cert.NotAfter.IsZero() {
		put(ClaimNotAfter, cert.NotAfter.UTC().Format(time.RFC3339))
	}

	return claims
}

// hexBase is the base in which serial numbers are written, as openssl does.
const hexBase = 16

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}

	return values[0]
}
