package tokenstore_test

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

var (
	noCertificate    = tokenstore.Fingerprint{}
	someCertificate  = tokenstore.Fingerprint{1}
	otherCertificate = tokenstore.Fingerprint{2}
)

// fakeClock is a time that tests set.
type fakeClock struct {
	mu  sync.Mutex
	now time.Time
}

func newFakeClock() *fakeClock {
	return &fakeClock{now: time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)}
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// newStore returns a store with a clock that stands still.
func newStore(config tokenstore.Config) (*tokenstore.Store, *fakeClock) {
	clock := newFakeClock()
	config.Now = clock.Now
	return tokenstore.New(config), clock
}

func mustIssue(t testing.TB, s *tokenstore.Store, r tokenstore.Request) (*tokenstore.Identity, string) {
	t.Helper()
	identity, token, err := s.Issue(r)
	if err != nil {
		t.Fatalf("issue: %v", err)
	}
	return identity, token
}

func mustRenew(t testing.TB, s *tokenstore.Store, identity *tokenstore.Identity, token string) string {
	t.Helper()
	renewed, fresh, err := s.Renew(identity.RuntimeID(), token, identity.Fingerprint())
	if err != nil || renewed != identity {
		t.Fatalf("renew: %v, %v", renewed, err)
	}
	return fresh
}

// contend starts f several times at once, so that each looks at the store before any can change it: all
// queue for its lock. It returns when all have.
func contend(s *tokenstore.Store, times int, f func(i int)) {
	const queue = time.Millisecond
	var group sync.WaitGroup
	s.WhileLocked(func() {
		for i := range times {
			group.Go(func() { f(i) })
		}
		for began := time.Now(); time.Since(began) < queue; {
			runtime.Gosched()
		}
	})
	group.Wait()
}

func wantError(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got error %v, want %v", what, got, want)
	}
}

func wantEqual[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestIdentityShowsItsRequest(t *testing.T) {
	t.Parallel()
	s, clock := newStore(tokenstore.Config{})
	attributes := &struct{ n int }{n: 1}
	identity, _ := mustIssue(t, s, tokenstore.Request{
		SelfID: "logger", SelfVersion: "1.2.0", Peer: "10.0.0.1", Fingerprint: someCertificate,
		Attributes: attributes, TTL: time.Minute,
	})
	wantEqual(t, "self id", identity.SelfID(), "logger")
	wantEqual(t, "self version", identity.SelfVersion(), "1.2.0")
	wantEqual(t, "peer", identity.Peer(), "10.0.0.1")
	wantEqual(t, "fingerprint", identity.Fingerprint(), someCertificate)
	wantEqual(t, "attributes", identity.Attributes(), any(attributes))
	wantEqual(t, "issued", identity.IssuedAt(), clock.Now())
	wantEqual(t, "expires", identity.ExpiresAt(), clock.Now().Add(time.Minute))
	wantEqual(t, "ended", identity.Ended(), false)
	wantEqual(t, "reason", identity.Reason(), "")
	wantEqual(t, "text", fmt.Sprintf("%v", any(identity)), identity.RuntimeID())
	other := &struct{ n int }{n: 2}
	identity.SetAttributes(other)
	wantEqual(t, "attributes after change", identity.Attributes(), any(other))
}

func TestIdentityWithoutPeer(t *testing.T) {
	t.Parallel()
	s, _ := newStore(tokenstore.Config{MaxPerPeer: 1})
	for range 3 {
		identity, _ := mustIssue(t, s, tokenstore.Request{SelfID: "in-memory"})
		wantEqual(t, "peer", identity.Peer(), "")
		wantEqual(t, "attributes", identity.Attributes(), nil)
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	s, clock := newStore(tokenstore.Config{})
	identity, token := mustIssue(t, s, tokenstore.Request{SelfID: "a"})
	wantEqual(t, "lifetime", identity.ExpiresAt().Sub(clock.Now()), tokenstore.DefaultTTL)
	grant, _, err := s.IssueGrant(identity, "logger", "1", 0)
	wantError(t, "grant", err, nil)
	wantEqual(t, "grant's lifetime", grant.ExpiresAt.Sub(clock.Now()), tokenstore.DefaultGrantTTL)
	mustRenew(t, s, identity, token)
	clock.Advance(tokenstore.DefaultGrace - 1)
	_, err = s.Match(identity.RuntimeID(), token)
	wantError(t, "in the grace", err, nil)
	clock.Advance(1)
	_, err = s.Match(identity.RuntimeID(), token)
	wantError(t, "after the grace", err, tokenstore.ErrMismatch)
}

func TestConfigure(t *testing.T) {
	t.Parallel()
	s, clock := newStore(tokenstore.Config{TTL: time.Hour, MaxTotal: 3, MaxGrantsPerIdentity: 1})
	first, firstToken := mustIssue(t, s, tokenstore.Request{SelfID: "a"})
	mustIssue(t, s, tokenstore.Request{SelfID: "b", Peer: "p"})
	s.Configure(tokenstore.Config{
		TTL: time.Minute, Grace: time.Second, MaxTotal: 4, MaxPerSelf: 1, MaxPerPeer: 1, MaxGrantsPerIdentity: 2,
	})
	wantEqual(t, "expiry of what lives", first.ExpiresAt(), clock.Now().Add(time.Hour))
	_, _, err := s.Issue(tokenstore.Request{SelfID: "a"})
	wantError(t, "second instance", err, tokenstore.ErrTooManyInstances)
	_, _, err = s.Issue(tokenstore.Request{SelfID: "c", Peer: "p"})
	wantError(t, "second for the peer", err, tokenstore.ErrTooManyForPeer)
	mustGrant(t, s, first, 0)
	mustGrant(t, s, first, 0)
	brief, _ := mustIssue(t, s, tokenstore.Request{SelfID: "c"})
	wantEqual(t, "expiry of the new", brief.ExpiresAt(), clock.Now().Add(time.Minute))
	mustRenew(t, s, first, firstToken)
	clock.Advance(time.Second)
	_, err = s.Match(first.RuntimeID(), firstToken)
	wantError(t, "after the new grace", err, tokenstore.ErrMismatch)

	s.Configure(tokenstore.Config{MaxTotal: 1})
	wantEqual(t, "nobody evicted", s.Len(), 3)
	_, _, err = s.Issue(tokenstore.Request{SelfID: "d"})
	wantError(t, "over the new bound", err, tokenstore.ErrFull)
}

func TestEndlessLifetime(t *testing.T) {
	t.Parallel()
	s, clock := newStore(tokenstore.Config{TTL: math.MaxInt64, Grace: math.MaxInt64})
	clock.Advance(time.Hour)
	identity, token := mustIssue(t, s, tokenstore.Request{SelfID: "a"})
	fresh := mustRenew(t, s, identity, token)
	clock.Advance(100 * 365 * 24 * time.Hour)
	wantEqual(t, "swept", s.Sweep(clock.Now()), 0)
	for _, good := range []string{token, fresh} {
		_, err := s.Verify(identity.RuntimeID(), good, noCertificate)
		wantError(t, "verify", err, nil)
	}
}

func TestLookupAndEach(t *testing.T) {
	t.Parallel()
	s, clock := newStore(tokenstore.Config{TTL: time.Hour})
	lives, _ := mustIssue(t, s, tokenstore.Request{SelfID: "lives"})
	expired, _ := mustIssue(t, s, tokenstore.Request{SelfID: "expired", TTL: time.Minute})
	revoked, _ := mustIssue(t, s, tokenstore.Request{SelfID: "revoked"})
	s.Revoke(revoked.RuntimeID(), tokenstore.ReasonRevoked)
	clock.Advance(time.Minute)

	found, ok := s.Lookup(lives.RuntimeID())
	wantEqual(t, "live found", ok && found == lives, true)
	for _, id := range []string{expired.RuntimeID(), revoked.RuntimeID(), "nobody", ""} {
		if found, ok := s.Lookup(id); ok || found != nil {
			t.Errorf("lookup of %q found %v", id, found)
		}
	}
	var seen []*tokenstore.Identity
	s.Each(func(identity *tokenstore.Identity) bool {
		seen = append(seen, identity)
		return true
	})
	if !slices.Equal(seen, []*tokenstore.Identity{lives}) {
		t.Errorf("each: %v", seen)
	}
	wantEqual(t, "len before the sweep", s.Len(), 2)
	s.Sweep(clock.Now())
	wantEqual(t, "len after the sweep", s.Len(), 1)
}

func TestEachStopsAndMayChangeTheStore(t *testing.T) {
	t.Parallel()
	s, _ := newStore(tokenstore.Config{})
	const n = 100
	for i := range n {
		mustIssue(t, s, tokenstore.Request{SelfID: fmt.Sprint("plugin", i)})
	}
	calls := 0
	s.Each(func(*tokenstore.Identity) bool {
		calls++
		return calls < 3
	})
	wantEqual(t, "calls", calls, 3)
	s.Each(func(identity *tokenstore.Identity) bool {
		return s.Revoke(identity.RuntimeID(), tokenstore.ReasonPolicy)
	})
	wantEqual(t, "len", s.Len(), 0)
}

func TestRuntimeIDs(t *testing.T) {
	t.Parallel()
	for selfID, want := range map[string]string{
		"logger":                         "logger",
		"Logger_2":                       "logger-2",
		"a..b//c":                        "a-b-c",
		"--a--":                          "a",
		"":                               "plugin",
		"äöü":                            "plugin",
		"a\r\nX-Evil: 1":                 "a-x-evil-1",
		strings.Repeat("x", 100):         strings.Repeat("x", 48),
		strings.Repeat("x", 47) + "-y":   strings.Repeat("x", 47) + "y",
		strings.Repeat("x", 46) + "-y":   strings.Repeat("x", 46) + "-y",
		strings.Repeat("x", 48) + "-y":   strings.Repeat("x", 48),
		strings.Repeat("/", 1000) + "ok": "ok",
	} {
		s, _ := newStore(tokenstore.Config{})
		identity, _ := mustIssue(t, s, tokenstore.Request{SelfID: selfID})
		cut := strings.LastIndexByte(identity.RuntimeID(), '-')
		name, random := identity.RuntimeID()[:cut], identity.RuntimeID()[cut+1:]
		wantEqual(t, fmt.Sprintf("name for %q", selfID), name, want)
		wantEqual(t, "self id", identity.SelfID(), selfID)
		wantEqual(t, "length of the random part", len(random), 26)
		if strings.Trim(random, "abcdefghijklmnopqrstuvwxyz234567") != "" {
			t.Errorf("random part %q", random)
		}
	}
}
