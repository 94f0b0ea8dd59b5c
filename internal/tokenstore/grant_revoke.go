package tokenstore

// RevokeGrant ends a grant and tells whether it lived, or has expired and somebody waits for it to be revoked. When it
// returns true every function of [Grant.OnRevoke] has returned, and no verification that began later succeeds.
func (s *Store) RevokeGrant(grantID string) bool {
	g := s.takeGrant(grantID)
	if g == nil {
		return false
	}
	g.onRevoke.happen()
	return true
}

// takeGrant ends a live grant as revoked and returns it, or nil if there is none.
func (s *Store) takeGrant(grantID string) *grant {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.grants.get(grantID)
	if g == nil {
		if g = s.expired[grantID]; g != nil {
			delete(s.expired, grantID)
			g.revoked.Store(true)
		}
		return g
	}
	g.revoked.Store(true)
	s.applyLocked(change{kind: changeGrantEnd, grant: g})
	return g
}

// OnRevoke arranges for f to be called when the grant is revoked by [Store.RevokeGrant], by whoever
// revokes it and before that returns, or at once if it was. That a grant expires, or that its owner ends,
// is no revocation; see [Identity.OnEnd] for the latter. A grant that has expired can be revoked until
// the last function is taken back.
//
// Calling stop takes f back. It returns false if f was called, or is about to be, without waiting for
// it, or was taken back before.
func (g *Grant) OnRevoke(f func()) (stop func() bool) {
	takeBack := g.live.onRevoke.on(f, g.live.revoked.Load)
	g.store.keepExpired(g.live)
	return func() bool {
		taken := takeBack()
		g.store.keepExpired(g.live)
		return taken
	}
}

// keepExpired keeps a grant that has expired as long as anybody waits for it to be revoked.
func (s *Store) keepExpired(g *grant) {
	if !g.ended.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keepExpiredLocked(g)
}

func (s *Store) keepExpiredLocked(g *grant) {
	switch {
	case !g.onRevoke.awaited() || g.revoked.Load():
		delete(s.expired, g.id)
	case s.expired == nil:
		s.expired = map[string]*grant{g.id: g}
	default:
		s.expired[g.id] = g
	}
}
