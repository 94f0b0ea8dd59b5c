package connectplugin

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// Errors that end a TLS handshake because of whom the peer's certificate names.
var (
	errPeerIdentity  = errors.New("the peer's certificate has another identity")
	errNoCertificate = errors.New("the peer shows no certificate")
	errForeignIssuer = errors.New("the peer's certificate names the authority's trust domain and was issued by somebody else")
)

// validateIdentityName refuses a name that no certificate can have, because it is a
// SPIFFE id against the standard. Empty is accepted.
func validateIdentityName(field, identity string) error {
	if identity == "*" {
		return fieldError(field, `"*" is nobody; write the identity of one certificate`)
	}
	if !certs.IsSPIFFE(identity) {
		return nil
	}
	if err := certs.ValidateSPIFFE(identity); err != nil {
		return fieldError(field, "%v; write spiffe://<trust domain>/<path>, as it stands in the certificate", err)
	}
	return nil
}

// peerCheck is a check for tls.Config.VerifyConnection.
type peerCheck func(tls.ConnectionState) error

// requireReadableIdentity ends the handshake with a peer whose certificate has a
// SPIFFE id that the SPIFFE standard does not allow, or one where none may stand.
func requireReadableIdentity(state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return nil
	}

	if _, err := certs.Identity(state.PeerCertificates[0]); err != nil {
		return fmt.Errorf("the peer's certificate: %w", err)
	}

	return nil
}

// verifiedPeer returns the verified certificate of a peer and whom it names, nil for
// none. A server whose configuration verifies itself says so with byCallback; of what
// its callback accepted, SPIFFE ids alone are believed.
func verifiedPeer(state *tls.ConnectionState, byCallback bool) (leaf *x509.Certificate, identity string) {
	if state == nil || len(state.PeerCertificates) == 0 {
		return nil, ""
	}

	identity, err := certs.Identity(state.PeerCertificates[0])
	verified := len(state.VerifiedChains) > 0 || byCallback && certs.IsSPIFFE(identity)

	if err != nil || !verified {
		return nil, ""
	}

	return state.PeerCertificates[0], identity
}

// requirePeerIdentity returns a check that accepts only a peer whose verified
// certificate has the identity, as Identity of internal/certs reads it.
func requirePeerIdentity(identity string) peerCheck {
	return func(state tls.ConnectionState) error {
		if len(state.VerifiedChains) == 0 {
			return fmt.Errorf("%w: none instead of %q", errPeerIdentity, identity)
		}

		return sameIdentity(state.PeerCertificates[0], identity)
	}
}

func sameIdentity(leaf *x509.Certificate, want string) error {
	if got := certs.CertificateIdentity(leaf); got != want {
		return fmt.Errorf("%w: %q instead of %q", errPeerIdentity, got, want)
	}

	return nil
}

// demandOfClients returns a copy of a server's configuration that verifies the
// certificate of each client and runs the check last, whichever configuration is
// chosen for a client.
func demandOfClients(cfg *tls.Config, auth tls.ClientAuthType, check peerCheck) *tls.Config {
	out := cfg.Clone()
	if !verifiesItself(out) {
		out.ClientAuth = max(out.ClientAuth, auth)
	}

	out.VerifyConnection = verifyAll(cfg.VerifyConnection, check)

	if choose := cfg.GetConfigForClient; choose != nil {
		out.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			chosen, err := choose(hello)
			if err != nil || chosen == nil {
				return nil, err
			}

			return demandOfClients(chosen, auth, check), nil
		}
	}

	return out
}

// verifiesItself reports whether a server's configuration takes the verification of
// client certificates into its own hands, as those of go-spiffe do: crypto/tls then
// demands a certificate and leaves the rest to the callback.
func verifiesItself(cfg *tls.Config) bool {
	return cfg != nil && cfg.ClientAuth == tls.RequireAnyClientCert && cfg.VerifyPeerCertificate != nil
}

// requireServerIdentity returns a copy of a client's configuration that accepts one
// server: by its identity. A SPIFFE id stands in for the names in the certificate,
// which need not be there; any other identity is demanded besides.
func requireServerIdentity(cfg *tls.Config, identity string) *tls.Config {
	if certs.IsSPIFFE(identity) {
		cfg = withoutNames(cfg)
	}

	out := cfg.Clone()
	out.VerifyConnection = verifyAll(cfg.VerifyConnection, func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return errNoCertificate
		}

		return sameIdentity(state.PeerCertificates[0], identity)
	})

	return out
}

// withoutNames returns a copy of a client's configuration that verifies the server's
// certificate as crypto/tls does but for its names: whoever uses it checks the
// identity. What the configuration checks besides sees the verified chains as before.
// A configuration that verifies servers by its own means goes on doing so.
func withoutNames(cfg *tls.Config) *tls.Config {
	out := cfg.Clone()
	if cfg.InsecureSkipVerify {
		return out
	}

	out.InsecureSkipVerify = true // VerifyConnection verifies
	out.VerifyPeerCertificate = nil
	out.VerifyConnection = func(state tls.ConnectionState) error {
		chains, err := verifyChain(state.PeerCertificates, cfg, x509.ExtKeyUsageServerAuth)
		if err != nil {
			return err
		}

		state.VerifiedChains = chains
		if cfg.VerifyPeerCertificate != nil {
			if err := cfg.VerifyPeerCertificate(rawCertificates(state.PeerCertificates), chains); err != nil {
				return fmt.Errorf("TLS.VerifyPeerCertificate: %w", err)
			}
		}

		return verifyAll(cfg.VerifyConnection)(state)
	}

	return out
}

// verifyChain verifies a chain for a key usage against the roots of a configuration
// without looking at host names.
func verifyChain(chain []*x509.Certificate, cfg *tls.Config, usage x509.ExtKeyUsage) ([][]*x509.Certificate, error) {
	if len(chain) == 0 {
		return nil, errNoCertificate
	}

	opts := x509.VerifyOptions{Roots: cfg.RootCAs, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{usage}}
	if cfg.Time != nil {
		opts.CurrentTime = cfg.Time()
	}

	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}

	chains, err := chain[0].Verify(opts)
	if err != nil {
		return nil, fmt.Errorf("the peer's certificate: %w", err)
	}

	return chains, nil
}

// outdatedError says whose certificate a server refused for its time alone.
type outdatedError struct {
	identity string
	err      error
}

func (e *outdatedError) Error() string { return e.means() + ": " + e.err.Error() }

func (e *outdatedError) Unwrap() error { return e.err }

// means says what to do about it.
func (e *outdatedError) means() string {
	return fmt.Sprintf("this side refuses the peer's certificate: that of %q has expired or is not valid yet; "+
		"renew it (with an Authority: WriteCredentials), or compare the clocks", clipped(e.identity))
}

// outOfTime names whose certificate a server refused where nothing but the time was wrong with it: any other could
// have been made by anybody. It returns the error as it is otherwise.
func outOfTime(err error, cfg *tls.Config) error {
	refused, ok := errors.AsType[*tls.CertificateVerificationError](err)
	if !ok || cfg == nil || cfg.ClientCAs == nil || len(refused.UnverifiedCertificates) == 0 {
		return err
	}

	var invalid x509.CertificateInvalidError
	if !errors.As(refused.Err, &invalid) || invalid.Reason != x509.Expired {
		return err
	}

	// An authority may be younger than the certificate's end, so that there was no time at which both were valid.
	leaf, now := *refused.UnverifiedCertificates[0], time.Now()
	leaf.NotBefore, leaf.NotAfter = now, now
	chain := append([]*x509.Certificate{&leaf}, refused.UnverifiedCertificates[1:]...)

	at := &tls.Config{RootCAs: cfg.ClientCAs, Time: func() time.Time { return now }}
	if _, wrong := verifyChain(chain, at, x509.ExtKeyUsageClientAuth); wrong != nil {
		return err
	}

	return &outdatedError{identity: certs.CertificateIdentity(&leaf), err: err}
}

func rawCertificates(chain []*x509.Certificate) [][]byte {
	raw := make([][]byte, 0, len(chain))
	for _, cert := range chain {
		raw = append(raw, cert.Raw)
	}

	return raw
}

// likeness is by what an adopted plugin is known again: the certificate of the first connection to it.
type likeness struct {
	introduced atomic.Bool // it was given an identity
	absent     atomic.Bool // somebody else answered at its endpoint since it did
	// heir is the identity that the same process gets in the place of this one, nil for none.
	heir atomic.Pointer[tokenstore.Identity]
	// news has room for that.
	news chan struct{}

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

func newLikeness() *likeness { return &likeness{news: make(chan struct{}, 1)} }

// miss notes that somebody else answers in the plugin's place, met that it does so itself, and missed returns which
// it was. A nil likeness is that of a plugin that was not adopted, which nobody misses.
func (l *likeness) miss() {
	if l == nil {
		return
	}
	l.absent.Store(true)
	select {
	case l.news <- struct{}{}:
	default:
	}
}

func (l *likeness) met() {
	if l.missed() {
		l.absent.Store(false)
	}
}

func (l *likeness) missed() bool { return l != nil && l.absent.Load() }

func (l *likeness) rekey(key certs.Pin) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.key = key
}
