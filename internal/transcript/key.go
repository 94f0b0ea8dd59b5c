package transcript

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync/atomic"
)

// Sizes in bytes.
const (
	// NonceSize is the size of a nonce, exactly.
	NonceSize = 32
	// ProofSize is the size of a proof.
	ProofSize = sha256.Size
	// MinSecretSize is the smallest size of a secret.
	MinSecretSize = 16
)

// What the keys of the two directions are for, the info input of HKDF.
const (
	ClientInfo = "connectplugin handshake v1 client"
	ServerInfo = "connectplugin handshake v1 server"
)

const redacted = "[redacted]"

// Errors of the key derivation, to be told apart with [errors.Is].
var (
	// ErrSecret is returned for a secret below [MinSecretSize].
	ErrSecret = errors.New("secret is too short")
	// ErrNonce is returned for a nonce that does not have [NonceSize] bytes.
	ErrNonce = errors.New("nonce has the wrong size")
)

// Key computes and checks the proofs of one direction of one handshake with
// HMAC-SHA256 (RFC 2104). It prints as [redacted] and cannot be compared with
// ==. It is safe for concurrent use. The zero value checks nothing successfully.
type Key struct {
	raw []byte
}

// ClientKey derives the key for proofs of the client with HKDF-SHA256 (RFC
// 5869): the secret salted with the client's nonce. It returns [ErrSecret] or
// [ErrNonce].
func ClientKey(secret, clientNonce []byte) (Key, error) {
	return derive(secret, ClientInfo, clientNonce)
}

// ServerKey derives the key for proofs of the server with HKDF-SHA256: the
// secret salted with the client's nonce followed by the server's. It returns
// [ErrSecret] or [ErrNonce].
func ServerKey(secret, clientNonce, serverNonce []byte) (Key, error) {
	return derive(secret, ServerInfo, clientNonce, serverNonce)
}

// Proof returns the proof of t, [ProofSize] bytes.
func (k Key) Proof(t *Transcript) []byte {
	operations.Add(1)
	mac := hmac.New(sha256.New, k.raw)
	_, _ = mac.Write(t.buf)
	return mac.Sum(nil)
}

// Verify reports in constant time whether proof is that of t. A missing proof
// is wrong, as is every proof under the zero key.
func (k Key) Verify(t *Transcript, proof []byte) bool {
	return len(k.raw) > 0 && hmac.Equal(k.Proof(t), proof)
}

// Format prints "[redacted]" for every verb.
func (Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

var operations atomic.Uint64

// Operations returns how many keys were derived and proofs computed since the process began.
// Tests compare it: two handshakes that a stranger must not tell apart take the same.
func Operations() uint64 { return operations.Load() }

func derive(secret []byte, info string, nonces ...[]byte) (Key, error) {
	if len(secret) < MinSecretSize {
		return Key{}, ErrSecret
	}
	salt := make([]byte, 0, len(nonces)*NonceSize)
	for _, n := range nonces {
		if len(n) != NonceSize {
			return Key{}, ErrNonce
		}
		salt = append(salt, n...)
	}
	operations.Add(1)
	raw, err := hkdf.Key(sha256.New, secret, salt, info, sha256.Size)
	if err != nil {
		return Key{}, fmt.Errorf("derive key: %w", err)
	}
	return Key{raw: raw}, nil
}
