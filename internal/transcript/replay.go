package transcript

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// Errors of [CheckSkew] and [Replay], to be told apart with [errors.Is].
var (
	// ErrSkew is returned for a handshake that is too old or too far ahead.
	ErrSkew = errors.New("issued outside of the allowed clock skew")
	// ErrReplayed is returned for a handshake that was claimed before.
	ErrReplayed = errors.New("nonce was used before")
	// ErrFull is returned where one more nonce would exceed a bound.
	ErrFull = errors.New("replay cache is full")
	// ErrForgotten is returned for a handshake that was issued before the time
	// that the cache can answer for.
	ErrForgotten = errors.New("issued before what the replay cache remembers")
)

// CheckSkew returns [ErrSkew], and which clock is how far from the other, unless issuedAt is within skew of now, in either
// direction, the limits included.
func CheckSkew(issuedAt, now time.Time, skew time.Duration) error {
	switch {
	case issuedAt.After(now.Add(skew)):
		return skewed(issuedAt.Sub(now), "after", skew)
	case issuedAt.Before(now.Add(-skew)):
		return skewed(now.Sub(issuedAt), "before", skew)
	}
	return nil
}

// skewed says how far a time is from this side's.
func skewed(by time.Duration, side string, skew time.Duration) error {
	return fmt.Errorf("%w of %s: by the peer's clock %s %s the time of this one; set the clocks",
		ErrSkew, skew, by.Round(time.Millisecond), side)
}

// ReplayConfig configures a [Replay].
type ReplayConfig struct {
	// Skew is how far issue times may differ from the clock, in either
	// direction. Zero demands that they are equal to it.
	Skew time.Duration
	// MaxTotal bounds the nonces that are remembered. Zero remembers none and
	// so refuses every handshake.
	MaxTotal int
	// MaxPerSelf bounds those of one self id, so that the holder of one secret
	// cannot fill the cache for all. Zero refuses every handshake.
	MaxPerSelf int
	// Since is when the cache began: it refuses what was issued before, since an
	// earlier cache, before a restart, may have seen it. Zero means that there
	// was none.
	Since time.Time
}

// Replay remembers the nonces of the handshakes that were accepted, for as long
// as their issue times pass [CheckSkew]. It never accepts a handshake twice,
// whatever the clock does: what it forgot is too old, and stays refused if the
// clock is set back. It is safe for concurrent use; make it with [NewReplay].
type Replay struct {
	// Fixed at creation.
	cfg ReplayConfig

	mu    sync.Mutex
	seen  nonces    // by issue time
	floor time.Time // what was issued at or before this may be forgotten
}

// NewReplay returns an empty cache.
func NewReplay(cfg ReplayConfig) *Replay {
	r := &Replay{cfg: cfg, seen: newNonces()}
	if !cfg.Since.IsZero() {
		r.floor = cfg.Since.Add(-1)
	}
	return r
}

// Claim accepts a handshake once. The caller has verified that the holder of
// the secret of selfID made nonce and issuedAt; without that strangers could
// fill the cache. It returns [ErrNonce], [ErrSkew], [ErrForgotten],
// [ErrReplayed] or [ErrFull]: a cache that is full refuses, and forgets nothing
// early to make room.
//
// It takes time in proportion to what expired since the last call, not to what
// is remembered.
func (r *Replay) Claim(selfID string, nonce []byte, issuedAt, now time.Time) error {
	key, err := newNonceKey(selfID, nonce)
	if err != nil {
		return err
	}
	// Only the wall clock can be compared with that of another machine.
	issuedAt, now = issuedAt.Round(0), now.Round(0)

	r.mu.Lock()
	defer r.mu.Unlock()
	if last, some := r.seen.expire(now.Add(-r.cfg.Skew)); some && last.After(r.floor) {
		r.floor = last
	}
	if r.seen.has(key) {
		return ErrReplayed
	}
	if err := CheckSkew(issuedAt, now, r.cfg.Skew); err != nil {
		return err
	}
	if !issuedAt.After(r.floor) {
		return ErrForgotten
	}
	return r.seen.add(key, issuedAt, &r.cfg)
}

// Len returns how many nonces are remembered, those included that expired since
// the last call of Claim.
func (r *Replay) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen.len()
}
