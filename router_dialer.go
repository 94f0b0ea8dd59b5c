package connectplugin

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// pluginDialer says how the host connects to plugins.
type pluginDialer struct {
	tls       *tls.Config // nil in plaintext
	authority *Authority  // where set, plugins prove their self id with its certificates
	insecure  bool        // plaintext endpoints are accepted
	limits    Limits
}

// newPluginDialer settles the client side towards plugins.
func newPluginDialer(cfg *settings, serverTLS *tls.Config) (*pluginDialer, error) {
	d := &pluginDialer{insecure: cfg.allowInsecure, limits: cfg.limits}
	if serverTLS == nil {
		return d, nil
	}
	base := cfg.pluginTLS
	if base == nil {
		base = &tls.Config{
			Certificates:         serverTLS.Certificates,
			GetClientCertificate: serverTLS.GetClientCertificate,
			RootCAs:              serverTLS.ClientCAs,
			MinVersion:           tls.VersionTLS13,
		}
		d.authority = cfg.authority
		if cfg.authority != nil {
			base.RootCAs = cfg.authority.CertPool()
		}
	}
	hardened, err := hardenClientTLS(base, nil)
	if err != nil {
		return nil, fmt.Errorf("PluginTLS: %w", err)
	}
	d.tls = hardened
	return d, nil
}

// pool makes the connection pool of a plugin. Nothing is dialled yet.
func (d *pluginDialer) pool(h *hub, id *tokenstore.Identity, endpoint string) (*proxy.Provider, error) {
	e, err := proxy.ParseEndpoint(endpoint, d.insecure)
	if err != nil {
		return nil, err
	}
	l := d.limits
	cfg := proxy.Config{
		Endpoint: e, DialTimeout: l.DialTimeout, IdleTimeout: l.IdleTimeout, CallIdle: l.StreamIdleTimeout,
	}
	if d.tls != nil {
		cfg.TLS = d.tlsFor(h, id)
	}
	return proxy.New(cfg)
}

// tlsFor returns the TLS configuration that accepts one plugin only: by the
// identity in its certificate where that is known, and by the pins of its
// policy.
func (d *pluginDialer) tlsFor(h *hub, id *tokenstore.Identity) *tls.Config {
	cfg := d.tls.Clone()
	byName := d.authority != nil
	// With an authority the certificate's identity is checked instead of its
	// host names: plugins run anywhere, and no other plugin may answer for one.
	cfg.InsecureSkipVerify = byName || cfg.InsecureSkipVerify
	roots, next := cfg.RootCAs, cfg.VerifyConnection
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if next != nil {
			if err := next(cs); err != nil {
				return err
			}
		}
		if len(cs.PeerCertificates) == 0 {
			return errNoCertificate
		}
		leaf := cs.PeerCertificates[0]
		if byName {
			if err := verifyChain(cs.PeerCertificates, roots, x509.ExtKeyUsageServerAuth); err != nil {
				return err
			}
			want := d.identityOf(id)
			if got := certs.CertificateIdentity(leaf); got != want {
				return fmt.Errorf("plugin answers as %q, not as %q", got, want)
			}
		}
		return checkProvider(h, id, leaf)
	}
	return cfg
}

// identityOf returns the certificate identity with which a plugin must answer:
// that of its self id or, where it enrolled with one, of its launch.
func (d *pluginDialer) identityOf(id *tokenstore.Identity) string {
	shown := declared(id).certIdentity
	if parsed, err := certs.ParseID(shown); err == nil && parsed.Role == certs.RoleLaunch && parsed.TrustDomain == d.authority.TrustDomain() {
		return shown
	}
	return d.authority.PluginIdentity(id.SelfID())
}

var errNoCertificate = errors.New("plugin shows no certificate")

// checkProvider demands of a provider the certificate identity that it enrolled
// with and the pins of its policy.
func checkProvider(h *hub, id *tokenstore.Identity, leaf *x509.Certificate) error {
	if want := declared(id).certIdentity; want != "" && certs.CertificateIdentity(leaf) != want {
		return fmt.Errorf("plugin answers as %q and enrolled as %q", certs.CertificateIdentity(leaf), want)
	}
	rules := h.rulesOf(id)
	if rules == nil {
		return errors.New("policy does not know the plugin")
	}
	if len(rules.Pins) > 0 && !slices.Contains(rules.Pins, certs.PinOf(leaf)) {
		return errors.New("plugin answers with a key that is not pinned")
	}
	return nil
}

// verifyChain verifies a chain for a key usage without looking at host names.
func verifyChain(chain []*x509.Certificate, roots *x509.CertPool, usage x509.ExtKeyUsage) error {
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{usage}}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(opts); err != nil {
		return fmt.Errorf("plugin certificate: %w", err)
	}
	return nil
}
