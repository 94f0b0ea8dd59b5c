package certs

import (
	"context"
	"crypto/x509"
	"maps"
	"slices"
	"sync"
	"time"
)

// standingTick is how often the connections are looked at when no end is near, unless their
// overtime is shorter: launches end without a word, and clocks are set.
const (
	standingTick = time.Minute
	lookFast     = time.Second
)

// Standing are the connections of a server, and ends each that outlives the certificate
// that its peer showed, as [Tenure] says. Somebody runs [Standing.Run]. It is safe for
// concurrent use.
type Standing[C comparable] struct {
	// Fixed at creation.
	tenure Tenure
	ended  func(who string, leaf *x509.Certificate) bool // may be nil
	end    func(C)
	wake   chan struct{} // capacity one: an end came closer

	mu    sync.Mutex
	conns map[C]*standing
	shown map[string]*showing // by whom
	next  time.Time           // when the connections are looked at
}

// standing is what is known of a connection; leaf is nil before its peer showed one.
type standing struct {
	leaf  *x509.Certificate
	who   string
	until time.Time
	alone bool // nothing that was shown elsewhere prolongs it
}

// showing is until when somebody showed certificates, on so many connections that stand.
type showing struct {
	conns int
	until time.Time
}

// NewStanding returns an empty set. end ends a connection, and waits for nothing. ended,
// which may be nil, says of whose certificate is good no more before its time is over. Both
// are called with no lock held.
func NewStanding[C comparable](t Tenure, end func(C), ended func(who string, leaf *x509.Certificate) bool) *Standing[C] {
	return &Standing[C]{
		tenure: t, ended: ended, end: end, wake: make(chan struct{}, 1),
		conns: map[C]*standing{}, shown: map[string]*showing{},
	}
}

// Enter adds a connection of which no certificate is known.
func (s *Standing[C]) Enter(c C) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = &standing{}
}

// Show takes note of the certificate that the peer of a connection showed, and of when that ends,
// as [EndOf] says. One that has left is not added again.
func (s *Standing[C]) Show(c C, leaf *x509.Certificate, ends time.Time) {
	who := CertificateIdentity(leaf)
	if who == "" {
		key := PinOf(leaf)
		who = "key " + string(key[:])
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	conn, stands := s.conns[c]
	if !stands || conn.leaf != nil {
		return
	}

	conn.leaf, conn.who, conn.until = leaf, who, ends

	by := s.shown[who]
	if by == nil {
		by = &showing{}
		s.shown[who] = by
	}

	by.conns++
	if ends.After(by.until) {
		by.until = ends
	}

	if s.tenure.EndsAt(ends, by.until).Before(s.next) {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// Leave forgets a connection that was closed.
func (s *Standing[C]) Leave(c C) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaveLocked(c)
}

// Len returns how many connections there are.
func (s *Standing[C]) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()

	return len(s.conns)
}

// Run ends connections when it is time, until ctx ends.
func (s *Standing[C]) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()

	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-timer.C:
		}

		timer.Reset(s.sweep(time.Now()))
	}
}

// sweep ends the connections that are over and returns when to look again.
func (s *Standing[C]) sweep(now time.Time) time.Duration {
	s.cutShort(now)

	over, next := s.over(now)
	for _, c := range over {
		s.end(c)
	}

	return next
}

// cutShort takes note of the certificates that are good no more.
func (s *Standing[C]) cutShort(now time.Time) {
	if s.ended == nil {
		return
	}

	s.mu.Lock()
	all := slices.Collect(maps.Values(s.conns))
	s.mu.Unlock()

	for _, conn := range all {
		s.mu.Lock()
		who, leaf := conn.who, conn.leaf
		s.mu.Unlock()

		if leaf == nil || !s.ended(who, leaf) {
			continue
		}

		s.mu.Lock()
		conn.alone = true
		if conn.until.After(now) {
			conn.until = now
		}
		s.mu.Unlock()
	}
}

// over takes out the connections that are over.
func (s *Standing[C]) over(now time.Time) (over []C, next time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()

	next = min(standingTick, max(lookFast, s.tenure.Overtime))

	for c, conn := range s.conns {
		if conn.leaf == nil {
			continue
		}

		var shown time.Time
		if !conn.alone {
			shown = s.shown[conn.who].until
		}

		if s.tenure.Over(conn.until, shown, now) {
			over = append(over, c)
		} else {
			next = min(next, s.tenure.EndsAt(conn.until, shown).Sub(now)+time.Millisecond)
		}
	}

	for _, c := range over {
		s.leaveLocked(c)
	}

	s.next = now.Add(next)

	return over, next
}

func (s *Standing[C]) leaveLocked(c C) {
	conn, stands := s.conns[c]
	if !stands {
		return
	}

	delete(s.conns, c)

	if by := s.shown[conn.who]; by != nil {
		if by.conns--; by.conns == 0 {
			delete(s.shown, conn.who)
		}
	}
}
