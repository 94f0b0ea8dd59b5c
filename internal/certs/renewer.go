package certs

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// renewShare is the part of a certificate's life that is left when it is renewed.
const renewShare = 3

// Renewer keeps a certificate valid in memory: when a third of its life is left,
// the next handshake gets a new one for the same key, so that pins and tokens
// bound to the key go on holding. It has no goroutine, and is safe for concurrent use.
type Renewer struct {
	// Fixed at creation.
	ca      *CA
	request Request

	current atomic.Pointer[tls.Certificate]
	issuing sync.Mutex // one issues, the others wait for its result
}

// NewRenewer issues the first certificate.
func NewRenewer(ca *CA, request Request, now time.Time) (*Renewer, error) {
	request.Hosts = slices.Clone(request.Hosts)
	r := &Renewer{ca: ca, request: request}

	cert, err := ca.Issue(request, now)
	if err != nil {
		return nil, err
	}

	r.current.Store(cert)

	return r, nil
}

// Certificate returns a certificate that is valid at the given time, renewed if
// it is due. It fails only when the authority itself has expired.
func (r *Renewer) Certificate(now time.Time) (*tls.Certificate, error) {
	if cert := r.current.Load(); !r.due(cert.Leaf, now) {
		return cert, nil
	}

	r.issuing.Lock()
	defer r.issuing.Unlock()

	cert := r.current.Load()
	if !r.due(cert.Leaf, now) {
		return cert, nil
	}

	renewed, err := r.ca.Issue(r.request, now)
	if err != nil {
		return nil, err
	}

	r.current.Store(renewed)

	return renewed, nil
}

// RenewAt returns when the current certificate will be due.
func (r *Renewer) RenewAt() time.Time { return RenewAt(r.Leaf()) }

// Leaf returns the current certificate, which may be due.
func (r *Renewer) Leaf() *x509.Certificate { return r.current.Load().Leaf }

// GetCertificate is for the field of tls.Config of that name.
func (r *Renewer) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return r.Certificate(time.Now())
}

// GetClientCertificate is for the field of tls.Config of that name.
func (r *Renewer) GetClientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return r.Certificate(time.Now())
}

// due reports whether a new certificate would be later than this one and is wanted.
func (r *Renewer) due(leaf *x509.Certificate, now time.Time) bool {
	return Due(leaf, now) &&
		(leaf.NotAfter.Before(r.ca.cert.NotAfter) || now.After(leaf.NotAfter) || now.Before(leaf.NotBefore))
}

// Due reports whether a certificate of a [CA] is to be renewed: a third of its life is left, or
// it begins later, since the clock was set back after it was made.
func Due(leaf *x509.Certificate, now time.Time) bool {
	return now.Before(leaf.NotBefore) || !now.Before(RenewAt(leaf))
}

// clockEvery is how often those who wait for long look at the clock: timers stand still while a
// machine sleeps, and know nothing of a clock that is set.
const clockEvery = time.Minute

// Wait returns how long a certificate of a [CA] is not due, at most a minute: within that a clock
// that was set is noticed, and a machine that slept.
func Wait(leaf *x509.Certificate, now time.Time) time.Duration {
	if Due(leaf, now) {
		return 0
	}

	return min(RenewAt(leaf).Sub(now), clockEvery)
}

// RenewAt returns when a certificate of a [CA] is due: when a third of its life is left.
func RenewAt(leaf *x509.Certificate) time.Time {
	life := leaf.NotAfter.Sub(leaf.NotBefore) - ClockSkew

	return leaf.NotAfter.Add(-life / renewShare)
}
