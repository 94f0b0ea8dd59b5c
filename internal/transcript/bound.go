package transcript

import (
	"sync"
	"time"
)

// Moment is now: as the clock says, which somebody may have set, and as it would say
// had nobody set it since the program began.
type Moment struct{ Wall, Steady time.Time }

// Clock tells moments. Make it with [NewClock].
type Clock struct{ start time.Time }

// NewClock returns a clock whose two times are equal until somebody sets the machine's.
func NewClock() Clock { return Clock{start: time.Now()} }

// Now returns the present moment.
func (c Clock) Now() Moment {
	now := time.Now()
	// Between two readings of one process the monotonic clock counts (package time).
	return Moment{Wall: now.Round(0), Steady: c.start.Add(now.Sub(c.start)).Round(0)}
}

// Bound remembers the nonces of handshakes whose proofs are bound to their TLS
// connection. Such a proof is of no use on another connection, so a clock that is set
// must not keep the honest out: what either time of the moment allows is accepted, and
// what was forgotten is not refused for that. It is safe for concurrent use; make it
// with [NewBound].
type Bound struct {
	cfg ReplayConfig // fixed at creation

	mu   sync.Mutex
	seen nonces // by the steady time until which they could be claimed again
}

// NewBound returns an empty cache. Since of the configuration does not matter to it.
func NewBound(cfg ReplayConfig) *Bound { return &Bound{cfg: cfg, seen: newNonces()} }

// Claim is [Replay.Claim] for a bound proof. It never returns [ErrForgotten].
func (b *Bound) Claim(selfID string, nonce []byte, issuedAt time.Time, now Moment) error {
	key, err := newNonceKey(selfID, nonce)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen.expire(now.Steady)
	if b.seen.has(key) {
		return ErrReplayed
	}
	left, err := b.left(issuedAt.Round(0), now)
	if err != nil {
		return err
	}
	return b.seen.add(key, now.Steady.Add(left), &b.cfg)
}

// left returns for how long a proof could be claimed from now on.
func (b *Bound) left(issuedAt time.Time, now Moment) (time.Duration, error) {
	left, ok := time.Duration(0), false
	wrong := CheckSkew(issuedAt, now.Wall, b.cfg.Skew)
	for _, at := range []time.Time{now.Wall, now.Steady} {
		if CheckSkew(issuedAt, at, b.cfg.Skew) == nil {
			left, ok = max(left, issuedAt.Sub(at)+b.cfg.Skew), true
		}
	}
	if !ok {
		return 0, wrong // by the clock that an operator sees
	}
	return left, nil
}
