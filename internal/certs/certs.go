// Package certs makes, reads and checks the X.509 certificates that hosts and
// plugins know each other by: a small certificate authority, short-lived leaves
// with SPIFFE identities, sources that renew a certificate in memory or follow
// files that somebody else replaces, and pins of public keys.
//
// It knows nothing about RPC. Functions that depend on the time take it as an
// argument; only the callbacks that crypto/tls calls without one read the clock.
package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
)

// ErrKeyType is returned for a key type that this package does not make.
var ErrKeyType = errors.New("unknown key type")

// KeyType selects the kind of a new private key. The zero value is ECDSA.
type KeyType uint8

// The kinds of private key.
const (
	ECDSA   KeyType = iota // ECDSA on P-256, understood by every TLS peer
	Ed25519                // Ed25519 (RFC 8410)
)

// NewKey makes a private key.
func NewKey(kind KeyType) (crypto.Signer, error) {
	switch kind {
	case ECDSA:
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("generate key: %w", err)
		}

		return key, nil
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("generate key: %w", err)
		}

		return key, nil
	default:
		return nil, fmt.Errorf("%w: %d", ErrKeyType, kind)
	}
}
