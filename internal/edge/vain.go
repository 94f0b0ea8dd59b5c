package edge

import (
	"sync/atomic"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/turns"
)

// owed is what the connections of one address, or of all, cost beside what they are for, as requests are counted. Nobody pays for it.
type owed struct {
	heads  intake                    // what takes longer than its bytes say
	vain   intake                    // TLS handshakes of connections that ended before anybody proved to have one
	doubts atomic.Pointer[time.Time] // when the last of these ended; nil for never
	known  atomic.Int32              // connections of the address that somebody proved to have, as they are now
}

// newOwed returns what one address owes, owedByMany what so many owe together.
func newOwed() *owed { return owedByMany(1) }

func owedByMany(times float64) *owed {
	return &owed{heads: intake{times: times}, vain: intake{times: times}}
}

// isRested reports whether there is nothing of it.
func (o *owed) isRested() bool {
	now := time.Now()
	return o.heads.rested(now) && o.vain.rested(now) && !o.inDoubt(now)
}

// inDoubt reports whether something was in vain lately.
func (o *owed) inDoubt(now time.Time) bool {
	last := o.doubts.Load()
	return last != nil && now.Sub(*last) < doubtedFor
}

const (
	// vainOfOne is how many requests a connection counts as that computed in its TLS handshake and ended before anybody proved to
	// have it.
	vainOfOne = 16
	// vainRests is how many times as long an address rests between the handshakes of its connections that has too many of these.
	vainRests = 5
	// doubtedFor is for how long an address is one of those of which a TLS handshake was in vain.
	doubtedFor = 10 * time.Second
)

// over says that the slot's connection has ended: in vain where nobody proved to have it. A few are those of whoever asks whether the
// host lives.
func (s *slot) over(now time.Time) {
	switch {
	case s.owes == nil:
	case s.holder.Load() != nil:
		s.owes.known.Add(-1)
	case s.conn.computed.Load() && !s.listener.cfg.Trusted:
		s.owes.doubts.Store(&now)
		s.owes.vain.costs(vainOfOne, now)
		s.listener.nobody.vain.costs(vainOfOne, now)
	}
}

// inDoubt returns the turns for which the slot's address waits beside its own while those of all addresses have too many TLS
// handshakes in vain: all of which there was one lately have these together, nil where there was none, and where somebody is known: a
// balancer asks whether the host lives, and plugins come from its address. Each waits there with as many as it has turns of its own,
// so that they come one after the other.
func (s *slot) inDoubt(now time.Time) *turns.Turns {
	if s.owes == nil || s.owes.known.Load() > 0 || !s.owes.inDoubt(now) || !s.listener.nobody.vain.isOver(now) {
		return nil
	}
	return s.listener.doubted
}

// rests is how long nobody of the slot's address has a turn after one that took so long: as long as that, so that the processors
// are others' meanwhile, and longer where what the address wants comes to nothing, or what those want that share the turn.
func (s *slot) rests(took time.Duration, of *turns.Turns, now time.Time) time.Duration {
	took = min(took, longestRest)
	if of == s.listener.doubted || s.owes != nil && s.owes.vain.isOver(now) {
		took *= vainRests
	}
	return took
}
