package edge

import "time"

// owed is what the connections of one address cost beside what they are for, as requests are counted. Nobody pays for it.
type owed struct {
	heads intake // what takes longer than its bytes say
	vain  intake // TLS handshakes of connections that ended before anybody proved to have one
}

func newOwed() *owed { return &owed{} }

// isRested reports whether there is nothing of it.
func (o *owed) isRested() bool {
	now := time.Now()
	return o.heads.rested(now) && o.vain.rested(now)
}

const (
	// vainOfOne is how many requests a connection counts as that computed in its TLS handshake and ended before anybody proved to
	// have it.
	vainOfOne = 16
	// vainRests is how many times as long an address rests between the handshakes of its connections that has too many of these.
	vainRests = 3
)

// inVain says that the slot was that of a connection which ended before anybody proved to have it. A few are those of whoever asks
// whether the host lives.
func (s *slot) inVain(now time.Time) {
	if s.owes != nil && s.conn.computed.Load() && !s.listener.cfg.Trusted {
		s.owes.vain.costs(vainOfOne, now)
	}
}

// rests is how long nobody of the slot's address has a turn after one that took so long: as long as that, so that the processors
// are others' meanwhile, and longer where what the address wants comes to nothing.
func (s *slot) rests(took time.Duration, now time.Time) time.Duration {
	took = min(took, longestRest)
	if s.owes != nil && s.owes.vain.isOver(now) {
		took *= vainRests
	}
	return took
}
