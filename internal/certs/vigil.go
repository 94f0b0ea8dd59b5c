package certs

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"log/slog"
	"sync"
	"time"
)

// When a certificate is about to end. Whoever renews in time does so when a third of the
// life is left, so that a quarter is late; of a long life the last two weeks count.
const (
	endingShare = 4
	endingMost  = 14 * 24 * time.Hour
	// endingFixed is for a certificate that nothing renews as long as the program runs.
	endingFixed = 24 * time.Hour
)

// How a vigil is kept.
const (
	lookEvery = time.Hour
	lookSoon  = time.Second
	tellAgain = time.Minute // at the earliest
	maxTold   = 1024
)

// Attribute keys of the log.
const (
	attrWhose    = "whose"
	attrIdentity = "identity"
	attrLeft     = "left"
)

// Source is where a program gets a certificate of its own from.
type Source struct {
	// Whose says what the certificate is for.
	Whose string
	// Leaf returns the certificate of now, nil where there is none.
	Leaf func() *x509.Certificate
	// Fixed says that nothing renews it.
	Fixed bool
}

// Vigil warns in the log of certificates before they end: when they are about to, and
// again each time that half of what was left is over. It is safe for concurrent use.
type Vigil struct {
	// Fixed at creation.
	log *slog.Logger

	mu   sync.Mutex
	told map[[sha256.Size]byte]time.Time // when to speak of a certificate again
}

// NewVigil returns a vigil over no certificate yet.
func NewVigil(log *slog.Logger) *Vigil {
	return &Vigil{log: log, told: map[[sha256.Size]byte]time.Time{}}
}

// Run looks at the program's own certificates until ctx ends.
func (v *Vigil) Run(ctx context.Context, own ...Source) {
	timer := time.NewTimer(0)
	defer timer.Stop()

	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}

		wait := lookEvery

		for _, source := range own {
			if leaf := source.read(); leaf != nil {
				now := time.Now()
				wait = min(wait, v.look(source.Whose, leaf, source.Fixed, now).Sub(now))
			}
		}

		timer.Reset(max(wait, lookSoon))
	}
}

// Saw takes notice of a certificate that somebody shows, who may well renew it. It is
// called with each connection and costs little.
func (v *Vigil) Saw(whose string, leaf *x509.Certificate) {
	if leaf != nil {
		v.look(whose, leaf, false, time.Now())
	}
}

// look warns where that is due, and returns when it will be.
func (v *Vigil) look(whose string, leaf *x509.Certificate, fixed bool, now time.Time) time.Time {
	if at := endingAt(leaf, fixed); now.Before(at) {
		return at
	}

	left := leaf.NotAfter.Sub(now)

	next, due := v.tell(sha256.Sum256(leaf.Raw), left, now)
	if !due {
		return next
	}

	attrs := []any{attrWhose, whose, attrIdentity, CertificateIdentity(leaf), ClaimNotAfter, leaf.NotAfter}
	if left <= 0 {
		v.log.Error("a certificate has ended; connections with it fail until it is renewed", attrs...)
	} else {
		v.log.Warn("a certificate is about to end; renew it", append(attrs, attrLeft, left.Round(time.Second).String())...)
	}

	return next
}

// tell reports whether it is time to speak of a certificate, and when it will be again.
func (v *Vigil) tell(key [sha256.Size]byte, left time.Duration, now time.Time) (next time.Time, due bool) {
	v.mu.Lock()
	defer v.mu.Unlock()

	if next, known := v.told[key]; known && now.Before(next) {
		return next, false
	}

	if len(v.told) >= maxTold {
		clear(v.told)
	}

	wait := max(left/2, min(left, tellAgain)) // so that its end is told, too
	if left <= 0 {
		wait = lookEvery
	}

	next = now.Add(wait)
	v.told[key] = next

	return next, true
}

// endingAt returns from when on a certificate is about to end.
func endingAt(leaf *x509.Certificate, fixed bool) time.Time {
	early := min(lifeOf(leaf)/endingShare, endingMost)
	if fixed {
		early = max(early, endingFixed)
	}

	return leaf.NotAfter.Add(-early)
}

// lifeOf is how long a certificate lasts from when it was made.
func lifeOf(leaf *x509.Certificate) time.Duration {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	if life > ClockSkew {
		life -= ClockSkew // by which a CA dates it back
	}

	return life
}

// read asks for the certificate of now. A callback that cannot answer without a
// connection gives none.
func (s *Source) read() (leaf *x509.Certificate) {
	defer func() {
		if recover() != nil {
			leaf = nil
		}
	}()

	return s.Leaf()
}
