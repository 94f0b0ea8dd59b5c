package tokenstore

import "sync"

// mostPast is how many of the grants that are over a store remembers.
const mostPast = 1024

// past remembers how the last grants ended that are over, for the host's log.
type past struct {
	mu   sync.Mutex // is taken under the store's
	ends map[string]error
	last [mostPast]string
	next int // in last
}

func (p *past) add(grantID string, end error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ends == nil {
		p.ends = map[string]error{}
	}
	delete(p.ends, p.last[p.next])
	p.ends[grantID], p.last[p.next] = end, grantID
	p.next = (p.next + 1) % mostPast
}

// PastGrant returns how a grant ended that is over: [ErrExpired], [ErrRevoked], or [ErrEnded] where its owner
// ended. It returns nil for one that lives, that never was, or that is over for so long that the store has
// forgotten it.
func (s *Store) PastGrant(grantID string) error {
	s.past.mu.Lock()
	defer s.past.mu.Unlock()
	return s.past.ends[grantID]
}
