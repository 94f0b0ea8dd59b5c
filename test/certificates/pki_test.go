package certificates_test

import (
	"crypto/tls"
	"crypto/x509"
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

	ca   *hosttest.CA
	cert *tls.Certificate // the host's
}

func startPKIHost(t *testing.T, edit func(*connectplugin.ServeConfig, *hosttest.CA)) *pkiHost {
	t.Helper()
	ca := hosttest.NewCA(t)
	h := &pkiHost{ca: ca, cert: ca.Issue(t, named("spiffe://pki.example/the-host"))}
	h.Host = hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Authority = nil
		c.TLS = &tls.Config{
			Certificates: []tls.Certificate{*h.cert}, ClientCAs: ca.Pool, ClientAuth: tls.VerifyClientCertIfGiven,
		}
		edit(c, ca)
	})
	return h
}

// client is the TLS side of a client with a certificate; nil is none.
func (h *pkiHost) client(cert *tls.Certificate) *tls.Config {
	cfg := &tls.Config{RootCAs: h.ca.Pool}
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

func pinOf(cert *tls.Certificate) string { return certs.PinOf(cert.Leaf).String() }

// enrolWith tries a handshake as selfID with a certificate.
func (h *pkiHost) enrolWith(t *testing.T, selfID string, cert *tls.Certificate) error {
	t.Helper()
	_, err := hosttest.EnrolOnce(t.Context(), connectplugin.ClientConfig{
		HostURL: h.URL, SelfID: selfID, TLS: h.client(cert), Logger: hosttest.Logger(t),
	})
	return err
}
