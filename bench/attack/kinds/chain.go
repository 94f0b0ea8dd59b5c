//nolint:wrapcheck // errors of the connections end an attack, and nobody looks at them
package kinds

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"sync"
	"time"
)

// sameIssuers are how many certificates of one key may have issued a leaf, and one another: as many as a chain may have.
const sameIssuers = 9

// issuers are how many certificates of one name could have issued a leaf: more than x509 tries.
const issuers = 110

// chains opens connections and shows on each a chain of certificates.
func chains(made func() (*tls.Certificate, error)) func(context.Context, *attack) error {
	return func(ctx context.Context, a *attack) error {
		chain, err := made()
		if err != nil {
			return err
		}
		cfg := a.tls.Clone()
		cfg.NextProtos, cfg.ServerName, cfg.Certificates = []string{"h2"}, hostName, nil
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return chain, nil }
		a.show(ctx, cfg)
		return nil
	}
}

// show makes handshakes, and takes note of who refuses them.
func (a *attack) show(ctx context.Context, cfg *tls.Config) {
	var all sync.WaitGroup
	for range connecting {
		all.Go(func() {
			for ctx.Err() == nil {
				raw, err := a.dial(ctx)
				if err != nil {
					return
				}
				a.sent.Add(1)
				c := tls.Client(raw, cfg)
				if c.HandshakeContext(ctx) == nil {
					_ = c.SetReadDeadline(time.Now().Add(dialLimit))
					if _, err := c.Read(make([]byte, 1)); err != nil && ctx.Err() == nil {
						a.ended(err.Error())
					}
				}
				_ = raw.Close()
			}
		})
	}
	all.Wait()
}

// longChain is a leaf and the certificates of others with the name of its issuer, made once.
var longChain = sync.OnceValues(func() (*tls.Certificate, error) {
	template := func(serial int64, name string, ca bool) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, IsCA: ca, BasicConstraintsValid: true,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), SubjectKeyId: big.NewInt(serial).Bytes(),
		}
	}
	var chain [][]byte
	issuer := template(1, "issuer", true)
	var leafKey *ecdsa.PrivateKey
	for i := range int64(issuers + 1) {
		key, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
		if err != nil {
			return nil, err
		}
		signer, made := key, template(i+1, "issuer", true)
		if i == 0 {
			if signer, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader); err != nil {
				return nil, err
			}
			leafKey, made = key, template(0, "leaf", false)
		}
		der, err := x509.CreateCertificate(rand.Reader, made, issuer, key.Public(), signer)
		if err != nil {
			return nil, err
		}
		chain = append(chain, der)
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: leafKey}, nil
})

// sameChain is a leaf and certificates of one issuer with names of their own, made once.
var sameChain = sync.OnceValues(func() (*tls.Certificate, error) {
	leafKey, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		return nil, err
	}
	made := func(serial int64, name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{fmt.Sprintf("n%d.example", serial)},
		}
	}
	issuer := made(1, "issuer")
	issuer.IsCA, issuer.MaxPathLenZero = true, true
	leaf, err := x509.CreateCertificate(rand.Reader, made(0, "leaf"), issuer, leafKey.Public(), key)
	if err != nil {
		return nil, err
	}
	chain := [][]byte{leaf}
	for i := range int64(sameIssuers) {
		next := *issuer
		next.SerialNumber, next.DNSNames = big.NewInt(i+1), []string{fmt.Sprintf("n%d.example", i+1)}
		der, err := x509.CreateCertificate(rand.Reader, &next, issuer, key.Public(), key)
		if err != nil {
			return nil, err
		}
		chain = append(chain, der)
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: leafKey}, nil
})
