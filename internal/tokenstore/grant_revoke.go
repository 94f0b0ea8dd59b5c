package tokenstore

// RevokeGrant ends a grant and tells whether it lived. When it returns true every function of
// [Grant.OnRevoke] has returned, and no verification that began later succeeds.
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
		return nil
	}
	g.revoked.Store(true)
	s.applyLocked(change{kind: changeGrantEnd, grant: g})
	return g
}

// OnRevoke arranges for f to be called when the grant is revoked by [Store.RevokeGrant], by whoever
// revokes it and before that returns, or at once if it was. That a grant expires, or that its owner ends,
// is no revocation; see [Identity.OnEnd] for the latter.
//
// Calling stop takes f back. It returns false if f was called, or is about to be, without waiting for
// it, or was taken back before.
func (g *Grant) OnRevoke(f func()) (stop func() bool) {
	return g.live.onRevoke.on(f, g.live.revoked.Load)
}
