package tokenstore_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

func TestSweep(t *testing.T) {
	t.Parallel()
	const n = 5*tokenstore.SweepBatch + 3
	s, clock := newStore(tokenstore.Config{TTL: time.Hour})
	ends := 0
	s.Subscribe(func(end tokenstore.End) {
		ends++
		wantEqual(t, "reason", end.Reason, tokenstore.ReasonExpired)
	})
	for i := range n {
		identity, _ := mustIssue(t, s, tokenstore.Request{SelfID: fmt.Sprint(i), TTL: time.Duration(i+1) * time.Second})
		mustGrant(t, s, identity, time.Minute)
		mustIssue(t, s, tokenstore.Request{SelfID: "lives"})
	}
	clock.Advance(time.Second - 1)
	wantEqual(t, "swept too early", s.Sweep(clock.Now()), 0)
	wantEqual(t, "swept first", s.Sweep(clock.Now().Add(1)), 1)
	clock.Advance(time.Hour - time.Second)
	swept := s.Sweep(clock.Now())
	wantEqual(t, "ends", ends, n)
	if most := 2 * n; swept < n-1 || swept > most {
		t.Errorf("swept %d, at most %d", swept, most)
	}
	wantEqual(t, "swept again", s.Sweep(clock.Now()), 0)
	wantEqual(t, "len", s.Len(), n)
}

// What was renewed is not swept when its first token would have expired.
func TestSweepAfterRenewal(t *testing.T) {
	t.Parallel()
	s, clock := newStore(tokenstore.Config{TTL: time.Hour})
	const n = 100
	identities, tokens := make([]*tokenstore.Identity, n), make([]string, n)
	for i := range n {
		identities[i], tokens[i] = mustIssue(t, s, tokenstore.Request{SelfID: "a"})
	}
	clock.Advance(time.Minute)
	for i := 0; i < n; i += 2 {
		mustRenew(t, s, identities[i], tokens[i])
	}
	clock.Advance(time.Hour - time.Minute)
	wantEqual(t, "swept", s.Sweep(clock.Now()), n/2)
	for i, identity := range identities {
		wantEqual(t, fmt.Sprintf("ended %d", i), identity.Ended(), i%2 == 1)
	}
	clock.Advance(time.Minute)
	wantEqual(t, "swept the rest", s.Sweep(clock.Now()), n/2)
}

func TestAudit_PROTO31_RunSweepsWithoutBeingAsked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := tokenstore.New(tokenstore.Config{TTL: time.Hour})
		began := time.Now()
		ends := make(map[string]time.Duration)
		s.Subscribe(func(end tokenstore.End) { ends[end.Identity.SelfID()] = time.Since(began) })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.Run(ctx)
		}()
		synctest.Wait() // with nothing to wait for
		hour, token := mustIssue(t, s, tokenstore.Request{SelfID: "hour"})
		synctest.Wait() // for the hour
		mustIssue(t, s, tokenstore.Request{SelfID: "minute", TTL: time.Minute})
		owner, _ := mustIssue(t, s, tokenstore.Request{SelfID: "day", TTL: 24 * time.Hour})
		mustGrant(t, s, owner, time.Second)
		revoked, _ := mustIssue(t, s, tokenstore.Request{SelfID: "revoked", TTL: 30 * time.Second})
		s.Revoke(revoked.RuntimeID(), tokenstore.ReasonRevoked)
		residue := s.Residue()

		time.Sleep(2 * time.Second)
		synctest.Wait()
		wantEqual(t, "the grant is gone", s.Residue() < residue, true)
		time.Sleep(29*time.Minute + 58*time.Second)
		mustRenew(t, s, hour, token)
		time.Sleep(48 * time.Hour)
		synctest.Wait()
		wantEqual(t, "minute", ends["minute"], time.Minute)
		wantEqual(t, "hour, renewed after half of it", ends["hour"], 90*time.Minute)
		wantEqual(t, "day", ends["day"], 24*time.Hour)
		wantEqual(t, "revoked", ends["revoked"], 0)
		wantEqual(t, "residue", s.Residue(), 0)
		cancel()
		<-done
	})
}

// Between its sweeps Run does nothing: the bubble's clock jumps from deadline to deadline.
func TestRunIsIdleBetweenDeadlines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int32
		s := tokenstore.New(tokenstore.Config{TTL: time.Hour, Now: func() time.Time {
			reads.Add(1)
			return time.Now()
		}})
		go s.Run(t.Context())
		mustIssue(t, s, tokenstore.Request{SelfID: "a"})
		synctest.Wait()
		reads.Store(0)
		time.Sleep(365 * 24 * time.Hour)
		synctest.Wait()
		if most := int32(4); reads.Load() == 0 || reads.Load() > most {
			t.Errorf("read the clock %d times in a year", reads.Load())
		}
		wantEqual(t, "len", s.Len(), 0)
	})
}

// Nor does a clock that is set back behind the start of the store keep it busy.
func TestRunWithAClockSetBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var back atomic.Int64
		s := tokenstore.New(tokenstore.Config{TTL: time.Minute, Now: func() time.Time {
			return time.Now().Add(-time.Duration(back.Load()))
		}})
		back.Store(int64(time.Hour))
		go s.Run(t.Context())
		synctest.Wait()
		identity, _ := mustIssue(t, s, tokenstore.Request{SelfID: "a"})
		time.Sleep(time.Hour)
		synctest.Wait()
		wantEqual(t, "ended while the clock is behind", identity.Ended(), false)
		time.Sleep(time.Minute)
		synctest.Wait()
		wantEqual(t, "ended", identity.Ended(), true)
	})
}
