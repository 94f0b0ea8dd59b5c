package certs

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"runtime"
	"sync"
	"weak"
)

// Shared has parsed certificates, as long as somebody holds them: who comes over several
// connections shows the same one on each, and so do those who have it together. The zero value is
// empty; it is safe for concurrent use.
type Shared struct {
	mu    sync.Mutex
	known map[[sha256.Size]byte]weak.Pointer[x509.Certificate]
}

// Parse parses a certificate, or returns the one that was parsed before of the same bytes. It is
// read-only, and shares no memory with raw.
func (s *Shared) Parse(raw []byte) (*x509.Certificate, error) {
	digest := sha256.Sum256(raw)
	if cert := s.find(digest); cert != nil {
		return cert, nil
	}

	cert, err := x509.ParseCertificate(bytes.Clone(raw))
	if err != nil {
		return nil, fmt.Errorf("parse certificate: %w", err)
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	if other := s.known[digest].Value(); other != nil {
		return other, nil
	}

	if s.known == nil {
		s.known = make(map[[sha256.Size]byte]weak.Pointer[x509.Certificate])
	}

	s.known[digest] = weak.Make(cert)
	runtime.AddCleanup(cert, s.forget, digest)

	return cert, nil
}

func (s *Shared) find(digest [sha256.Size]byte) *x509.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()

	return s.known[digest].Value()
}

// forget forgets a certificate that nobody holds, unless another one has taken its place.
func (s *Shared) forget(digest [sha256.Size]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.known[digest].Value() == nil {
		delete(s.known, digest)
	}
}
