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
	issuer    *Authority  // alone issues names in its trust domain; nil where the host has none
	insecure  bool        // plaintext endpoints are accepted
	limits    Limits
}

// newPluginDialer settles the client side towards plugins.
func newPluginDialer(cfg *settings, serverTLS *tls.Config) (*pluginDialer, error) {
	d := &pluginDialer{issuer: cfg.authority, insecure: cfg.allowInsecure, limits: cfg.limits}
	if serverTLS == nil {
		return d, nil
	}
	base := cfg.pluginTLS
	if base == nil && cfg.authority == nil && verifiesItself(serverTLS) {
		return nil, fieldError("PluginTLS", "is required, because TLS verifies clients in a callback and has no ClientCAs that plugins could be "+
			"verified against; with go-spiffe write tlsconfig.MTLSClientConfig(...)")
	}
	if base == nil {
		base = &tls.Config{
			Certificates:         serverTLS.Certificates,
			GetClientCertificate: clientCertificate(serverTLS),
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

// clientCertificate returns how the host shows its server's certificate to plugins, nil
// where Certificates says it.
func clientCertificate(serverTLS *tls.Config) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	if serverTLS.GetClientCertificate != nil || serverTLS.GetCertificate == nil || len(serverTLS.Certificates) > 0 {
		return serverTLS.GetClientCertificate
	}
	return func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return serverTLS.GetCertificate(&tls.ClientHelloInfo{
			SupportedVersions: []uint16{request.Version}, SignatureSchemes: request.SignatureSchemes,
		})
	}
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
	// With an authority, and with SPIFFE ids, the certificate's identity is checked
	// instead of its host names: plugins run anywhere, and no other plugin may answer
	// for one.
	byIdentity := d.authority != nil || certs.IsSPIFFE(declared(id).certIdentity)
	if byIdentity {
		cfg = withoutNames(cfg)
	}
	named := !cfg.InsecureSkipVerify // crypto/tls compares the names
	cfg.VerifyConnection = verifyAll(cfg.VerifyConnection, func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			return errNoCertificate
		}
		leaf := cs.PeerCertificates[0]
		if err := d.checkIdentity(id, leaf, named); err != nil {
			return err
		}
		return checkProvider(h, id, leaf)
	})
	return cfg
}

// checkIdentity demands of a plugin's certificate the identity that is known of it.
func (d *pluginDialer) checkIdentity(id *tokenstore.Identity, leaf *x509.Certificate, named bool) error {
	if d.issuer != nil {
		if err := d.issuer.vouchFor(leaf); err != nil {
			return err
		}
	}
	got, shown := certs.CertificateIdentity(leaf), declared(id).certIdentity
	switch {
	case d.authority != nil:
		if want := d.identityOf(id); got != want {
			return fmt.Errorf("plugin answers as %q, not as %q", got, want)
		}
	case !named && certs.IsSPIFFE(got) && got != shown:
		return fmt.Errorf("plugin answers as %q and enrolled as %q: let it enrol with the certificate that it serves with", got, shown)
	}
	return nil
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
