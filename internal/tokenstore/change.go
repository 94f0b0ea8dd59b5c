package tokenstore

import (
	"strconv"
	"strings"
)

// changeKind says what a change is about.
type changeKind uint8

const (
	changeIssue changeKind = iota + 1
	changeRenew
	changeEnd
	changeGrant
	changeGrantEnd
)

// change is one change of the store's state, found right by whoever made it.
type change struct {
	kind     changeKind
	identity *Identity // changeIssue, changeRenew, changeEnd
	request  *Request  // changeIssue
	state    *state    // changeRenew
	reason   Reason    // changeEnd
	grant    *grant    // changeGrant, changeGrantEnd
}

// applyLocked makes a change and gives it the next sequence number. Nothing else changes the identities
// and grants of the store.
func (s *Store) applyLocked(c change) {
	s.sequence++
	next := s.nextLocked()
	switch c.kind {
	case changeIssue:
		s.addLocked(c.identity, c.request)
	case changeRenew:
		s.issued.retire(c.identity.state.Load().digest.short())
		s.issued.add(c.state.digest.short())
		c.identity.state.Store(c.state)
		s.identityExpiries.move(c.identity, c.state.expires)
	case changeEnd:
		s.removeLocked(c.identity, c.reason)
	case changeGrant:
		s.addGrantLocked(c.grant)
	case changeGrantEnd:
		end := ErrExpired
		if c.grant.revoked.Load() {
			end = ErrRevoked
		}
		s.removeGrantLocked(c.grant, end)
	}
	if s.nextLocked() < next {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

func (s *Store) addLocked(identity *Identity, r *Request) {
	name := r.SelfID
	if strings.HasPrefix(identity.runtimeID, name) {
		name = identity.runtimeID[:len(name)] // keeps one copy instead of two
	}
	identity.self = s.selves.increment(name)
	if r.Peer != "" {
		identity.proven = r.Proven
		identity.peer = s.peersOf(identity).increment(r.Peer)
	}
	if identity.proven {
		identity.number = identity.self.number()
		identity.limiterKey = "plugin:" + name + "#" + strconv.Itoa(identity.number)
	}
	first := identity.state.Load()
	s.issued.add(first.digest.short())
	s.identityExpiries.add(identity, first.expires)
	s.identities.put(identity)
}

func (s *Store) removeLocked(identity *Identity, reason Reason) {
	last := *identity.state.Load()
	last.previous = nil
	s.issued.retire(last.digest.short())
	last.end = &End{Identity: identity, Reason: reason, Sequence: s.sequence}
	identity.state.Store(&last)

	s.identities.remove(identity)
	s.identityExpiries.remove(identity)
	if identity.proven {
		identity.self.giveBack(identity.number)
	}
	s.selves.decrement(identity.self)
	if identity.peer != nil {
		s.peersOf(identity).decrement(identity.peer)
	}
	for g := range identity.grants {
		s.removeGrantLocked(g, ErrEnded)
	}
	identity.grants = nil
}

// peersOf returns where the peer of an identity is counted.
func (s *Store) peersOf(identity *Identity) tallies {
	if identity.proven {
		return s.proven
	}
	return s.peers
}

func (s *Store) addGrantLocked(g *grant) {
	if g.owner.grants == nil {
		g.owner.grants = make(map[*grant]struct{})
	}
	g.owner.grants[g] = struct{}{}
	if kin := g.owner.kin(); kin != nil {
		kin.grants++
	}
	s.grantExpiries.add(g, g.expires)
	s.grants.put(g)
}

func (s *Store) removeGrantLocked(g *grant, end error) {
	g.ended.Store(true)
	s.past.add(g.id, end)
	s.grants.remove(g)
	s.grantExpiries.remove(g)
	delete(g.owner.grants, g)
	if kin := g.owner.kin(); kin != nil {
		kin.grants--
	}
}
