package tokenstore

// Verify returns the live identity that the runtime id names, if the token is its current one, or its
// previous one within the grace, and the peer presented the certificate that it is bound to. Every error
// is an [ErrInvalid]. It takes no lock, allocates nothing, and takes as long for an id that does not
// exist as for a token that does not match.
func (s *Store) Verify(runtimeID, token string, fp Fingerprint) (*Identity, error) {
	seen := s.examine(runtimeID, token)
	admitted := seen.identity.fingerprint.admits(&fp)
	if err := seen.verdict(admitted); err != nil {
		return nil, err
	}
	return seen.identity, nil
}

// Match is Verify without regard to certificates, for use within the host's own process.
func (s *Store) Match(runtimeID, token string) (*Identity, error) {
	seen := s.examine(runtimeID, token)
	if err := seen.verdict(true); err != nil {
		return nil, err
	}
	return seen.identity, nil
}

// Renew gives the identity a new token, which lives as long as the previous one was meant to. It demands
// what Verify demands, and of the tokens the current one: of several renewals with the same token one
// succeeds, and the others get ErrSuperseded. The token given in lives on for [Config.Grace], the one
// before that ends now. Every error is an [ErrInvalid] or ErrRandom.
func (s *Store) Renew(runtimeID, token string, fp Fingerprint) (*Identity, string, error) {
	seen := s.examine(runtimeID, token)
	admitted := seen.identity.fingerprint.admits(&fp)
	if err := seen.verdict(admitted); err != nil {
		return nil, "", err
	}
	if !seen.current {
		return nil, "", ErrSuperseded
	}
	fresh, err := drawSecret(s.rand)
	if err != nil {
		return nil, "", err
	}
	if err := s.replace(seen.identity, seen.state, fresh.digest); err != nil {
		return nil, "", err
	}
	return seen.identity, fresh.token, nil
}

// replace makes a digest the current one if nothing happened to the identity since it was examined.
func (s *Store) replace(identity *Identity, old *state, fresh digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock.now()
	switch seen := identity.state.Load(); {
	case seen.end != nil:
		return ErrEnded
	case seen != old:
		return ErrSuperseded
	case seen.expired(now):
		return ErrExpired
	}
	renewed := &state{digest: fresh, issued: now, expires: now.after(old.lifetime())}
	if grace := s.config.Load().Grace; grace > 0 {
		until := min(old.expires, now.after(grace))
		renewed.previous = &graced{digest: old.digest.short(), until: until}
	}
	s.applyLocked(change{kind: changeRenew, identity: identity, state: renewed})
	return nil
}

// examined is what was found out about a presented token. The identity is the dummy if none is known.
type examined struct {
	identity *Identity
	state    *state
	now      instant
	known    bool // the runtime id is that of somebody
	current  bool // the token is the current one
	graced   bool // the token is the previous one, in its grace
}

// examine compares a token with the record of a runtime id. It does the same work whatever it finds.
func (s *Store) examine(runtimeID, token string) examined {
	identity := s.identities.get(runtimeID)
	known := identity != nil
	if !known {
		identity = s.dummy
	}
	now := s.clock.now()
	st := identity.state.Load()
	presented, wellFormed := digestOf(token)
	previous := st.previous
	if previous == nil {
		previous = &s.noGrace
	}
	current := st.digest.equal(&presented)
	graced := previous.digest.equal(&presented)
	return examined{
		identity: identity,
		state:    st,
		now:      now,
		known:    known,
		current:  wellFormed && current,
		graced:   wellFormed && graced && now < previous.until,
	}
}

// verdict says what is wrong with what was examined, given whether the certificate is right.
func (e *examined) verdict(admitted bool) error {
	switch {
	case !e.known:
		return ErrUnknown
	case !e.current && !e.graced:
		return ErrMismatch
	case e.state.end != nil:
		return ErrEnded
	case e.state.expired(e.now):
		return ErrExpired
	case !admitted:
		return ErrFingerprint
	}
	return nil
}
