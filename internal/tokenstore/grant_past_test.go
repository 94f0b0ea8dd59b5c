package tokenstore_test

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// A store remembers how the last grants ended, and of those that live and that it never gave nothing.
func TestPastGrant(t *testing.T) {
	t.Parallel()
	s := tokenstore.New(tokenstore.Config{MaxGrantsPerIdentity: 10})
	give := func(owner *tokenstore.Identity, life time.Duration) string {
		t.Helper()
		g, _, err := s.IssueGrant(owner, "kind", "1.0.0", life)
		if err != nil {
			t.Fatal(err)
		}
		return g.ID
	}
	owner, _, err := s.Issue(tokenstore.Request{SelfID: "self"})
	if err != nil {
		t.Fatal(err)
	}
	live, expired, revoked, orphan := give(nil, time.Hour), give(nil, time.Minute), give(nil, time.Hour), give(owner, time.Hour)
	s.RevokeGrant(revoked)
	s.Sweep(time.Now().Add(2 * time.Minute))
	s.Revoke(owner.RuntimeID(), tokenstore.ReasonRevoked)
	for id, want := range map[string]error{
		live: nil, "nothing": nil, "": nil, expired: tokenstore.ErrExpired, revoked: tokenstore.ErrRevoked, orphan: tokenstore.ErrEnded,
	} {
		if err := s.PastGrant(id); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%q: %v, want %v", id, err, want)
		}
	}
	for n := range 1024 - 3 {
		s.RevokeGrant(give(nil, time.Duration(n+1)*time.Hour))
	}
	if s.PastGrant(expired) == nil || s.PastGrant(revoked) == nil || s.PastGrant(orphan) == nil {
		t.Error("of the last 1,024 some are forgotten")
	}
	last := ""
	for n := range 3 {
		last = give(nil, time.Duration(n+1)*time.Hour)
		s.RevokeGrant(last)
	}
	for _, id := range []string{expired, revoked, orphan} {
		if err := s.PastGrant(id); err != nil {
			t.Errorf("%s is still known after 1,024 others: %v", strconv.Quote(id), err)
		}
	}
	if err := s.PastGrant(last); !errors.Is(err, tokenstore.ErrRevoked) {
		t.Errorf("the last one: %v", err)
	}
}
