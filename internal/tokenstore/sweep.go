package tokenstore

import (
	"context"
	"time"
)

// sweepBatch is how much is ended at a time, an identity and each of its grants counting as one, before
// others get their turn to change the store.
const sweepBatch = 32

// Sweep ends the identities and grants that have expired by now, and returns how many they were; the
// grants that die with their owners do not count. What it costs depends on what expired, not on what
// lives. Functions of [Identity.OnEnd] and [Store.Subscribe] have returned for those that it ended.
func (s *Store) Sweep(now time.Time) int { return s.sweep(s.clock.at(now)) }

// Run sweeps whenever something expires, until the context is done. A store needs one Run.
func (s *Store) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-timer.C:
			s.sweep(s.clock.now())
		}
		timer.Reset(time.Duration(s.next() - s.clock.now()))
	}
}

func (s *Store) sweep(now instant) int {
	var batch [sweepBatch]*Identity
	for total := 0; ; {
		identities, count, subscribers, more := s.sweepSome(now, batch[:0])
		for _, identity := range identities {
			announce(identity, subscribers)
		}
		total += count
		if !more {
			return total
		}
	}
}

// sweepSome ends a batch of what has expired by now. It appends the identities to ended and returns
// them, how many identities and grants it ended, the subscribers to tell, and whether there are more.
func (s *Store) sweepSome(now instant, ended []*Identity) ([]*Identity, int, []*subscriber, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	count := 0
	for cost := 0; cost < sweepBatch; cost++ {
		if s.nextLocked() > now {
			return ended, count, s.subscribers, false
		}
		count++
		if g, at := s.grantExpiries.first(); at <= now {
			s.applyLocked(change{kind: changeGrantEnd, grant: g})
			s.keepExpiredLocked(g)
			continue
		}
		identity, _ := s.identityExpiries.first()
		cost += len(identity.grants)
		s.applyLocked(change{kind: changeEnd, identity: identity, reason: ReasonExpired})
		ended = append(ended, identity)
	}
	return ended, count, s.subscribers, true
}

func (s *Store) next() instant {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nextLocked()
}

// nextLocked returns when the next identity or grant expires, or never.
func (s *Store) nextLocked() instant {
	_, identity := s.identityExpiries.first()
	_, grant := s.grantExpiries.first()
	return min(identity, grant)
}
