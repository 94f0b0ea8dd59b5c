package catalog

// count takes note of one registration more of a self id.
func (s *service) count(selfID string) {
	switch {
	case s.owned == 0:
		s.owner, s.owned = selfID, 1
	case s.owner == selfID:
		s.owned++
	default:
		if s.others == nil {
			s.others = make(map[string]int)
		}

		s.others[selfID]++
	}
}

// discount takes note of one registration less, which is on the roster no more.
// When the owner's last one goes, the type falls to the self id of the earliest
// registration that is left.
func (s *service) discount(selfID string) {
	if s.owner != selfID {
		s.others[selfID]--
		if s.others[selfID] == 0 {
			delete(s.others, selfID)
		}

		return
	}

	s.owned--
	if s.owned > 0 {
		return
	}

	s.owner = ""

	if heir := s.roster.first(); heir != nil {
		s.owner = heir.reg.SelfID
		s.owned = s.others[s.owner]
		delete(s.others, s.owner)
	}
}
