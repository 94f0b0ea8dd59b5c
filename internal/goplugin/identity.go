package goplugin

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"time"
)

const (
	serverName = "localhost" // in each certificate, whoever made it
	backdated  = time.Minute
	// lifetime is longer than a plugin lives: nothing could renew the certificate, and the
	// key is in memory alone, good for one launch.
	lifetime = 10 * 365 * 24 * time.Hour
)

// Identity is whom one plugin takes for its host: a certificate for one launch.
type Identity struct {
	cert tls.Certificate
	pem  []byte
}

// NewIdentity makes an identity.
func NewIdentity(now time.Time) (*Identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: serverName},
		DNSNames:              []string{serverName},
		NotBefore:             now.Add(-backdated),
		NotAfter:              now.Add(lifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true, // the plugin takes it as its only root
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	return &Identity{
		cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		pem:  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
	}, nil
}

// TLS accepts the plugin that said hello, and nobody else.
func (i *Identity) TLS(h *Hello) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(h.Certificate)
	return &tls.Config{
		Certificates: []tls.Certificate{i.cert}, RootCAs: roots, ServerName: serverName,
		NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13,
	}
}

// Dial connects to the plugin's socket.
func (h *Hello) Dial(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", h.Socket) //nolint:wrapcheck // says it all
}
