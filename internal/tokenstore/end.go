package tokenstore

import "slices"

// Reason says why an identity ended. Hosts may add their own.
type Reason string

// The reasons that hosts have in common.
const (
	ReasonExpired  Reason = "expired"  // the token was not renewed in time
	ReasonRevoked  Reason = "revoked"  // an operator or the plugin itself asked for it
	ReasonReplaced Reason = "replaced" // another instance took its place
	ReasonRemoved  Reason = "removed"  // the plugin was removed from the host
	ReasonPolicy   Reason = "policy"   // policy no longer allows it
	ReasonShutdown Reason = "shutdown" // the host stops
)

// End says that an identity ended. There is one for each identity.
type End struct {
	Identity *Identity
	Reason   Reason

	// Sequence is the number of this change among all changes of the store. Subscribers may learn of
	// changes out of order when several goroutines end identities; a higher number is later.
	Sequence uint64
}

type subscriber struct{ f func(End) }

// Subscribe arranges for f to be called once for every identity that ends from now on, by whoever ends
// it and before that returns, without any lock held. Calling cancel stops that; a call under way goes on.
func (s *Store) Subscribe(f func(End)) (cancel func()) {
	added := &subscriber{f: f}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subscribers = append(slices.Clip(s.subscribers), added)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		others := slices.Clone(s.subscribers)
		s.subscribers = slices.DeleteFunc(others, func(one *subscriber) bool { return one == added })
	}
}

// Revoke ends the identity and with it its token and grants. When it returns true every function of
// [Identity.OnEnd] and [Store.Subscribe] has returned, and no verification that began later succeeds.
// It returns false if no such identity lives, without waiting for the functions of whoever ended it.
// Those functions may call any method of the store.
func (s *Store) Revoke(runtimeID string, reason Reason) bool {
	identity := s.identities.get(runtimeID)
	return identity != nil && s.end(identity, reason)
}

// RevokeAll ends every identity that was issued before the call, each as Revoke does.
func (s *Store) RevokeAll(reason Reason) {
	for identity := range s.identities.all() {
		s.end(identity, reason)
	}
}

// end ends an identity, unless somebody did before.
func (s *Store) end(identity *Identity, reason Reason) bool {
	s.mu.Lock()
	if identity.Ended() {
		s.mu.Unlock()
		return false
	}
	s.applyLocked(change{kind: changeEnd, identity: identity, reason: reason})
	subscribers := s.subscribers
	s.mu.Unlock()

	announce(identity, subscribers)
	return true
}

// announce tells everybody that an identity ended. No lock is held.
func announce(identity *Identity, subscribers []*subscriber) {
	identity.onEnd.happen()
	end := *identity.state.Load().end
	for _, one := range subscribers {
		one.f(end)
	}
}
