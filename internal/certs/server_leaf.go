package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
)

// ServerLeaf returns the certificate that a server configuration presents to a client
// that names no server, nil where that depends on the client.
func ServerLeaf(cfg *tls.Config) *x509.Certificate { return ServerLeafFor(cfg, "") }

// ServerLeafFor returns the certificate that a server configuration presents to a client
// that asks for a server of that name, nil where more than the name decides.
func ServerLeafFor(cfg *tls.Config, name string) *x509.Certificate {
	leaf, err := AskServer(cfg, name)
	if err != nil {
		return nil
	}

	return leaf
}

// AskServer is ServerLeafFor with the error of a source that fails.
func AskServer(cfg *tls.Config, name string) (*x509.Certificate, error) {
	if len(cfg.Certificates) == 0 && cfg.GetCertificate == nil {
		return nil, nil //nolint:nilnil // documented
	}

	cert, err := choose(cfg, &tls.ClientHelloInfo{
		ServerName: name, SupportedVersions: []uint16{tls.VersionTLS13}, CipherSuites: []uint16{tls.TLS_AES_128_GCM_SHA256},
		SignatureSchemes: everyScheme, SupportedCurves: []tls.CurveID{tls.X25519, tls.CurveP256},
	})
	if err != nil {
		return nil, err
	}

	return LeafOf(cert), nil
}

// ClientLeaf returns the certificate that a client configuration shows to a server that
// asks for any, nil where it shows none.
func ClientLeaf(cfg *tls.Config) *x509.Certificate {
	if cert := clientCertificate(cfg); cert != nil {
		return LeafOf(cert)
	}

	return nil
}

func clientCertificate(cfg *tls.Config) *tls.Certificate {
	if cfg.GetClientCertificate == nil {
		if len(cfg.Certificates) == 0 {
			return nil
		}

		return &cfg.Certificates[0]
	}

	ask := Guard(OfClient, cfg.GetClientCertificate)

	cert, err := ask(&tls.CertificateRequestInfo{Version: tls.VersionTLS13, SignatureSchemes: everyScheme})
	if err != nil {
		return nil
	}

	return cert
}

// ServerSource is where a server gets its certificate from.
func ServerSource(whose string, cfg *tls.Config) Source {
	return Source{
		Whose: whose, Leaf: func() *x509.Certificate { return ServerLeaf(cfg) },
		Fixed: cfg.GetCertificate == nil && cfg.GetConfigForClient == nil,
	}
}

// ClientSource is where a client gets its certificate from.
func ClientSource(whose string, cfg *tls.Config) Source {
	return Source{
		Whose: whose, Leaf: func() *x509.Certificate { return ClientLeaf(cfg) }, Fixed: cfg.GetClientCertificate == nil,
	}
}

// everyScheme are the signatures of TLS 1.3.
var everyScheme = []tls.SignatureScheme{
	tls.ECDSAWithP256AndSHA256, tls.Ed25519, tls.PSSWithSHA256, tls.ECDSAWithP384AndSHA384, tls.ECDSAWithP521AndSHA512,
	tls.PSSWithSHA384, tls.PSSWithSHA512,
}

// ErrNoneToShow is wrapped around what a server's own source of certificates returns for an error.
var ErrNoneToShow = errors.New("no certificate to show")

// Witness returns a copy of a server's configuration that says which certificate it
// shows on each connection: shown is called during the handshake, with its context, and
// must not block. Which certificate that is stays as it was.
func Witness(cfg *tls.Config, shown func(ctx context.Context, leaf *x509.Certificate)) *tls.Config {
	out := witness(cfg, shown)
	if pick := Guard(OfConfig, cfg.GetConfigForClient); pick != nil {
		out.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			picked, err := pick(hello)
			if err != nil || picked == nil {
				return nil, err
			}

			return witness(picked, shown), nil
		}
	}

	return out
}

func witness(cfg *tls.Config, shown func(context.Context, *x509.Certificate)) *tls.Config {
	out := cfg.Clone()
	out.Certificates = nil // choose knows them
	out.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := choose(cfg, hello)

		switch {
		case err != nil:
			return nil, fmt.Errorf("%w: %w", ErrNoneToShow, err)
		case cert != nil && len(cert.Certificate) == 0:
			cert = nil // crypto/tls takes it for one
		}

		shown(hello.Context(), LeafOf(cert))

		return cert, nil
	}

	return out
}

// choose selects the certificate of a configuration for a client as crypto/tls does. It
// returns nil where there is none; crypto/tls then says so to the client.
func choose(cfg *tls.Config, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if cfg.GetCertificate != nil && (len(cfg.Certificates) == 0 || hello.ServerName != "") {
		if cert, err := Guard(OfServer, cfg.GetCertificate)(hello); cert != nil || err != nil {
			return cert, err
		}
	}

	switch len(cfg.Certificates) {
	case 0:
		return nil, nil //nolint:nilnil // documented
	case 1:
		return &cfg.Certificates[0], nil
	}

	if cert := byName(cfg, hello.ServerName); cert != nil {
		return cert, nil
	}

	for i := range cfg.Certificates {
		if hello.SupportsCertificate(&cfg.Certificates[i]) == nil {
			return &cfg.Certificates[i], nil
		}
	}

	return &cfg.Certificates[0], nil
}

// byName looks into the map of names that a configuration of old may have.
func byName(cfg *tls.Config, name string) *tls.Certificate {
	names := cfg.NameToCertificate //nolint:staticcheck // crypto/tls still obeys it

	name = strings.ToLower(name)
	if cert := names[name]; cert != nil {
		return cert
	}

	if _, parent, ok := strings.Cut(name, "."); ok {
		return names["*."+parent]
	}

	return nil
}

// LeafOf returns the certificate itself, nil where it cannot be read.
func LeafOf(cert *tls.Certificate) *x509.Certificate {
	if cert == nil || len(cert.Certificate) == 0 {
		return nil
	}

	if cert.Leaf != nil {
		return cert.Leaf
	}

	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		return nil
	}

	return leaf
}
