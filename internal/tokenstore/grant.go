package tokenstore

import (
	"cmp"
	"errors"
	"math"
	"slices"
	"sync/atomic"
	"time"
)

// Grant is the right to call one capability until a time. It is a copy: changing it changes nothing.
type Grant struct {
	ID        string
	Type      string    // of the capability
	Version   string    // of the capability
	Owner     *Identity // nil: the host itself
	ExpiresAt time.Time

	live  *grant
	store *Store
}

// grant is a live grant. All of it is fixed at creation, but for what is said.
type grant struct {
	id            string
	kind, version string
	owner         *Identity // the store's host for its own
	digest        digest
	expires       instant

	ended    atomic.Bool
	revoked  atomic.Bool
	onRevoke occasion

	expiry int // position among the store's deadlines, guarded by its mu
}

// IssueGrant makes a grant and its token, which the store does not keep. The grant lives for ttl, where
// zero or less means DefaultGrantTTL, but no longer than its owner. A nil owner is the host itself.
// Where the bound is reached it sweeps first. The errors are ErrEnded, also for an owner that expired,
// ErrTooManyGrants and ErrRandom.
func (s *Store) IssueGrant(owner *Identity, capType, version string, ttl time.Duration) (*Grant, string, error) {
	if owner == nil {
		owner = s.host
	}
	for range maxDraws {
		id, err := drawID(s.rand)
		if err != nil {
			return nil, "", err
		}
		fresh, err := drawSecret(s.rand)
		if err != nil {
			return nil, "", err
		}
		g := &grant{
			id:      id,
			kind:    capType,
			version: version,
			owner:   owner,
			digest:  fresh.digest,
			expires: s.clock.now().after(orDefault(ttl, DefaultGrantTTL)),
		}
		err = s.sweepingFor(func() error { return s.admitGrant(g) })
		if errors.Is(err, errInUse) {
			continue
		}
		if err != nil {
			return nil, "", err
		}
		return s.describe(g), fresh.token, nil
	}
	return nil, "", ErrRandom
}

// admitGrant adds a grant if its owner lives and may have another.
func (s *Store) admitGrant(g *grant) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !g.owner.state.Load().good(s.clock.now()):
		return ErrEnded
	case len(g.owner.grants) >= s.config.Load().MaxGrantsPerIdentity:
		return ErrTooManyGrants
	case !s.kinMayLocked(g.owner.kin()):
		return ErrTooManyGrantsOfKin
	case s.grants.get(g.id) != nil:
		return errInUse
	}
	s.applyLocked(change{kind: changeGrant, grant: g})
	return nil
}

const (
	grantsOfFour = 4 // all who share the bound have as many grants as so many of them may
	grantsOfEach = 8 // or so many each, where those are more
)

// kinMayLocked reports whether those who share the bound of an owner, nil for that of the host, may have one grant more.
func (s *Store) kinMayLocked(kin *tally) bool {
	return kin == nil || kin.grants < s.MostGrants(int(kin.count.Load()))
}

// MostGrants returns how many grants so many identities may have together that share bounds.
func (s *Store) MostGrants(identities int) int {
	return max(grantsOfFour*min(s.config.Load().MaxGrantsPerIdentity, math.MaxInt/grantsOfFour), grantsOfEach*identities)
}

// VerifyGrant returns the live grant that the id names, if the token is its own, its owner lives, and
// the peer presented the certificate that the owner is bound to. Every error is an [ErrInvalid]. It takes
// no lock, and as long for an id that does not exist as for a token that does not match.
func (s *Store) VerifyGrant(grantID, token string, fp Fingerprint) (*Grant, error) {
	presented, wellFormed := digestOf(token)
	g := s.grants.get(grantID)
	known := g != nil
	if !known {
		g = s.dummyGrant
	}
	now := s.clock.now()
	owner := g.owner.state.Load()
	matches := g.digest.equal(&presented) && wellFormed
	admitted := g.owner.fingerprint.admits(&fp)
	switch {
	case !known:
		return nil, ErrUnknown
	case !matches:
		return nil, ErrMismatch
	case g.ended.Load() || !owner.good(now):
		return nil, ErrEnded
	case now >= g.expires:
		return nil, ErrExpired
	case !admitted:
		return nil, ErrFingerprint
	}
	return s.describe(g), nil
}

// Grants returns the live grants of an identity, or for "" those of the host itself, in the order in
// which they expire.
func (s *Store) Grants(runtimeID string) []Grant {
	owner := s.host
	if runtimeID != "" {
		if owner = s.identities.get(runtimeID); owner == nil {
			return nil
		}
	}
	live := s.liveGrants(owner)
	slices.SortFunc(live, func(a, b *grant) int {
		return cmp.Or(cmp.Compare(a.expires, b.expires), cmp.Compare(a.id, b.id))
	})
	described := make([]Grant, 0, len(live))
	for _, g := range live {
		described = append(described, *s.describe(g))
	}
	return described
}

func (s *Store) liveGrants(owner *Identity) []*grant {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock.now()
	if !owner.state.Load().good(now) {
		return nil
	}
	live := make([]*grant, 0, len(owner.grants))
	for g := range owner.grants {
		if now < g.expires {
			live = append(live, g)
		}
	}
	return live
}

// describe makes the copy of a grant that leaves the store.
func (s *Store) describe(g *grant) *Grant {
	described := &Grant{ID: g.id, Type: g.kind, Version: g.version, ExpiresAt: s.clock.time(g.expires), live: g, store: s}
	if g.owner != s.host {
		described.Owner = g.owner
	}
	return described
}

func (g *grant) key() string { return g.id }

func (g *grant) position() *int { return &g.expiry }
