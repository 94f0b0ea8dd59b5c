package tokenstore_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

const (
	idBytes     = 16
	secretBytes = 32
)

func TestAudit_REGTOKEN2_OpaqueTokens(t *testing.T) {
	t.Parallel()
	s, _ := newStore(tokenstore.Config{})
	seen := make(map[string]bool)
	for range 100 {
		_, token := mustIssue(t, s, tokenstore.Request{SelfID: "a"})
		raw, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil || len(raw) != secretBytes || seen[token] {
			t.Fatalf("token %q: %d bytes, %v, seen before: %v", token, len(raw), err, seen[token])
		}
		seen[token] = true
	}
}

func TestAudit_REGTOKEN1_NothingWithoutRandomness(t *testing.T) {
	t.Parallel()
	broken := errors.New("no entropy")
	for given := range idBytes + secretBytes + 1 {
		t.Run(fmt.Sprintf("fails after %d bytes", given), func(t *testing.T) {
			t.Parallel()
			for _, failure := range []error{broken, io.EOF} {
				random := io.MultiReader(bytes.NewReader(make([]byte, given)), iotest.ErrReader(failure))
				s, _ := newStore(tokenstore.Config{Rand: random, MaxTotal: 1, MaxPerSelf: 1, MaxPerPeer: 1})
				identity, token, err := s.Issue(tokenstore.Request{SelfID: "a", Peer: "p"})
				if given == idBytes+secretBytes {
					wantError(t, "issue with enough", err, nil)
					continue
				}
				wantError(t, "issue", err, tokenstore.ErrRandom)
				if identity != nil || token != "" {
					t.Errorf("issued %v, %q", identity, token)
				}
				wantEqual(t, "residue", s.Residue(), 0)
			}
		})
	}
}

func TestAudit_REGTOKEN1_NoRenewalWithoutRandomness(t *testing.T) {
	t.Parallel()
	random := bytes.NewReader(make([]byte, idBytes+secretBytes+secretBytes-1))
	s, _ := newStore(tokenstore.Config{Rand: random})
	identity, token := mustIssue(t, s, tokenstore.Request{SelfID: "a"})
	_, fresh, err := s.Renew(identity.RuntimeID(), token, noCertificate)
	wantError(t, "renew", err, tokenstore.ErrRandom)
	wantEqual(t, "fresh token", fresh, "")
	_, err = s.Verify(identity.RuntimeID(), token, noCertificate)
	wantError(t, "verify with the token before", err, nil)
}

func TestAudit_REGTOKEN1_NoGrantWithoutRandomness(t *testing.T) {
	t.Parallel()
	for given := range idBytes + secretBytes {
		s, _ := newStore(tokenstore.Config{Rand: bytes.NewReader(make([]byte, given))})
		grant, token, err := s.IssueGrant(nil, "logger", "1", 0)
		wantError(t, "grant", err, tokenstore.ErrRandom)
		if grant != nil || token != "" {
			t.Errorf("issued %v, %q", grant, token)
		}
		wantEqual(t, "residue", s.Residue(), 0)
	}
}

// repeating yields the same bytes a number of times before it counts up.
type repeating struct {
	mu    sync.Mutex
	reads int
	times int
}

func (r *repeating) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(p)
	if r.reads >= r.times {
		p[0] = byte(r.reads)
	}
	r.reads++
	return len(p), nil
}

func TestAudit_REG11_IDInUseIsNotIssuedAgain(t *testing.T) {
	t.Parallel()
	const readsPerDraw = 2
	s, _ := newStore(tokenstore.Config{Rand: &repeating{times: 5 * readsPerDraw}})
	first, token := mustIssue(t, s, tokenstore.Request{SelfID: "a", Peer: "p"})
	second, _ := mustIssue(t, s, tokenstore.Request{SelfID: "a", Peer: "p"})
	if first.RuntimeID() == second.RuntimeID() {
		t.Errorf("both are %s", first)
	}
	verified, err := s.Verify(first.RuntimeID(), token, noCertificate)
	if err != nil || verified != first {
		t.Errorf("the first: %v, %v", verified, err)
	}
	wantEqual(t, "len", s.Len(), 2)
}

func TestAudit_REG11_RandomnessThatRepeatsItself(t *testing.T) {
	t.Parallel()
	s, _ := newStore(tokenstore.Config{Rand: &repeating{times: 1 << 30}})
	first, token := mustIssue(t, s, tokenstore.Request{SelfID: "a"})
	_, _, err := s.Issue(tokenstore.Request{SelfID: "a"})
	wantError(t, "issue", err, tokenstore.ErrRandom)
	_, _, err = s.IssueGrant(nil, "logger", "1", 0)
	wantError(t, "first grant", err, nil)
	_, _, err = s.IssueGrant(nil, "logger", "1", 0)
	wantError(t, "second grant", err, tokenstore.ErrRandom)
	_, err = s.Verify(first.RuntimeID(), token, noCertificate)
	wantError(t, "verify the first", err, nil)
	s.Revoke(first.RuntimeID(), tokenstore.ReasonRevoked)
	mustIssue(t, s, tokenstore.Request{SelfID: "a"})
}

func TestAudit_AUTH013_Bounds(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		config tokenstore.Config
		lives  tokenstore.Request // as often as the bound says
		bound  int
		refuse tokenstore.Request
		want   error
		allow  *tokenstore.Request // still possible
	}{
		{
			name:   "total",
			config: tokenstore.Config{MaxTotal: 3},
			lives:  tokenstore.Request{SelfID: "a", Peer: "p"},
			bound:  3,
			refuse: tokenstore.Request{SelfID: "b", Peer: "q"},
			want:   tokenstore.ErrFull,
		},
		{
			name:   "self id",
			config: tokenstore.Config{MaxPerSelf: 2},
			lives:  tokenstore.Request{SelfID: "a", Peer: "p"},
			bound:  2,
			refuse: tokenstore.Request{SelfID: "a", Peer: "q"},
			want:   tokenstore.ErrTooManyInstances,
			allow:  &tokenstore.Request{SelfID: "b", Peer: "p"},
		},
		{
			name:   "self id by request",
			config: tokenstore.Config{MaxPerSelf: 2},
			lives:  tokenstore.Request{SelfID: "a", MaxInstances: 4},
			bound:  4,
			refuse: tokenstore.Request{SelfID: "a", MaxInstances: 4},
			want:   tokenstore.ErrTooManyInstances,
			allow:  &tokenstore.Request{SelfID: "a", MaxInstances: 5},
		},
		{
			name:   "peer",
			config: tokenstore.Config{MaxPerPeer: 2},
			lives:  tokenstore.Request{SelfID: "a", Peer: "p"},
			bound:  2,
			refuse: tokenstore.Request{SelfID: "b", Peer: "p"},
			want:   tokenstore.ErrTooManyForPeer,
			allow:  &tokenstore.Request{SelfID: "a", Peer: "q"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, clock := newStore(test.config)
			test.lives.TTL = time.Minute
			for range test.bound {
				mustIssue(t, s, test.lives)
			}
			_, _, err := s.Issue(test.refuse)
			wantError(t, "over the bound", err, test.want)
			wantEqual(t, "len", s.Len(), test.bound)
			if test.allow != nil {
				mustIssue(t, s, *test.allow)
			}
			clock.Advance(time.Minute)
			mustIssue(t, s, test.refuse) // sweeps first
			s.RevokeAll(tokenstore.ReasonShutdown)
			wantEqual(t, "residue", s.Residue(), 0)
		})
	}
}

// Whoever issues at the same time, exactly as many succeed as the bound says.
func TestAudit_AUTH013_BoundsUnderConcurrency(t *testing.T) {
	t.Parallel()
	const rounds, bound, contenders = 20, 3, 8
	for name, test := range map[string]struct {
		config  tokenstore.Config
		request func(i int) tokenstore.Request
		want    error
	}{
		"total": {
			tokenstore.Config{MaxTotal: bound},
			func(i int) tokenstore.Request { return tokenstore.Request{SelfID: fmt.Sprint(i)} },
			tokenstore.ErrFull,
		},
		"self id": {
			tokenstore.Config{MaxPerSelf: bound},
			func(i int) tokenstore.Request { return tokenstore.Request{SelfID: "a", Peer: fmt.Sprint(i)} },
			tokenstore.ErrTooManyInstances,
		},
		"peer": {
			tokenstore.Config{MaxPerPeer: bound},
			func(i int) tokenstore.Request { return tokenstore.Request{SelfID: fmt.Sprint(i), Peer: "p"} },
			tokenstore.ErrTooManyForPeer,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := newStore(test.config)
			for range rounds {
				var issued atomic.Int32
				contend(s, contenders, func(i int) {
					_, _, err := s.Issue(test.request(i))
					switch {
					case err == nil:
						issued.Add(1)
					case !errors.Is(err, test.want):
						t.Errorf("issue: %v", err)
					}
				})
				wantEqual(t, "issued", issued.Load(), bound)
				wantEqual(t, "len", s.Len(), bound)
				s.RevokeAll(tokenstore.ReasonRevoked)
			}
		})
	}
}
