package tokenstore_test

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

func TestVerify(t *testing.T) {
	t.Parallel()
	s, clock := newStore(tokenstore.Config{TTL: time.Hour, Grace: time.Minute})
	plain, plainToken := mustIssue(t, s, tokenstore.Request{SelfID: "plain"})
	bound, boundToken := mustIssue(t, s, tokenstore.Request{SelfID: "bound", Fingerprint: someCertificate})
	brief, briefToken := mustIssue(t, s, tokenstore.Request{SelfID: "brief", TTL: time.Second})
	gone, goneToken := mustIssue(t, s, tokenstore.Request{SelfID: "gone"})
	s.Revoke(gone.RuntimeID(), tokenstore.ReasonRevoked)
	clock.Advance(time.Second)

	for _, test := range []struct {
		name            string
		identity        *tokenstore.Identity
		id, token       string
		fp              tokenstore.Fingerprint
		verify, matches error
	}{
		{"right", plain, plain.RuntimeID(), plainToken, noCertificate, nil, nil},
		{"right, with a certificate", plain, plain.RuntimeID(), plainToken, someCertificate, nil, nil},
		{"bound", bound, bound.RuntimeID(), boundToken, someCertificate, nil, nil},
		{"bound, no certificate", bound, bound.RuntimeID(), boundToken, noCertificate, tokenstore.ErrFingerprint, nil},
		{"bound, other one", bound, bound.RuntimeID(), boundToken, otherCertificate, tokenstore.ErrFingerprint, nil},
		{"another's token", nil, plain.RuntimeID(), boundToken, someCertificate, tokenstore.ErrMismatch, tokenstore.ErrMismatch},
		{"no token", nil, plain.RuntimeID(), "", noCertificate, tokenstore.ErrMismatch, tokenstore.ErrMismatch},
		{"token cut", nil, plain.RuntimeID(), plainToken[:42], noCertificate, tokenstore.ErrMismatch, tokenstore.ErrMismatch},
		{"token longer", nil, plain.RuntimeID(), plainToken + "A", noCertificate, tokenstore.ErrMismatch, tokenstore.ErrMismatch},
		{"huge token", nil, plain.RuntimeID(), strings.Repeat(plainToken, 1000), noCertificate, tokenstore.ErrMismatch, tokenstore.ErrMismatch},
		{"expired", nil, brief.RuntimeID(), briefToken, noCertificate, tokenstore.ErrExpired, tokenstore.ErrExpired},
		{"expired, wrong token", nil, brief.RuntimeID(), plainToken, noCertificate, tokenstore.ErrMismatch, tokenstore.ErrMismatch},
		{"revoked", nil, gone.RuntimeID(), goneToken, noCertificate, tokenstore.ErrUnknown, tokenstore.ErrUnknown},
		{"unknown", nil, "plain-aaaa", plainToken, noCertificate, tokenstore.ErrUnknown, tokenstore.ErrUnknown},
		{"nothing", nil, "", "", noCertificate, tokenstore.ErrUnknown, tokenstore.ErrUnknown},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			verified, err := s.Verify(test.id, test.token, test.fp)
			check(t, "verify", verified, err, test.identity, test.verify)
			matched, err := s.Match(test.id, test.token)
			check(t, "match", matched, err, test.identity, test.matches)
		})
	}
}

// check compares the outcome of a verification. An identity is expected where no error is.
func check(t *testing.T, what string, got *tokenstore.Identity, err error, identity *tokenstore.Identity, want error) {
	t.Helper()
	wantError(t, what, err, want)
	if want != nil {
		wantError(t, what, err, tokenstore.ErrInvalid)
		identity = nil
	}
	wantEqual(t, what, got, identity)
}

func TestVerifyAllocatesNothing(t *testing.T) {
	s := tokenstore.New(tokenstore.Config{})
	identity, token := mustIssue(t, s, tokenstore.Request{SelfID: "a", Fingerprint: someCertificate})
	id := identity.RuntimeID()
	mustRenew(t, s, identity, token)
	for name, f := range map[string]func() error{
		"right":       func() error { _, err := s.Verify(id, token, someCertificate); return err },
		"certificate": func() error { _, err := s.Verify(id, token, otherCertificate); return err },
		"wrong":       func() error { _, err := s.Verify(id, "wrong", someCertificate); return err },
		"unknown":     func() error { _, err := s.Verify("unknown", token, someCertificate); return err },
		"match":       func() error { _, err := s.Match(id, token); return err },
		"lookup":      func() error { s.Lookup(id); return nil },
	} {
		var err error
		if allocs := testing.AllocsPerRun(100, func() { err = f() }); allocs != 0 {
			t.Errorf("%s: %v allocations (%v)", name, allocs, err)
		}
	}
}

// Nothing that changes the store can hold up a verification: it needs no lock.
func TestVerifyNeedsNoLock(t *testing.T) {
	t.Parallel()
	s, _ := newStore(tokenstore.Config{})
	identity, token := mustIssue(t, s, tokenstore.Request{SelfID: "a"})
	grant, grantToken, err := s.IssueGrant(identity, "logger", "1", 0)
	wantError(t, "grant", err, nil)
	s.WhileLocked(func() {
		_, err := s.Verify(identity.RuntimeID(), token, noCertificate)
		wantError(t, "verify", err, nil)
		_, err = s.VerifyGrant(grant.ID, grantToken, noCertificate)
		wantError(t, "verify grant", err, nil)
		_, found := s.Lookup(identity.RuntimeID())
		wantEqual(t, "found", found, true)
	})
}

func TestRenew(t *testing.T) {
	t.Parallel()
	s, clock := newStore(tokenstore.Config{Grace: time.Minute})
	identity, first := mustIssue(t, s, tokenstore.Request{SelfID: "a", TTL: time.Hour, Fingerprint: someCertificate})
	id := identity.RuntimeID()
	good := func(what, token string, want error) {
		t.Helper()
		_, err := s.Verify(id, token, someCertificate)
		wantError(t, what, err, want)
	}
	clock.Advance(30 * time.Minute)
	second := mustRenew(t, s, identity, first)
	wantEqual(t, "issued", identity.IssuedAt(), clock.Now())
	wantEqual(t, "expires", identity.ExpiresAt(), clock.Now().Add(time.Hour))
	good("first, in its grace", first, nil)
	good("second", second, nil)
	_, _, err := s.Renew(id, first, someCertificate)
	wantError(t, "renew with the first again", err, tokenstore.ErrSuperseded)

	third := mustRenew(t, s, identity, second)
	good("first, two renewals ago", first, tokenstore.ErrMismatch)
	good("second, in its grace", second, nil)
	good("third", third, nil)
	clock.Advance(time.Minute)
	good("second, after its grace", second, tokenstore.ErrMismatch)
	_, _, err = s.Renew(id, second, someCertificate)
	wantError(t, "renew with the second after its grace", err, tokenstore.ErrMismatch)
	_, _, err = s.Renew(id, third, otherCertificate)
	wantError(t, "renew with another certificate", err, tokenstore.ErrFingerprint)
	_, _, err = s.Renew("unknown", third, someCertificate)
	wantError(t, "renew nobody's", err, tokenstore.ErrUnknown)
	wantEqual(t, "len", s.Len(), 1)

	clock.Advance(time.Hour)
	_, _, err = s.Renew(id, third, someCertificate)
	wantError(t, "renew too late", err, tokenstore.ErrExpired)
	s.Sweep(clock.Now())
	_, _, err = s.Renew(id, third, someCertificate)
	wantError(t, "renew after the end", err, tokenstore.ErrUnknown)
}

func TestGraceProlongsNoToken(t *testing.T) {
	t.Parallel()
	s, clock := newStore(tokenstore.Config{TTL: time.Hour, Grace: 10 * time.Minute})
	identity, first := mustIssue(t, s, tokenstore.Request{SelfID: "a"})
	clock.Advance(time.Hour - time.Minute)
	mustRenew(t, s, identity, first)
	clock.Advance(time.Minute)
	_, err := s.Match(identity.RuntimeID(), first)
	wantError(t, "after its own expiry", err, tokenstore.ErrMismatch)
}

func TestNoGrace(t *testing.T) {
	t.Parallel()
	s, _ := newStore(tokenstore.Config{Grace: -1})
	identity, first := mustIssue(t, s, tokenstore.Request{SelfID: "a"})
	second := mustRenew(t, s, identity, first)
	_, err := s.Match(identity.RuntimeID(), first)
	wantError(t, "first", err, tokenstore.ErrMismatch)
	_, err = s.Match(identity.RuntimeID(), second)
	wantError(t, "second", err, nil)
}

// Of several renewals with the same token exactly one succeeds, and its token is the good one.
func TestRenewOnce(t *testing.T) {
	t.Parallel()
	const rounds, contenders = 30, 4
	s, _ := newStore(tokenstore.Config{})
	identity, token := mustIssue(t, s, tokenstore.Request{SelfID: "a"})
	for range rounds {
		fresh := make(chan string, contenders)
		contend(s, contenders, func(int) {
			_, renewed, err := s.Renew(identity.RuntimeID(), token, noCertificate)
			if err == nil {
				fresh <- renewed
			} else if !errors.Is(err, tokenstore.ErrSuperseded) {
				t.Errorf("renew: %v", err)
			}
		})
		if len(fresh) != 1 {
			t.Fatalf("%d renewals", len(fresh))
		}
		token = <-fresh
		_, err := s.Verify(identity.RuntimeID(), token, noCertificate)
		wantError(t, "verify", err, nil)
	}
}

// A renewal that races with a revocation leaves nobody alive.
func TestAudit_PROTO31_RenewAgainstRevoke(t *testing.T) {
	t.Parallel()
	for range 200 {
		s, _ := newStore(tokenstore.Config{})
		identity, token := mustIssue(t, s, tokenstore.Request{SelfID: "a"})
		id := identity.RuntimeID()
		var group sync.WaitGroup
		group.Go(func() {
			for {
				_, renewed, err := s.Renew(id, token, noCertificate)
				if err != nil {
					wantError(t, "renew", err, tokenstore.ErrInvalid)
					return
				}
				token = renewed
			}
		})
		group.Go(func() { s.Revoke(id, tokenstore.ReasonRevoked) })
		group.Wait()
		_, err := s.Verify(id, token, noCertificate)
		wantError(t, "verify", err, tokenstore.ErrUnknown)
		wantEqual(t, "residue", s.Residue(), 0)
	}
}

// Once Revoke has returned no verification succeeds, however the tables change beside it; until it was
// called all do.
func TestAudit_PROTO31_VerifyAgainstRevoke(t *testing.T) {
	t.Parallel()
	s, _ := newStore(tokenstore.Config{})
	for range 8 {
		identity, token := mustIssue(t, s, tokenstore.Request{SelfID: "a"})
		id := identity.RuntimeID()
		var asked, revoked atomic.Bool
		var group sync.WaitGroup
		for range 2 {
			group.Go(func() {
				for over := false; !over; {
					over = revoked.Load()
					_, err := s.Verify(id, token, noCertificate)
					if over && err == nil {
						t.Error("verified after it was revoked")
					}
					if err != nil && !asked.Load() {
						t.Errorf("before it was revoked: %v", err)
					}
				}
			})
		}
		group.Go(func() {
			const others = 2000 // enough for shards to grow
			for range others {
				mustIssue(t, s, tokenstore.Request{SelfID: "other", MaxInstances: others})
			}
			asked.Store(true)
			s.Revoke(id, tokenstore.ReasonRevoked)
			revoked.Store(true)
		})
		group.Wait()
		s.RevokeAll(tokenstore.ReasonShutdown)
	}
}
