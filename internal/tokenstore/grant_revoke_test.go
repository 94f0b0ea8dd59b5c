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
	for _, g := range []tokenstore.Grant{other, expired} {
		g.OnRevoke(func() { t.Error("called without a revocation") })
	}
	clock.Advance(time.Second)
	s.Sweep(clock.Now())
	wantEqual(t, "revoke what expired", s.RevokeGrant(expired.ID), false)
	s.Revoke(owner.RuntimeID(), tokenstore.ReasonRevoked)
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
