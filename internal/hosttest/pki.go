package hosttest

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// Certify makes a certificate for both roles of TLS that names nobody and no address
// until the edits say whom.
func (ca *CA) Certify(t *testing.T, edits ...func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatalf("serial number: %v", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, edit := range edits {
		edit(template)
	}
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Cert, key.Public(), ca.key)
	if err != nil {
		t.Fatalf("certificate: %v", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("certificate: %v", err)
	}
	return &tls.Certificate{Certificate: append([][]byte{leaf.Raw}, ca.chain...), PrivateKey: key, Leaf: leaf}
}

// Intermediate makes an authority below this one, which may issue until it ends itself.
func (ca *CA) Intermediate(t *testing.T, ends time.Time) *CA {
	t.Helper()
	issued := ca.Certify(t, CommonName("test intermediate"), func(c *x509.Certificate) {
		c.NotAfter, c.IsCA, c.BasicConstraintsValid, c.KeyUsage = ends, true, true, x509.KeyUsageCertSign
	})
	key, _ := issued.PrivateKey.(*ecdsa.PrivateKey)
	return &CA{Cert: issued.Leaf, key: key, Pool: ca.Pool, chain: issued.Certificate}
}

// URI gives a certificate URIs, such as a SPIFFE id.
func URI(uris ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		for _, s := range uris {
			u, err := url.Parse(s)
			if err != nil {
				panic(err)
			}
			c.URIs = append(c.URIs, u)
		}
	}
}

// DNS gives a certificate host names.
func DNS(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, names...) }
}

// Loopback makes a certificate valid for the loopback addresses.
func Loopback(c *x509.Certificate) {
	c.IPAddresses = append(c.IPAddresses, net.IPv4(127, 0, 0, 1), net.IPv6loopback)
}

// TLS is a configuration for both roles of TLS that trusts the authority. Nil is no
// certificate.
func (ca *CA) TLS(cert *tls.Certificate) *tls.Config {
	cfg := &tls.Config{RootCAs: ca.Pool, ClientCAs: ca.Pool, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}}
	if cert != nil {
		cfg.Certificates = []tls.Certificate{*cert}
	}
	return cfg
}

// Start starts a host without an Authority that serves with a certificate and trusts
// this authority for the certificates of plugins.
func (ca *CA) Start(t testing.TB, cert *tls.Certificate, edit func(*connectplugin.ServeConfig)) *Host {
	t.Helper()
	return Start(t, func(c *connectplugin.ServeConfig) {
		c.Authority = nil
		c.TLS = ca.TLS(cert)
		c.TLS.ClientAuth = tls.VerifyClientCertIfGiven
		edit(c)
	})
}
