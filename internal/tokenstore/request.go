package tokenstore

import (
	"errors"
	"time"
	"unique"
)

// Request says what to issue an identity for.
type Request struct {
	// SelfID is what the plugin calls itself, checked by the caller.
	SelfID string

	// SelfVersion is which version the plugin says that it is.
	SelfVersion string

	// Peer is where the request came from, for the bound per peer. It is empty for what the host issues
	// in its own process, to which that bound does not apply.
	Peer string

	// Proven says that the peer proved to be SelfID. What it holds is bounded by that then, and counts
	// against nobody else's bound per peer.
	Proven bool

	// Fingerprint binds the tokens to a client certificate. Zero binds them to none.
	Fingerprint Fingerprint

	// Attributes are attached to the identity, shared and not copied. Nil attaches nothing.
	Attributes any

	// TTL is how long each token lives. Zero or less means [Config.TTL].
	TTL time.Duration

	// MaxInstances bounds the live identities of SelfID. Zero or less means [Config.MaxPerSelf].
	MaxInstances int
}

// errInUse means that the id drawn is that of somebody alive.
var errInUse = errors.New("id in use")

// Issue makes an identity and its first token, which the store does not keep. Where a bound is reached
// it sweeps first, and so may call the functions of identities that expired. The errors are ErrFull,
// ErrTooManyInstances, ErrTooManyForPeer and ErrRandom.
func (s *Store) Issue(r Request) (*Identity, string, error) {
	for range maxDraws {
		id, err := drawRuntimeID(r.SelfID, s.rand)
		if err != nil {
			return nil, "", err
		}
		fresh, err := drawSecret(s.rand)
		if err != nil {
			return nil, "", err
		}
		identity := s.newIdentity(id, fresh.digest, &r)
		err = s.sweepingFor(func() error { return s.admit(identity, &r) })
		if errors.Is(err, errInUse) {
			continue
		}
		if err != nil {
			return nil, "", err
		}
		return identity, fresh.token, nil
	}
	return nil, "", ErrRandom
}

// sweepingFor calls f, and if that fails and a sweep makes room, once more.
func (s *Store) sweepingFor(f func() error) error {
	err := f()
	if err != nil && s.sweep(s.clock.now()) > 0 {
		err = f()
	}
	return err
}

func (s *Store) newIdentity(id string, token digest, r *Request) *Identity {
	now := s.clock.now()
	const prefix = "runtime:"
	key := prefix + id
	identity := &Identity{
		runtimeID:   key[len(prefix):], // in one place with it
		limiterKey:  key,
		selfVersion: unique.Make(r.SelfVersion),
		clock:       &s.clock,
		fingerprint: r.Fingerprint,
	}
	if r.Attributes != nil {
		identity.SetAttributes(r.Attributes)
	}
	identity.state.Store(&state{
		digest:  token,
		issued:  now,
		expires: now.after(orDefault(r.TTL, s.config.Load().TTL)),
	})
	return identity
}

// admit adds an identity if the bounds allow it. All of them are looked at and counted in one step.
func (s *Store) admit(identity *Identity, r *Request) error {
	bounds := s.config.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.identityExpiries.len() >= bounds.MaxTotal:
		return ErrFull
	case s.selves.count(r.SelfID) >= orDefault(r.MaxInstances, bounds.MaxPerSelf):
		return ErrTooManyInstances
	case r.Peer != "" && !r.Proven && s.peers.count(r.Peer) >= bounds.MaxPerPeer:
		return ErrTooManyForPeer
	case s.identities.get(identity.runtimeID) != nil:
		return errInUse
	}
	s.applyLocked(change{kind: changeIssue, identity: identity, request: r})
	return nil
}
