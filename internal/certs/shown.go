package certs

import (
	"crypto/x509"
	"math"
	"time"
)

// When and how often another connection is opened to show a renewed certificate: after whoever renews it has done so, with a
// third of the life of the one that was shown left (renewShare), and before anybody warns of that, with a quarter left
// (endingShare). To look costs little.
const (
	lastPart, lastOf = 7, 24
	redialTurn       = 16 // of that
)

// Shown is the certificate that one side showed the other last, where it may have another
// one next time. The zero value is none.
type Shown struct {
	until  time.Time
	last   time.Duration // part of its time
	redial time.Time     // when another connection was opened for the sake of it
	leaf   *x509.Certificate
}

// Note takes note of the certificate that was shown on a new connection, nil for none.
func (s *Shown) Note(leaf *x509.Certificate) {
	switch {
	case leaf == nil:
		*s = Shown{}
	case !s.until.Equal(leaf.NotAfter):
		*s = Shown{until: leaf.NotAfter, last: lifeOf(leaf) * lastPart / lastOf}
	}

	s.leaf = leaf
}

// Leaf returns it, nil for none.
func (s *Shown) Leaf() *x509.Certificate { return s.leaf }

// Differs reports whether a certificate, nil for none, is another one than was shown.
func (s *Shown) Differs(leaf *x509.Certificate) bool {
	if leaf == nil || s.leaf == nil {
		return leaf != s.leaf
	}

	return !leaf.Equal(s.leaf)
}

// Due returns how long it is until a later one should be shown.
func (s *Shown) Due(now time.Time) time.Duration {
	if s.until.IsZero() {
		return math.MaxInt64
	}

	return max(s.until.Add(-s.last).Sub(now), s.redial.Add(s.last/redialTurn).Sub(now))
}

// Redial reports whether another connection is to be opened by now, and takes note of it.
func (s *Shown) Redial(now time.Time) bool {
	due := s.Due(now) <= 0
	if due {
		s.redial = now
	}

	return due
}
