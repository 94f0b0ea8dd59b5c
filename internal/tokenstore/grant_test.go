package tokenstore_test

import (
	"encoding/base64"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

func mustGrant(t testing.TB, s *tokenstore.Store, owner *tokenstore.Identity, ttl time.Duration) (tokenstore.Grant, string) {
	t.Helper()
	grant, token, err := s.IssueGrant(owner, "logger", "1.0.0", ttl)
	if err != nil {
		t.Fatalf("grant: %v", err)
	}
	return *grant, token
}

func TestAudit_H21_GrantIsBound(t *testing.T) {
	t.Parallel()
	s, clock := newStore(tokenstore.Config{TTL: time.Hour})
	owner, _ := mustIssue(t, s, tokenstore.Request{SelfID: "a", Fingerprint: someCertificate})
	grant, token := mustGrant(t, s, owner, time.Minute)
	wantEqual(t, "type", grant.Type, "logger")
	wantEqual(t, "version", grant.Version, "1.0.0")
	wantEqual(t, "owner", grant.Owner, owner)
	wantEqual(t, "expires", grant.ExpiresAt, clock.Now().Add(time.Minute))
	raw, err := base64.RawURLEncoding.DecodeString(token)
	wantEqual(t, "bytes of the token", len(raw), secretBytes)
	wantError(t, "decode", err, nil)
	other, otherToken := mustGrant(t, s, owner, time.Minute)

	for _, test := range []struct {
		name, id, token string
		fp              tokenstore.Fingerprint
		want            error
	}{
		{"right", grant.ID, token, someCertificate, nil},
		{"the other", other.ID, otherToken, someCertificate, nil},
		{"the other's token", grant.ID, otherToken, someCertificate, tokenstore.ErrMismatch},
		{"token longer", grant.ID, token + "A", someCertificate, tokenstore.ErrMismatch},
		{"no token", grant.ID, "", someCertificate, tokenstore.ErrMismatch},
		{"unknown", "unknown", token, someCertificate, tokenstore.ErrUnknown},
		{"runtime id for an id", owner.RuntimeID(), token, someCertificate, tokenstore.ErrUnknown},
		{"no certificate", grant.ID, token, noCertificate, tokenstore.ErrFingerprint},
		{"other certificate", grant.ID, token, otherCertificate, tokenstore.ErrFingerprint},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			verified, err := s.VerifyGrant(test.id, test.token, test.fp)
			wantError(t, "verify", err, test.want)
			if test.want != nil {
				wantError(t, "verify", err, tokenstore.ErrInvalid)
				wantEqual(t, "grant", verified, nil)
				return
			}
			wantEqual(t, "owner", verified.Owner, owner)
			*verified = tokenstore.Grant{} // a copy
			verified, err = s.VerifyGrant(test.id, test.token, test.fp)
			wantError(t, "verify again", err, nil)
			wantEqual(t, "id", verified.ID, test.id)
		})
	}
}

func TestGrantOfTheHost(t *testing.T) {
	t.Parallel()
	s, clock := newStore(tokenstore.Config{MaxGrantsPerIdentity: 2})
	first, token := mustGrant(t, s, nil, time.Hour)
	second, _ := mustGrant(t, s, nil, time.Minute)
	wantEqual(t, "owner", first.Owner, nil)
	if got := s.Grants(""); !slices.Equal(got, []tokenstore.Grant{second, first}) {
		t.Errorf("grants %v", got)
	}
	_, _, err := s.IssueGrant(nil, "logger", "1", 0)
	wantError(t, "third", err, tokenstore.ErrTooManyGrants)
	clock.Advance(time.Minute)
	mustGrant(t, s, nil, time.Hour) // sweeps first
	s.RevokeAll(tokenstore.ReasonShutdown)
	verified, err := s.VerifyGrant(first.ID, token, someCertificate)
	wantError(t, "verify", err, nil)
	wantEqual(t, "verified", *verified, first)
}

func TestAudit_PROTO32_GrantExpires(t *testing.T) {
	t.Parallel()
	s, clock := newStore(tokenstore.Config{TTL: time.Hour})
	owner, _ := mustIssue(t, s, tokenstore.Request{SelfID: "a"})
	brief, briefToken := mustGrant(t, s, owner, time.Minute)
	long, longToken := mustGrant(t, s, owner, 2*time.Hour)
	verify := func(what string, grant tokenstore.Grant, token string, want error) {
		t.Helper()
		_, err := s.VerifyGrant(grant.ID, token, noCertificate)
		wantError(t, what, err, want)
	}
	clock.Advance(time.Minute - 1)
	verify("just before", brief, briefToken, nil)
	wantEqual(t, "swept too early", s.Sweep(clock.Now()), 0)
	clock.Advance(1)
	verify("expired", brief, briefToken, tokenstore.ErrExpired)
	if got := s.Grants(owner.RuntimeID()); !slices.Equal(got, []tokenstore.Grant{long}) {
		t.Errorf("grants %v", got)
	}
	wantEqual(t, "swept", s.Sweep(clock.Now()), 1)
	verify("swept", brief, briefToken, tokenstore.ErrUnknown)
	verify("long", long, longToken, nil)

	clock.Advance(time.Hour)
	verify("owner expired", long, longToken, tokenstore.ErrEnded)
	wantEqual(t, "grants of an owner that expired", len(s.Grants(owner.RuntimeID())), 0)
	_, _, err := s.IssueGrant(owner, "logger", "1", 0)
	wantError(t, "grant for an owner that expired", err, tokenstore.ErrEnded)
	s.Sweep(clock.Now())
	verify("owner swept", long, longToken, tokenstore.ErrUnknown)
	wantEqual(t, "residue", s.Residue(), 0)
}

func TestRevokeGrant(t *testing.T) {
	t.Parallel()
	s, _ := newStore(tokenstore.Config{MaxGrantsPerIdentity: 1})
	owner, _ := mustIssue(t, s, tokenstore.Request{SelfID: "a"})
	grant, token := mustGrant(t, s, owner, 0)
	wantEqual(t, "revoked", s.RevokeGrant(grant.ID), true)
	wantEqual(t, "revoked again", s.RevokeGrant(grant.ID), false)
	_, err := s.VerifyGrant(grant.ID, token, noCertificate)
	wantError(t, "verify", err, tokenstore.ErrUnknown)
	wantEqual(t, "grants", len(s.Grants(owner.RuntimeID())), 0)
	mustGrant(t, s, owner, 0)
	wantEqual(t, "grants of nobody", len(s.Grants("nobody")), 0)
}

func TestGrantBoundIsPerOwner(t *testing.T) {
	t.Parallel()
	const bound = 5
	s, _ := newStore(tokenstore.Config{MaxGrantsPerIdentity: bound})
	for range 2 {
		owner, _ := mustIssue(t, s, tokenstore.Request{SelfID: "a"})
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				for range bound {
					_, _, err := s.IssueGrant(owner, "logger", "1", 0)
					if err != nil && !errors.Is(err, tokenstore.ErrTooManyGrants) {
						t.Errorf("grant: %v", err)
					}
				}
			})
		}
		group.Wait()
		wantEqual(t, "grants", len(s.Grants(owner.RuntimeID())), bound)
	}
}

// No grant survives its owner, not even one that is issued while the owner ends.
func TestAudit_PROTO32_GrantAgainstEndOfOwner(t *testing.T) {
	t.Parallel()
	for range 300 {
		s, _ := newStore(tokenstore.Config{})
		owner, _ := mustIssue(t, s, tokenstore.Request{SelfID: "a"})
		issued := make(map[string]string)
		var group sync.WaitGroup
		group.Go(func() {
			for {
				grant, token, err := s.IssueGrant(owner, "logger", "1", 0)
				if err != nil {
					if !errors.Is(err, tokenstore.ErrEnded) && !errors.Is(err, tokenstore.ErrTooManyGrants) {
						t.Errorf("grant: %v", err)
					}
					return
				}
				issued[grant.ID] = token
			}
		})
		group.Go(func() { s.Revoke(owner.RuntimeID(), tokenstore.ReasonRevoked) })
		group.Wait()
		for id, token := range issued {
			_, err := s.VerifyGrant(id, token, noCertificate)
			wantError(t, "verify", err, tokenstore.ErrInvalid)
		}
		wantEqual(t, "residue", s.Residue(), 0)
	}
}

// Those that share bounds hold four times as many grants together as one of them may, or eight each where that is more:
// the instances of a self id that proved it, and otherwise the identities of a peer.
func TestAudit_ATK14_GrantsOfAKin(t *testing.T) {
	t.Parallel()
	const each = 10
	for _, test := range []struct {
		name      string
		proven    bool
		instances int
		want      int
	}{
		{"of a self id", true, 5, 4 * each}, {"of many", true, 6, 48}, {"of a peer", false, 5, 4 * each},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, _ := newStore(tokenstore.Config{TTL: time.Hour, MaxGrantsPerIdentity: each})
			issue := func(self, peer string) *tokenstore.Identity {
				id, _ := mustIssue(t, s, tokenstore.Request{SelfID: self, Peer: peer, Proven: test.proven})
				return id
			}
			var kin []*tokenstore.Identity
			for i := range test.instances {
				self, peer := "a", "peer"
				if test.proven {
					peer = strconv.Itoa(i)
				} else {
					self = strconv.Itoa(i)
				}
				kin = append(kin, issue(self, peer))
			}
			take := func(id *tokenstore.Identity) (n int, err error) {
				for ; err == nil; n++ {
					_, _, err = s.IssueGrant(id, "logger", "1.0.0", time.Minute)
				}
				return n - 1, err
			}
			all := 0
			for _, id := range kin {
				n, err := take(id)
				all += n
				wantError(t, "grants", err, tokenstore.ErrTooManyGrants)
			}
			wantEqual(t, "grants of all", all, test.want)
			_, err := take(kin[test.instances-1])
			wantError(t, "the last one's", err, tokenstore.ErrTooManyGrantsOfKin)
			wantEqual(t, "kin", s.Kin(kin[0]), test.instances)
			n, _ := take(issue("other", "another peer"))
			wantEqual(t, "another's", n, each)
			s.Revoke(kin[0].RuntimeID(), tokenstore.ReasonRevoked)
			n, _ = take(kin[test.instances-1])
			wantEqual(t, "one that ended makes room", n > 0, true)
		})
	}
}
