package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
)

// Bounds of what a peer shows, checked before any signature in it: crypto/tls tries a hundred signatures for one chain.
const (
	MaxChain      = 10
	MaxChainBytes = 64 << 10
	// MaxSignatures is how many signatures may take to find which of the certificates issued which. One of a key that
	// is slow to verify with counts as slowKey of them.
	MaxSignatures = 12

	slowKey  = 2
	slowBits = 4096 // of RSA, beyond which a key is slow
)

// ErrChain says that a peer shows more than is verified.
var ErrChain = errors.New("the peer's certificate comes with too many others, or is too large")

// checkChain refuses a chain that is too long.
func checkChain(chain []*x509.Certificate) error {
	size := 0
	for _, c := range chain {
		size += len(c.Raw)
	}
	if len(chain) > MaxChain || size > MaxChainBytes {
		return fmt.Errorf("%w: %d certificates of %d bytes, at most %d of %d bytes are verified",
			ErrChain, len(chain), size, MaxChain, MaxChainBytes)
	}
	if len(chain) > 0 && signatures(chain[:1], chain[1:], MaxSignatures) < 0 {
		return fmt.Errorf("%w: so many of %d have the name of an issuer that it takes more than %d signatures to find who issued which",
			ErrChain, len(chain), MaxSignatures)
	}
	return nil
}

// signatures follows the issuers of the last certificate of a chain among others, by their names, as crypto/x509 does
// where every signature holds. It returns what is left of so many, less than zero where they are too few.
func signatures(chain, others []*x509.Certificate, left int) int {
	last := chain[len(chain)-1]
	for _, c := range others {
		if left < 0 {
			break
		}
		if bytes.Equal(c.RawSubject, last.RawIssuer) && !inChain(c, chain) {
			left = signatures(append(slices.Clip(chain), c), others, left-weight(c))
		}
	}
	return left
}

// inChain reports whether crypto/x509 takes a certificate for one of a chain.
func inChain(c *x509.Certificate, chain []*x509.Certificate) bool {
	for _, have := range chain {
		if !bytes.Equal(c.RawSubject, have.RawSubject) || !bytes.Equal(c.RawSubjectPublicKeyInfo, have.RawSubjectPublicKeyInfo) {
			continue
		}
		switch a, b := namesOf(c), namesOf(have); {
		case bytes.Equal(a, b):
			return true
		case a == nil || b == nil: // it looks no further
			return false
		}
	}
	return false
}

// namesOf is the extension with the alternative names (RFC 5280, section 4.2.1.6), nil for none.
func namesOf(c *x509.Certificate) []byte {
	for _, e := range c.Extensions {
		if e.Id.Equal(alternativeNames) {
			return e.Value
		}
	}
	return nil
}

var alternativeNames = asn1.ObjectIdentifier{2, 5, 29, 17}

// weight is how many signatures one counts as that is verified with the key of a certificate.
func weight(c *x509.Certificate) int {
	switch key := c.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P521() {
			return slowKey
		}
	case *rsa.PublicKey: // crypto/tls refuses those of more than 8192 bits
		if key.N.BitLen() > slowBits {
			return slowKey
		}
	}
	return 1
}

// ScreenClients returns a copy of a server's configuration for one connection. It verifies as crypto/tls does with
// the given one, but refuses a chain that is too long before it verifies anything. The chains that it verified are in
// the state that callbacks see, and verified returns them: the connection does not.
func ScreenClients(cfg *tls.Config) (screened *tls.Config, verified func() [][]*x509.Certificate) {
	var chains [][]*x509.Certificate
	screened = screenClients(cfg, &chains)
	if choose := cfg.GetConfigForClient; choose != nil {
		screened.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			chosen, err := choose(hello)
			if chosen == nil || err != nil {
				return nil, err
			}
			return screenClients(chosen, &chains), nil
		}
	}
	return screened, func() [][]*x509.Certificate { return chains }
}

func screenClients(cfg *tls.Config, verified *[][]*x509.Certificate) *tls.Config {
	out := cfg.Clone()
	switch cfg.ClientAuth {
	case tls.VerifyClientCertIfGiven:
		out.ClientAuth = tls.RequestClientCert
	case tls.RequireAndVerifyClientCert:
		out.ClientAuth = tls.RequireAnyClientCert
	case tls.NoClientCert, tls.RequestClientCert, tls.RequireAnyClientCert:
	}
	out.VerifyPeerCertificate = nil
	out.VerifyConnection = func(state tls.ConnectionState) error {
		verifies := cfg.ClientAuth >= tls.VerifyClientCertIfGiven
		return screen(cfg, state, verifies, x509.VerifyOptions{
			Roots: cfg.ClientCAs, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}, verified)
	}
	return out
}

// ScreenServer returns a copy of a client's configuration, which has its ServerName, that does so for the server.
func ScreenServer(cfg *tls.Config) *tls.Config {
	if cfg.ServerName == "" && !cfg.InsecureSkipVerify {
		return cfg // crypto/tls refuses it
	}
	out := cfg.Clone()
	out.InsecureSkipVerify = true // VerifyConnection verifies
	out.VerifyPeerCertificate = nil
	out.VerifyConnection = func(state tls.ConnectionState) error {
		return screen(cfg, state, !cfg.InsecureSkipVerify, x509.VerifyOptions{Roots: cfg.RootCAs, DNSName: cfg.ServerName}, nil)
	}
	return out
}

// screen checks what a peer shows in the order of crypto/tls.
func screen(
	cfg *tls.Config, state tls.ConnectionState, verifies bool, opts x509.VerifyOptions, verified *[][]*x509.Certificate,
) error {
	if len(state.PeerCertificates) > 0 {
		if err := screenChain(cfg, &state, verifies, opts); err != nil {
			return err
		}
		if verified != nil {
			*verified = state.VerifiedChains
		}
	}
	if f := cfg.VerifyConnection; f != nil {
		return f(state)
	}
	return nil
}

// screenChain adds the chains that it verified to the state.
func screenChain(cfg *tls.Config, state *tls.ConnectionState, verifies bool, opts x509.VerifyOptions) error {
	shown := state.PeerCertificates
	if err := checkChain(shown); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: shown[:1], Err: err}
	}
	if verifies {
		chains, err := verify(shown, cfg, opts)
		if err != nil {
			return &tls.CertificateVerificationError{UnverifiedCertificates: shown, Err: err}
		}
		state.VerifiedChains = chains
	}
	if f := cfg.VerifyPeerCertificate; f != nil {
		return f(raw(shown), state.VerifiedChains)
	}
	return nil
}

func verify(shown []*x509.Certificate, cfg *tls.Config, opts x509.VerifyOptions) ([][]*x509.Certificate, error) {
	if cfg.Time != nil {
		opts.CurrentTime = cfg.Time()
	}
	opts.Intermediates = x509.NewCertPool()
	for _, c := range shown[1:] {
		opts.Intermediates.AddCert(c)
	}
	return shown[0].Verify(opts) //nolint:wrapcheck // who calls this says what it means
}

func raw(shown []*x509.Certificate) [][]byte {
	out := make([][]byte, len(shown))
	for i, c := range shown {
		out[i] = c.Raw
	}
	return out
}
