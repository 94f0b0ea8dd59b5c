package tokenstore_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

func TestAudit_PROTO31_RevokeEndsEverything(t *testing.T) {
	t.Parallel()
	s, _ := newStore(tokenstore.Config{})
	identity, first := mustIssue(t, s, tokenstore.Request{SelfID: "a"})
	second := mustRenew(t, s, identity, first)
	grant, grantToken, err := s.IssueGrant(identity, "logger", "1", 0)
	wantError(t, "grant", err, nil)
	other, otherToken := mustIssue(t, s, tokenstore.Request{SelfID: "a"})

	wantEqual(t, "revoked", s.Revoke(identity.RuntimeID(), tokenstore.ReasonPolicy), true)
	wantEqual(t, "revoked again", s.Revoke(identity.RuntimeID(), tokenstore.ReasonRevoked), false)
	wantEqual(t, "ended", identity.Ended(), true)
	wantEqual(t, "reason", identity.Reason(), tokenstore.ReasonPolicy)
	for _, token := range []string{first, second} {
		_, err := s.Verify(identity.RuntimeID(), token, noCertificate)
		wantError(t, "verify", err, tokenstore.ErrUnknown)
	}
	_, err = s.VerifyGrant(grant.ID, grantToken, noCertificate)
	wantError(t, "verify grant", err, tokenstore.ErrUnknown)
	_, err = s.Verify(other.RuntimeID(), otherToken, noCertificate)
	wantError(t, "verify the other", err, nil)
	wantEqual(t, "revoked nobody", s.Revoke("nobody", tokenstore.ReasonRevoked), false)
}

// One event for each identity, however many end it at once, and one of them knows that it did.
func TestOneEventForEachEnd(t *testing.T) {
	t.Parallel()
	const rounds, contenders = 30, 4
	s, clock := newStore(tokenstore.Config{TTL: time.Minute})
	var events, hooks, ended atomic.Int32
	s.Subscribe(func(end tokenstore.End) {
		events.Add(1)
		wantEqual(t, "reason", end.Reason, end.Identity.Reason())
	})
	for round := range int32(rounds) {
		identity, _ := mustIssue(t, s, tokenstore.Request{SelfID: "a"})
		identity.OnEnd(func() { hooks.Add(1) })
		clock.Advance(time.Minute)
		contend(s, contenders, func(i int) {
			if i == 0 {
				ended.Add(int32(s.Sweep(clock.Now())))
			} else if s.Revoke(identity.RuntimeID(), tokenstore.ReasonRevoked) {
				ended.Add(1)
			}
		})
		if events.Load() != round+1 || hooks.Load() != round+1 || ended.Load() != round+1 {
			t.Fatalf("round %d: %d events, %d hooks, %d ended", round, events.Load(), hooks.Load(), ended.Load())
		}
	}
	wantEqual(t, "residue", s.Residue(), 0)
}

func TestSequenceFollowsTheOrderOfChanges(t *testing.T) {
	t.Parallel()
	s, _ := newStore(tokenstore.Config{})
	var numbers []uint64
	s.Subscribe(func(end tokenstore.End) { numbers = append(numbers, end.Sequence) })
	a, token := mustIssue(t, s, tokenstore.Request{SelfID: "a"}) // 1
	b, _ := mustIssue(t, s, tokenstore.Request{SelfID: "b"})     // 2
	mustRenew(t, s, a, token)                                    // 3
	s.Revoke(b.RuntimeID(), tokenstore.ReasonRevoked)            // 4
	grant, _, err := s.IssueGrant(a, "logger", "1", 0)           // 5
	wantError(t, "grant", err, nil)
	s.RevokeGrant(grant.ID)                           // 6
	s.Revoke(a.RuntimeID(), tokenstore.ReasonRevoked) // 7
	if !slices.Equal(numbers, []uint64{4, 7}) {
		t.Errorf("numbers %v", numbers)
	}
}

func TestCancelledSubscription(t *testing.T) {
	t.Parallel()
	s, _ := newStore(tokenstore.Config{})
	var calls [3]int
	var cancels [3]func()
	for i := range calls {
		cancels[i] = s.Subscribe(func(tokenstore.End) { calls[i]++ })
	}
	end := func() {
		identity, _ := mustIssue(t, s, tokenstore.Request{SelfID: "a"})
		s.Revoke(identity.RuntimeID(), tokenstore.ReasonRevoked)
	}
	end()
	cancels[1]()
	cancels[1]()
	end()
	wantEqual(t, "calls", calls, [3]int{2, 1, 2})
}

func TestRevokeAll(t *testing.T) {
	t.Parallel()
	s, _ := newStore(tokenstore.Config{})
	const n = 1000
	ends := 0
	s.Subscribe(func(end tokenstore.End) {
		ends++
		wantEqual(t, "reason", end.Reason, tokenstore.ReasonShutdown)
	})
	for i := range n {
		identity, _ := mustIssue(t, s, tokenstore.Request{SelfID: fmt.Sprint(i), Peer: fmt.Sprint(i % 7)})
		_, _, err := s.IssueGrant(identity, "logger", "1", 0)
		wantError(t, "grant", err, nil)
	}
	s.RevokeAll(tokenstore.ReasonShutdown)
	wantEqual(t, "ends", ends, n)
	wantEqual(t, "residue", s.Residue(), 0)
}

func TestOnEnd(t *testing.T) {
	t.Parallel()
	s, _ := newStore(tokenstore.Config{})
	identity, _ := mustIssue(t, s, tokenstore.Request{SelfID: "a"})
	var kept, stopped, late int
	stopKept := identity.OnEnd(func() { kept++ })
	stop := identity.OnEnd(func() { stopped++ })
	wantEqual(t, "stop", stop(), true)
	wantEqual(t, "stop again", stop(), false)
	s.Revoke(identity.RuntimeID(), tokenstore.ReasonRevoked)
	stopLate := identity.OnEnd(func() { late++ })
	wantEqual(t, "stop after the call", stopKept(), false)
	wantEqual(t, "stop after the call at once", stopLate(), false)
	wantEqual(t, "kept", kept, 1)
	wantEqual(t, "stopped", stopped, 0)
	wantEqual(t, "late", late, 1)
}

// Every function is called exactly once or was stopped, however registering, stopping and ending race.
func TestOnEndAgainstEnd(t *testing.T) {
	t.Parallel()
	for range 200 {
		s, _ := newStore(tokenstore.Config{})
		identity, _ := mustIssue(t, s, tokenstore.Request{SelfID: "a"})
		const goroutines, each = 4, 25
		var calls [goroutines * each]atomic.Int32
		var stopped [goroutines * each]bool
		var group sync.WaitGroup
		for g := range goroutines {
			group.Go(func() {
				for i := g * each; i < (g+1)*each; i++ {
					stop := identity.OnEnd(func() { calls[i].Add(1) })
					if i%3 == 0 {
						stopped[i] = stop()
					}
				}
			})
		}
		group.Go(func() { s.Revoke(identity.RuntimeID(), tokenstore.ReasonRevoked) })
		group.Wait()
		for i := range calls {
			want := int32(1)
			if stopped[i] {
				want = 0
			}
			wantEqual(t, fmt.Sprintf("calls of %d, stopped %v", i, stopped[i]), calls[i].Load(), want)
		}
	}
}

// Functions run without a lock held: they may do anything with the store and the identity.
func TestFunctionsMayUseTheStore(t *testing.T) {
	t.Parallel()
	s, clock := newStore(tokenstore.Config{MaxTotal: 2, TTL: time.Minute})
	use := func(identity *tokenstore.Identity) {
		wantEqual(t, "ended", identity.Ended(), true)
		wantEqual(t, "revoked again", s.Revoke(identity.RuntimeID(), tokenstore.ReasonRevoked), false)
		_, found := s.Lookup(identity.RuntimeID())
		wantEqual(t, "found", found, false)
		_, _, err := s.IssueGrant(identity, "logger", "1", 0)
		wantError(t, "grant", err, tokenstore.ErrEnded)
		identity.OnEnd(func() {})()
		s.Sweep(clock.Now())
		s.Len()
		s.Subscribe(func(tokenstore.End) {})()
	}
	calls := 0
	s.Subscribe(func(end tokenstore.End) {
		calls++
		use(end.Identity)
	})
	for range 2 {
		identity, _ := mustIssue(t, s, tokenstore.Request{SelfID: "a"})
		identity.OnEnd(func() {
			calls++
			use(identity)
		})
	}
	clock.Advance(time.Minute)
	identity, _ := mustIssue(t, s, tokenstore.Request{SelfID: "a"}) // sweeps
	wantEqual(t, "calls", calls, 4)
	s.Revoke(identity.RuntimeID(), tokenstore.ReasonRevoked)
	wantEqual(t, "calls", calls, 5)
}

// When Revoke returns all that it called has returned.
func TestAudit_PROTO31_RevokeWaitsForWhatItCalls(t *testing.T) {
	t.Parallel()
	s, _ := newStore(tokenstore.Config{})
	var order []string
	identity, _ := mustIssue(t, s, tokenstore.Request{SelfID: "a"})
	s.Subscribe(func(tokenstore.End) { order = append(order, "subscriber") })
	identity.OnEnd(func() { order = append(order, "hook") })
	s.Revoke(identity.RuntimeID(), tokenstore.ReasonRevoked)
	if !slices.Equal(order, []string{"hook", "subscriber"}) {
		t.Errorf("order %v", order)
	}
}
