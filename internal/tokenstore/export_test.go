package tokenstore

// Residue counts what the store holds besides its configuration: nothing once all has ended.
func (s *Store) Residue() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.identityExpiries.len() + s.grantExpiries.len() + len(s.host.grants) + len(s.expired)
	for range s.identities.all() {
		n++
	}
	for range s.grants.all() {
		n++
	}
	for range s.selves.table.all() {
		n++
	}
	for range s.peers.table.all() {
		n++
	}
	for range s.proven.table.all() {
		n++
	}
	return n
}

// WhileLocked calls f while no change can be made.
func (s *Store) WhileLocked(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// SweepBatch is how much is swept at a time.
const SweepBatch = sweepBatch
