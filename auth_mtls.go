package connectplugin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

const (
	// mtlsProvider is AuthContext.Provider of MTLSAuth.
	mtlsProvider = "mtls"

	// Bounds of the transport that ConfigureClientTLS makes.
	clientHandshakeTimeout = 10 * time.Second
	clientIdleTimeout      = 90 * time.Second
)

var (
	errCertificateUnverified = errors.New("the peer's certificate was not verified")
	errCertificateExpired    = errors.New("the peer's certificate has expired since the connection was made")
)

// MTLSAuth is an [AuthProvider] for client certificates. Connect shows an
// interceptor nothing of TLS, so a handler in front has to: a [Host] has it, a
// handler that is mounted elsewhere goes into [MTLSAuth.Middleware]. Only a
// certificate that the TLS handshake verified counts; no header is read.
//
// The fields are read when an interceptor or a configuration is made, and must
// not change while that goes on.
type MTLSAuth struct {
	// ClientCert is this side's own certificate: what a client presents, and what
	// a server serves with unless its configuration is given another.
	ClientCert *tls.Certificate
	// RootCAs are the authorities that a client trusts servers of. Nil means
	// those of the operating system.
	RootCAs *x509.CertPool
	// ClientCAs are the authorities that a server trusts clients of.
	ClientCAs *x509.CertPool
	// ExtractIdentity names the owner of a verified certificate; an empty
	// identity or a panic refuses it. It must not change the certificate. The
	// claims are copied.
	//
	// Nil means the SPIFFE id (a certificate with several, or one that the standard does
	// not allow, is refused), else the first DNS SAN, else the common name, with the
	// claims common_name, organization, organizational_unit, issuer, serial (hexadecimal)
	// and not_after (RFC 3339) as far as the certificate has them.
	ExtractIdentity func(*x509.Certificate) (identity string, claims map[string]string)
}

// NewMTLSAuth returns a provider for client certificates. A client needs the
// certificate and the authorities of its servers, a server its certificate and
// the authorities of its clients; the rest may be nil. ExtractIdentity is set to the
// default.
func NewMTLSAuth(clientCert *tls.Certificate, rootCAs, clientCAs *x509.CertPool) *MTLSAuth {
	return &MTLSAuth{ClientCert: clientCert, RootCAs: rootCAs, ClientCAs: clientCAs, ExtractIdentity: defaultIdentity}
}

// ClientInterceptor returns an interceptor that does nothing: the certificate
// goes with the connection, see [MTLSAuth.ConfigureClientTLS].
func (*MTLSAuth) ClientInterceptor() connect.UnaryInterceptorFunc { return passThrough }

// ServerInterceptor returns an interceptor that lets unary requests through whose
// connection has a verified client certificate, with an [AuthContext]. It is a
// chain of this provider alone.
func (m *MTLSAuth) ServerInterceptor() connect.UnaryInterceptorFunc {
	return ComposeAuthServer(m)
}

// HasCredential implements [CredentialChecker].
func (*MTLSAuth) HasCredential(ctx context.Context, _ http.Header) bool {
	return peerCertificates(ctx) != nil
}

// Middleware shows the interceptors of next the verified client certificate of
// each request's connection.
func (*MTLSAuth) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(withPeerCertificates(r.Context(), chainsOf(r.TLS))))
	})
}

// ConfigureClientTLS makes client present the certificate, trust RootCAs only,
// and speak TLS 1.3 and HTTP/2. It replaces the transport by a changed copy, so
// a shared one, such as [http.DefaultTransport], stays as it is; where there is
// none, the new one uses no proxy. A transport that is no [*http.Transport], that
// dials TLS by itself or that does not verify servers is refused with an error
// that wraps [ErrInvalidConfig], and left alone.
func (m *MTLSAuth) ConfigureClientTLS(client *http.Client) error {
	if client == nil {
		return fmt.Errorf("%w: the HTTP client is nil", ErrInvalidConfig)
	}
	if m.ClientCert == nil {
		return fmt.Errorf("%w: MTLSAuth.ClientCert: a client needs a certificate", ErrInvalidConfig)
	}
	transport, err := ownTransport(client.Transport)
	if err != nil {
		return err
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS13}
	if old := transport.TLSClientConfig; old != nil {
		cfg = old.Clone()
		cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS13, 0
		cfg.NextProtos = nil // the transport's business
	}
	cfg.RootCAs = m.RootCAs
	cfg.Certificates, cfg.GetClientCertificate = []tls.Certificate{*m.ClientCert}, nil
	transport.TLSClientConfig = cfg
	transport.ForceAttemptHTTP2 = true
	client.Transport = transport
	return nil
}

// ownTransport returns a transport that may be changed.
func ownTransport(rt http.RoundTripper) (*http.Transport, error) {
	if rt == nil {
		return &http.Transport{TLSHandshakeTimeout: clientHandshakeTimeout, IdleConnTimeout: clientIdleTimeout}, nil
	}
	transport, ok := rt.(*http.Transport)
	switch {
	case !ok || transport == nil:
		return nil, fmt.Errorf("%w: the HTTP client's transport is a %T, not an *http.Transport", ErrInvalidConfig, rt)
	case transport.DialTLSContext != nil || transport.DialTLS != nil: //nolint:staticcheck // set by old code
		return nil, fmt.Errorf("%w: the HTTP client's transport dials TLS by itself", ErrInvalidConfig)
	case transport.TLSClientConfig != nil && transport.TLSClientConfig.InsecureSkipVerify:
		return nil, fmt.Errorf("%w: the HTTP client's transport does not verify servers", ErrInvalidConfig)
	default:
		return transport.Clone(), nil
	}
}

// ConfigureServerTLS returns a configuration for a server of HTTP/2 over TLS 1.3
// that accepts only clients with a certificate of ClientCAs. It serves with
// ClientCert; where that is nil, the caller adds a certificate. It fails without
// ClientCAs, because TLS would then trust every authority of the operating system.
func (m *MTLSAuth) ConfigureServerTLS() (*tls.Config, error) {
	if m.ClientCAs == nil {
		return nil, fmt.Errorf("%w: MTLSAuth.ClientCAs: a server needs the authorities of its clients", ErrInvalidConfig)
	}
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{alpnHTTP2},
		ClientAuth: tls.RequireAndVerifyClientCert,
		ClientCAs:  m.ClientCAs,
	}
	if m.ClientCert != nil {
		cfg.Certificates = []tls.Certificate{*m.ClientCert}
	}
	return cfg, nil
}

// verifier names the owner of the certificate that the context carries.
func (m *MTLSAuth) verifier() verifier {
	extract := m.ExtractIdentity
	if extract == nil {
		extract = defaultIdentity
	}
	return func(ctx context.Context, _ http.Header) (*AuthContext, error) {
		chains := peerCertificates(ctx)
		switch {
		case chains == nil:
			return nil, errNoCredential
		case len(chains) == 0 || len(chains[0]) == 0:
			return nil, errCertificateUnverified
		}
		leaf := chains[0][0]
		if time.Now().After(leaf.NotAfter) {
			return nil, errCertificateExpired
		}
		identity, claims := extract(leaf)
		return &AuthContext{Identity: identity, Provider: mtlsProvider, Claims: claims}, nil
	}
}

func defaultIdentity(cert *x509.Certificate) (string, map[string]string) {
	return certs.CertificateIdentity(cert), certs.Claims(cert)
}

type peerCertificatesKey struct{}

// withPeerCertificates returns a context that carries the verified chains of the
// connection. Nil says that the peer presented no certificate, an empty slice
// that it presented one that nobody verified.
func withPeerCertificates(ctx context.Context, chains [][]*x509.Certificate) context.Context {
	return context.WithValue(ctx, peerCertificatesKey{}, chains)
}

func peerCertificates(ctx context.Context) [][]*x509.Certificate {
	chains, _ := ctx.Value(peerCertificatesKey{}).([][]*x509.Certificate)
	return chains
}

// chainsOf returns what withPeerCertificates takes.
func chainsOf(state *tls.ConnectionState) [][]*x509.Certificate {
	switch {
	case state == nil || !state.HandshakeComplete || len(state.PeerCertificates) == 0:
		return nil
	case len(state.VerifiedChains) == 0:
		return [][]*x509.Certificate{}
	default:
		return state.VerifiedChains
	}
}

// likeness is by what an adopted plugin is known again: the certificate of the first connection to it.
type likeness struct {
	mu       sync.Mutex
	known    bool
	identity string // may be empty
	key      certs.Pin
}

// admit refuses the certificate of who is another plugin by its identity. The first one is taken note of.
func (l *likeness) admit(leaf *x509.Certificate) error {
	if l == nil { // not adopted
		return nil
	}
	got := certs.CertificateIdentity(leaf)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.known {
		l.known, l.identity, l.key = true, got, certs.PinOf(leaf)
	}
	if l.identity != got {
		return fmt.Errorf("plugin answers as %q and was adopted as %q", got, l.identity)
	}
	return nil
}

func (l *likeness) rekey(key certs.Pin) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.key = key
}

// look returns the identity and the key of the certificate that a plugin showed: when it was adopted or, where it came by
// itself, when it enrolled. A nil likeness is that of one that came by itself.
func (h *hub) look(id *tokenstore.Identity) (identity string, key certs.Pin) {
	l := declared(id).adopted
	if l == nil {
		return declared(id).certIdentity, certs.Pin(id.Fingerprint())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.identity, l.key
}

// checkNamed demands of a provider a certificate that policy names, where that names some. The host knows those of its launches.
func (h *hub) checkNamed(rules *policy.Rules, leaf *x509.Certificate) error {
	identity := certs.CertificateIdentity(leaf)
	if rules.Certificates.NamesAny() && !rules.Certificates.Has(identity) && h.launches.Find(identity) == nil {
		return fmt.Errorf("plugin answers as %q, which %w", identity, policy.ErrNotNamed)
	}
	return nil
}
