package tokenstore

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"io"
)

const (
	secretBytes = 32
	tokenLength = 43 // secretBytes in base64 without padding
)

// digest is what the store keeps of a token.
type digest [sha256.Size]byte

// digestOf returns the digest of a presented token, and whether it has the form of one. It takes the
// same time for every token and allocates nothing.
func digestOf(token string) (sum digest, wellFormed bool) {
	var buf [tokenLength]byte
	copy(buf[:], token)
	return sha256.Sum256(buf[:]), len(token) == tokenLength
}

// equal tells in constant time whether two digests are the same.
func (d *digest) equal(other *digest) bool {
	return subtle.ConstantTimeCompare(d[:], other[:]) == 1
}

// shortDigest is the first half of a digest. To find a token that has the same takes 2^127 tries on average,
// and the one that it stands for is random, too.
type shortDigest [sha256.Size / 2]byte

func (d *digest) short() shortDigest { return shortDigest(d[:len(shortDigest{})]) }

// equal tells in constant time whether a short digest is that of d.
func (s *shortDigest) equal(d *digest) bool {
	return subtle.ConstantTimeCompare(s[:], d[:len(s)]) == 1
}

// Fingerprint is a SHA-256 that stands for a peer's certificate, as in RFC 8705. The zero value means no
// certificate.
type Fingerprint [sha256.Size]byte

// admits tells whether what is bound to f may be used by a peer with this certificate. Certificates are
// no secret.
func (f *Fingerprint) admits(presented *Fingerprint) bool {
	return *f == Fingerprint{} || *f == *presented
}

// secret is a fresh token before anybody has it.
type secret struct {
	token  string
	digest digest
}

// drawSecret makes a token of 256 random bits.
func drawSecret(random io.Reader) (secret, error) {
	var raw [secretBytes]byte
	if err := fill(raw[:], random); err != nil {
		return secret{}, err
	}
	token := base64.RawURLEncoding.EncodeToString(raw[:])
	return secret{token: token, digest: sha256.Sum256([]byte(token))}, nil
}

func fill(buf []byte, random io.Reader) error {
	if _, err := io.ReadFull(random, buf); err != nil {
		return fmt.Errorf("%w: %w", ErrRandom, err)
	}
	return nil
}
