package tokenstore_test

import (
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

func TestPossession(t *testing.T) {
	t.Parallel()
	s, clock := newStore(tokenstore.Config{Grace: 10 * time.Second})
	message := []byte("message")
	id, token, err := s.Issue(tokenstore.Request{SelfID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := s.Issue(tokenstore.Request{SelfID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	holds := func(token, message string) bool {
		return id.Possesses([]byte("message"), tokenstore.Possession(token, []byte(message)))
	}
	if !holds(token, "message") || holds(other, "message") || holds(token, "massage") || id.Possesses(message, nil) {
		t.Error("not the holder of the token, and of that message, alone")
	}
	_, fresh, err := s.Renew(id.RuntimeID(), token, noCertificate)
	if err != nil {
		t.Fatal(err)
	}
	if !holds(token, "message") || !holds(fresh, "message") {
		t.Error("in the grace either token is good")
	}
	clock.Advance(11 * time.Second)
	if holds(token, "message") || !holds(fresh, "message") {
		t.Error("after the grace the new token alone is good")
	}
	s.Revoke(id.RuntimeID(), tokenstore.ReasonRevoked)
	if holds(fresh, "message") {
		t.Error("an identity that ended holds nothing")
	}
}

func TestWhatIsProvenCountsAgainstNoPeer(t *testing.T) {
	t.Parallel()
	s, _ := newStore(tokenstore.Config{MaxPerPeer: 1})
	proven := tokenstore.Request{SelfID: "a", Peer: "p", Proven: true}
	var ids []*tokenstore.Identity
	for range 3 {
		id, _, err := s.Issue(proven)
		if err != nil {
			t.Fatal(err)
		}
		if id.Peer() != "p" {
			t.Errorf("its peer is %q", id.Peer())
		}
		ids = append(ids, id)
	}
	if _, _, err := s.Issue(tokenstore.Request{SelfID: "b", Peer: "p"}); err != nil {
		t.Errorf("the first unproven one: %v", err)
	}
	_, _, err := s.Issue(tokenstore.Request{SelfID: "c", Peer: "p"})
	wantError(t, "the second", err, tokenstore.ErrTooManyForPeer)
	for _, id := range ids {
		s.Revoke(id.RuntimeID(), tokenstore.ReasonRevoked)
	}
	_, _, err = s.Issue(tokenstore.Request{SelfID: "c", Peer: "p"})
	wantError(t, "the end of others makes room", err, tokenstore.ErrTooManyForPeer)
	s.RevokeAll(tokenstore.ReasonShutdown)
	if n := s.Residue(); n != 0 {
		t.Errorf("%d left", n)
	}
}

func TestIssuable(t *testing.T) {
	t.Parallel()
	s, _ := newStore(tokenstore.Config{})
	for _, self := range []string{"a", "My Plugin!", "", "a-b", "--"} {
		id, token, err := s.Issue(tokenstore.Request{SelfID: self})
		if err != nil {
			t.Fatal(err)
		}
		runtimeID := id.RuntimeID()
		for name, c := range map[string]struct {
			id, token string
			want      bool
		}{
			"its own":     {runtimeID, token, true},
			"short token": {runtimeID, token[1:], false},
			"short id":    {runtimeID[len(runtimeID)-26:], token, false},
			"upper case":  {"A" + runtimeID, token, false},
			"no id":       {"", token, false},
			"foreign id":  {"nobody", token, false},
			"bad token":   {runtimeID, "!" + token[1:], false},
		} {
			if got := tokenstore.Issuable(c.id, c.token); got != c.want {
				t.Errorf("%q, %s: %v", self, name, got)
			}
		}
	}
}

// The instances of a self id that are proven have budgets of their own, and the next one has that of one that ended.
func TestBudgetsOutliveInstances(t *testing.T) {
	t.Parallel()
	s, _ := newStore(tokenstore.Config{})
	const most = 200
	issue := func(r tokenstore.Request) *tokenstore.Identity {
		id, _, err := s.Issue(r)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	proven := tokenstore.Request{SelfID: "a", Peer: "p", Proven: true, MaxInstances: most + 2}
	keys, ids := map[string]bool{}, []*tokenstore.Identity{}
	for range most {
		id := issue(proven)
		keys[id.LimiterKey()] = true
		ids = append(ids, id)
	}
	if len(keys) != most {
		t.Fatalf("%d keys of %d instances", len(keys), most)
	}
	for _, n := range []int{0, 63, 64, 130, most - 1} {
		s.Revoke(ids[n].RuntimeID(), tokenstore.ReasonRevoked)
		if got, want := issue(proven).LimiterKey(), ids[n].LimiterKey(); got != want {
			t.Errorf("after %q came %q", want, got)
		}
	}
	if key := issue(proven).LimiterKey(); keys[key] {
		t.Errorf("two have %q", key)
	}
	other := issue(tokenstore.Request{SelfID: "b", Peer: "p", Proven: true}).LimiterKey()
	if one, next := issue(tokenstore.Request{SelfID: "a", Peer: "p", MaxInstances: most + 3}), issue(tokenstore.Request{SelfID: "b"}); keys[other] ||
		keys[one.LimiterKey()] || next.LimiterKey() == other {
		t.Errorf("others have %q, %q and %q", other, one.LimiterKey(), next.LimiterKey())
	}
}
