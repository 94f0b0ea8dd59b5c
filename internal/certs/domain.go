package certs

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"fmt"
	"strings"
)

// How trust domains that are derived from a key are written.
const (
	domainPrefix = "connectplugin-"
	domainBytes  = 16
)

// AuthorityDomain returns the trust domain that the certificate of a [CA] names.
func AuthorityDomain(cert *x509.Certificate) (string, error) {
	uris, err := uriNames(cert)
	if err != nil {
		return "", err
	}

	if len(uris) != 1 {
		return "", fmt.Errorf("%w: it names no trust domain, it has %d URIs", ErrCA, len(uris))
	}

	domain, ok := strings.CutPrefix(uris[0], spiffePrefix)
	if !ok {
		return "", fmt.Errorf("%w: it names no trust domain but %q", ErrCA, uris[0])
	}

	if err := ValidateTrustDomain(domain); err != nil {
		return "", fmt.Errorf("%w: it names no trust domain: %w", ErrCA, err)
	}

	return domain, nil
}

// keyDomain derives a trust domain from an authority's public key.
func keyDomain(key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("derive trust domain: %w", err)
	}

	sum := sha256.Sum256(der)
	text := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:domainBytes])

	return domainPrefix + strings.ToLower(text), nil
}
