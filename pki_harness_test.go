package connectplugin_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net/http"
	"net/url"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// pkiHost is a host whose operator brings certificates of an authority of his own.
type pkiHost struct {
	*hosttest.Host

	ca   *authCA
	cert *tls.Certificate // the host's
}

func startPKIHost(t *testing.T, edit func(*connectplugin.ServeConfig, *authCA)) *pkiHost {
	t.Helper()
	ca := newAuthCA(t)
	h := &pkiHost{ca: ca, cert: ca.issue(t, named("spiffe://pki.example/the-host"))}
	h.Host = hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Authority = nil
		c.TLS = &tls.Config{
			Certificates: []tls.Certificate{*h.cert}, ClientCAs: ca.pool, ClientAuth: tls.VerifyClientCertIfGiven,
		}
		edit(c, ca)
	})
	return h
}

// client is the TLS side of a client with a certificate; nil is none.
func (h *pkiHost) client(cert *tls.Certificate) *tls.Config {
	cfg := &tls.Config{RootCAs: h.ca.pool}
	if cert != nil {
		cfg.Certificates = []tls.Certificate{*cert}
	}
	return cfg
}

// http2 is an HTTP client with a certificate.
func (h *pkiHost) http2(t *testing.T, cert *tls.Certificate) *http.Client {
	t.Helper()
	return hosttest.HTTPClient(t, h.client(cert))
}

// named gives a certificate an identity.
func named(uri string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		u, err := url.Parse(uri)
		if err != nil {
			panic(err)
		}
		c.URIs = []*url.URL{u}
	}
}

// reissue makes a new certificate for the key of another.
func (ca *authCA) reissue(t *testing.T, of *tls.Certificate) *tls.Certificate {
	t.Helper()
	template := *of.Leaf
	template.SerialNumber = new(big.Int).Add(of.Leaf.SerialNumber, big.NewInt(1))
	der, err := x509.CreateCertificate(rand.Reader, &template, ca.cert, of.Leaf.PublicKey, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: of.PrivateKey, Leaf: leaf}
}

func pinOf(cert *tls.Certificate) string { return certs.PinOf(cert.Leaf).String() }

func policyOf(selfID string, edit func(*connectplugin.PluginPolicy)) *connectplugin.Policy {
	all := []string{"*"}
	p := connectplugin.PluginPolicy{Provides: all, Requires: all, Capabilities: all, HostPlugins: all, AllowOwnAddress: true}
	edit(&p)
	return &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{selfID: p}}
}

// enrolWith tries a handshake as selfID with a certificate.
func (h *pkiHost) enrolWith(t *testing.T, selfID string, cert *tls.Certificate) error {
	t.Helper()
	_, err := enrolOnce(t.Context(), connectplugin.ClientConfig{
		HostURL: h.URL, SelfID: selfID, TLS: h.client(cert), Logger: hosttest.Logger(t),
	})
	return err
}
