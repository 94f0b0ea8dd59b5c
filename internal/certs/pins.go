package certs

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
)

// Errors of pins.
var (
	// ErrPin is returned for a pin that cannot be read.
	ErrPin = errors.New("malformed public key pin")
	// ErrPinMismatch is returned for a peer none of whose keys is pinned.
	ErrPinMismatch = errors.New("no pinned public key")
)

// Pin is the SHA-256 of a certificate's SubjectPublicKeyInfo (RFC 7469): it names
// a public key, whatever certificate carries it. Pins are public; comparing them
// needs no constant time.
type Pin [sha256.Size]byte

// PinOf returns the pin of a certificate's public key.
func PinOf(cert *x509.Certificate) Pin {
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}

// String returns the pin in standard base64, as RFC 7469 writes it.
func (p Pin) String() string { return base64.StdEncoding.EncodeToString(p[:]) }

// ParsePin reads a pin in standard base64 with padding (44 characters, as in
// RFC 7469) or in hexadecimal (64 characters).
func ParsePin(s string) (Pin, error) {
	var (
		pin Pin
		raw []byte
		err error
	)

	switch len(s) {
	case base64.StdEncoding.EncodedLen(len(pin)):
		raw, err = base64.StdEncoding.Strict().DecodeString(s)
	case hex.EncodedLen(len(pin)):
		raw, err = hex.DecodeString(s)
	default:
		return Pin{}, fmt.Errorf("%w: a SHA-256 has 44 characters in base64 or 64 in hex, got %d", ErrPin, len(s))
	}

	if err != nil {
		return Pin{}, fmt.Errorf("%w: %w", ErrPin, err)
	}

	if len(raw) != len(pin) {
		return Pin{}, fmt.Errorf("%w: %d bytes instead of %d", ErrPin, len(raw), len(pin))
	}

	return Pin(raw), nil
}

// ParsePins reads a list of pins; an error names the index of the bad one.
func ParsePins(list []string) ([]Pin, error) {
	pins := make([]Pin, 0, len(list))

	for i, s := range list {
		pin, err := ParsePin(s)
		if err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}

		pins = append(pins, pin)
	}

	return pins, nil
}

// VerifyPins returns a check for tls.Config.VerifyConnection, which runs on
// resumed connections too. It accepts a peer whose own key is pinned, or whose
// verified chain holds a pinned key: pin the key of a certificate authority to
// accept every key that it certifies. Certificates that the peer merely sent
// along do not count. Without any pin it accepts nobody.
func VerifyPins(pins []Pin) func(tls.ConnectionState) error {
	pins = slices.Clone(pins)

	return func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return fmt.Errorf("%w: the peer has no certificate", ErrPinMismatch)
		}

		leaf := PinOf(state.PeerCertificates[0])
		if slices.Contains(pins, leaf) {
			return nil
		}

		for _, chain := range state.VerifiedChains {
			if slices.ContainsFunc(chain, func(c *x509.Certificate) bool { return slices.Contains(pins, PinOf(c)) }) {
				return nil
			}
		}

		return fmt.Errorf("%w: the peer's key is %s", ErrPinMismatch, leaf)
	}
}
