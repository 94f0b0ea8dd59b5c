package tokenstore_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

func TestGrant_OnRevoke(t *testing.T) {
	t.Parallel()
	s, clock := newStore(tokenstore.Config{TTL: time.Hour})
	owner, _ := mustIssue(t, s, tokenstore.Request{SelfID: "a"})
	var calls atomic.Int64
	count := func() { calls.Add(1) }

	revoked, token := mustGrant(t, s, owner, time.Minute)
	verified, err := s.VerifyGrant(revoked.ID, token, noCertificate)
	wantError(t, "verify", err, nil)
	revoked.OnRevoke(count)
	verified.OnRevoke(count)
	stop := verified.OnRevoke(func() { t.Error("called though taken back") })
	wantEqual(t, "stop", stop(), true)
	wantEqual(t, "stop again", stop(), false)
	wantEqual(t, "revoke", s.RevokeGrant(revoked.ID), true)
	wantEqual(t, "calls", calls.Load(), 2)
	late := verified.OnRevoke(count)
	wantEqual(t, "calls at once", calls.Load(), 3)
	wantEqual(t, "stop after the call", late(), false)
	wantEqual(t, "revoke again", s.RevokeGrant(revoked.ID), false)
	wantEqual(t, "calls in the end", calls.Load(), 3)

	other, _ := mustGrant(t, s, owner, time.Minute)
	expired, _ := mustGrant(t, s, owner, time.Second)
	other.OnRevoke(func() { t.Error("called without a revocation") })
	expired.OnRevoke(count)
	taken := []func() bool{expired.OnRevoke(func() { t.Error("called though taken back") })}
	clock.Advance(time.Second)
	s.Sweep(clock.Now())
	taken = append(taken, expired.OnRevoke(func() { t.Error("called though taken back") })) // of a call that began in time
	for _, stop := range taken {
		wantEqual(t, "stop", stop(), true)
	}
	wantEqual(t, "revoke what expired, and is awaited", s.RevokeGrant(expired.ID), true)
	wantEqual(t, "calls", calls.Load(), 4)
	wantEqual(t, "revoke it again", s.RevokeGrant(expired.ID), false)
	s.Revoke(owner.RuntimeID(), tokenstore.ReasonRevoked)
	wantEqual(t, "residue", s.Residue(), 0)
}

// A grant that has expired is kept while its revocation is awaited, and not any longer.
func TestGrant_ExpiredAndNotAwaited(t *testing.T) {
	t.Parallel()
	s, clock := newStore(tokenstore.Config{TTL: time.Hour})
	owner, _ := mustIssue(t, s, tokenstore.Request{SelfID: "a"})
	for _, before := range []bool{true, false} {
		g, _ := mustGrant(t, s, owner, time.Second)
		var stop func() bool
		if before {
			stop = g.OnRevoke(func() { t.Error("called") })
		}
		clock.Advance(time.Second)
		s.Sweep(clock.Now())
		if !before {
			stop = g.OnRevoke(func() { t.Error("called") })
		}
		wantEqual(t, "stop", stop(), true)
		wantEqual(t, "revoke", s.RevokeGrant(g.ID), false)
	}
	s.Revoke(owner.RuntimeID(), tokenstore.ReasonRevoked)
	wantEqual(t, "residue", s.Residue(), 0)
}

// Whatever order a revocation and a call of OnRevoke take, the function is called
// once, and the revocation does not return before what was arranged earlier.
func TestGrant_OnRevokeAgainstRevoke(t *testing.T) {
	t.Parallel()
	s, _ := newStore(tokenstore.Config{TTL: time.Hour, MaxGrantsPerIdentity: 1000})
	owner, _ := mustIssue(t, s, tokenstore.Request{SelfID: "a"})
	for range 200 {
		grant, _ := mustGrant(t, s, owner, time.Minute)
		var calls atomic.Int64
		grant.OnRevoke(func() { calls.Add(1) })
		var both sync.WaitGroup
		both.Go(func() { grant.OnRevoke(func() { calls.Add(1) }) })
		both.Go(func() {
			s.RevokeGrant(grant.ID)
			if calls.Load() == 0 {
				t.Error("RevokeGrant returned before the function was called")
			}
		})
		both.Wait()
		wantEqual(t, "calls", calls.Load(), 2)
	}
}
