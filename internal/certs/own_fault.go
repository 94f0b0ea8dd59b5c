package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"
)

// Faults that a client finds in the certificate that it shows. A server that refuses it may not say why.
var (
	ErrOwnTime      = errors.New("has expired, or is not valid yet")
	ErrOwnAuthority = errors.New("is of no authority in TLS.RootCAs")
	ErrOwnUse       = errors.New("is not made for clients")
)

// OwnFault returns what a server may refuse in the certificate of a client that trusts the same authorities, nil
// where this side finds nothing.
func OwnFault(cfg *tls.Config, now time.Time) error {
	cert := clientCertificate(cfg)
	if cert == nil || cfg.RootCAs == nil {
		return nil
	}

	leaf := LeafOf(cert)
	if leaf == nil {
		return nil
	}

	if now.After(leaf.NotAfter) || now.Before(leaf.NotBefore) {
		return ErrOwnTime
	}

	between := x509.NewCertPool()
	for _, der := range cert.Certificate[1:] {
		if one, err := x509.ParseCertificate(der); err == nil {
			between.AddCert(one)
		}
	}

	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: cfg.RootCAs, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return ErrOwnAuthority
	}

	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.IncompatibleUsage {
		return ErrOwnUse
	}

	return nil
}
