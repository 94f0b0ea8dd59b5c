// Command mkpki makes a certificate authority and certificates in run/pki/, as a public key
// infrastructure of your own would. The library is not part of it.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

const (
	authorityLife   = 365 * 24 * time.Hour
	certificateLife = 24 * time.Hour
	backdate        = time.Minute // clocks differ
	private         = 0o600
	privateDir      = 0o700
	public          = 0o644
)

// names are the certificates: a directory, and the DNS name by which it is known.
var names = map[string]string{
	"host": "host.pki.example", "plugin": "greeter.pki.example", "caller": "caller.pki.example", "other": "other.pki.example",
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// authority is the certificate that signs the others, and its key.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func run() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}

	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "pki.example"}, NotBefore: time.Now().Add(-backdate), NotAfter: time.Now().Add(authorityLife),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}

	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}

	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}

	for dir, name := range names {
		if err := (authority{cert, key}).issue(filepath.Join("run", "pki", dir), name); err != nil {
			return err
		}
	}

	return nil
}

// issue writes a key and a certificate that is valid in both roles: the host dials the
// plugin, and the plugin the host.
func (a authority) issue(dir, name string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}

	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		DNSNames: []string{name, "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, //nolint:mnd // loopback
		NotBefore: time.Now().Add(-backdate), NotAfter: time.Now().Add(certificateLife),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, a.cert, key.Public(), a.key)
	if err != nil {
		return err
	}

	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}

	if err := os.MkdirAll(dir, privateDir); err != nil {
		return err
	}

	for _, f := range []struct {
		name, kind string
		der        []byte
		mode       os.FileMode
	}{
		{"tls.crt", "CERTIFICATE", der, public},
		{"tls.key", "PRIVATE KEY", keyDER, private},
		{"ca.crt", "CERTIFICATE", a.cert.Raw, public},
	} {
		text := pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.der})
		if err := os.WriteFile(filepath.Join(dir, f.name), text, f.mode); err != nil {
			return err
		}
	}

	return nil
}
