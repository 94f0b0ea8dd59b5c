package certs

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/masegraye/connect-plugin-go/internal/bom"
)

const (
	pemCertificate = "CERTIFICATE"
	pemPrivateKey  = "PRIVATE KEY"
)

// The marks of a block: pem.Decode skips a damaged one in silence, so they are counted.
var (
	pemDashes = []byte("-----")
	pemBegin  = []byte("-----BEGIN ")
)

// ErrPEM is returned for data that is not the PEM that was expected.
var ErrPEM = errors.New("malformed PEM")

// EncodeCertificates returns DER certificates as PEM, in the given order.
func EncodeCertificates(chain ...[]byte) []byte {
	blocks := make([][]byte, 0, len(chain))
	for _, der := range chain {
		blocks = append(blocks, pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der}))
	}

	return slices.Concat(blocks...)
}

// EncodeKey returns a private key as PEM, in PKCS #8.
func EncodeKey(key crypto.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}

	return pem.EncodeToMemory(&pem.Block{Type: pemPrivateKey, Bytes: der}), nil
}

// ParseCertificates reads one or more certificates, with or without text between
// them. Other blocks and incomplete ones are refused: what cannot be read whole
// may be a file that is still being written.
func ParseCertificates(data []byte) ([]*x509.Certificate, error) {
	var parsed []*x509.Certificate

	for start := bytes.Index(data, pemBegin); start >= 0; start = bytes.Index(data, pemBegin) {
		der, rest, err := decode(data[start:], pemCertificate)
		if err != nil {
			return nil, err
		}

		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%w: certificate %d: %w", ErrPEM, len(parsed)+1, err)
		}

		parsed = append(parsed, cert)
		data = rest
	}

	if err := bom.Check(data); err != nil && len(parsed) == 0 { // that of UTF-8 is text before the first one
		return nil, err
	}

	if bytes.Contains(data, pemDashes) {
		return nil, fmt.Errorf("%w: incomplete block at the end", ErrPEM)
	}

	if len(parsed) == 0 {
		return nil, fmt.Errorf("%w: no certificate", ErrPEM)
	}

	return parsed, nil
}

// ParseKey reads the one private key that [EncodeKey] wrote. Errors show
// nothing of the data.
func ParseKey(data []byte) (crypto.Signer, error) {
	if err := bom.Check(data); err != nil {
		return nil, err
	}

	der, rest, err := decode(bytes.TrimSpace(data), pemPrivateKey)
	if err != nil {
		return nil, err
	}

	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%w: data after the private key", ErrPEM)
	}

	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%w: no PKCS #8 private key", ErrPEM)
	}

	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%w: a %T cannot sign", ErrPEM, key)
	}

	return signer, nil
}

// decode reads the block of the wanted type that data starts with.
func decode(data []byte, want string) (der, rest []byte, err error) {
	if !bytes.HasPrefix(data, pemBegin) {
		return nil, nil, fmt.Errorf("%w: it does not start with a %q block", ErrPEM, want)
	}

	block, rest := pem.Decode(data)
	if block == nil || bytes.Count(data[:len(data)-len(rest)], pemBegin) != 1 {
		return nil, nil, fmt.Errorf("%w: incomplete or damaged block", ErrPEM)
	}

	if block.Type != want {
		return nil, nil, fmt.Errorf("%w: a %q block, want %q", ErrPEM, block.Type, want)
	}

	return block.Bytes, rest, nil
}
