package tokenstore

import (
	"sync/atomic"
	"time"
	"unique"
)

// Identity is one instance of a plugin, from its handshake to its end, across renewals of its token. All
// of its methods are safe for concurrent use and none blocks.
type Identity struct {
	// Fixed at creation.
	runtimeID   string
	limiterKey  string
	selfVersion unique.Handle[string] // few versions, many instances
	self, peer  *tally                // peer is nil where there is none
	proven      bool                  // peer is one of the proven, which nothing bounds
	number      int                   // of one that is proven, among the living of its self id
	clock       *clock
	fingerprint Fingerprint

	state      atomic.Pointer[state]
	attributes atomic.Value
	onEnd      occasion
	life       life

	// Guarded by the store's mu.
	grants map[*grant]struct{}
	expiry int // position among the store's deadlines
}

// state is everything about an identity that changes. It never changes itself: each change replaces it,
// so that whoever loads it sees all of one moment.
type state struct {
	digest          digest
	issued, expires instant
	previous        *graced // nil: there is no other token
	end             *End    // nil: it lives
}

// graced is the token before the last renewal. It is short-lived, and kept short.
type graced struct {
	digest shortDigest
	until  instant
}

// RuntimeID returns the id of this instance: the self id, sanitised, and 128 random bits.
func (i *Identity) RuntimeID() string { return i.runtimeID }

// LimiterKey returns the key of its budgets. Of what is proven it is made of the self id and of a number that no other
// living instance has, and that the next one gets when this has ended: to enrol anew fills no budget. Otherwise it is
// made of the runtime id.
func (i *Identity) LimiterKey() string { return i.limiterKey }

// Number returns the number in that key, zero where there is none.
func (i *Identity) Number() int { return i.number }

// String returns the runtime id.
func (i *Identity) String() string { return i.runtimeID }

// SelfID returns what the plugin calls itself.
func (i *Identity) SelfID() string { return i.self.name }

// SelfVersion returns which version the plugin says that it is.
func (i *Identity) SelfVersion() string { return i.selfVersion.Value() }

// Peer returns where the identity was issued to, or "" if it was in the host's own process.
func (i *Identity) Peer() string {
	if i.peer == nil {
		return ""
	}
	return i.peer.name
}

// Proven reports whether the identity was issued for a proof.
func (i *Identity) Proven() bool { return i.proven }

// Fingerprint returns the certificate that the tokens are bound to, or zero.
func (i *Identity) Fingerprint() Fingerprint { return i.fingerprint }

// IssuedAt returns when the current token was issued. Renewal changes it.
func (i *Identity) IssuedAt() time.Time { return i.clock.time(i.state.Load().issued) }

// ExpiresAt returns when the current token expires. Renewal changes it.
func (i *Identity) ExpiresAt() time.Time { return i.clock.time(i.state.Load().expires) }

// Attributes returns what the host attached, shared and not copied, or nil.
func (i *Identity) Attributes() any { return i.attributes.Load() }

// SetAttributes replaces what the host attached, by something of the same type. It panics for another
// type and for nil.
func (i *Identity) SetAttributes(attributes any) { i.attributes.Store(attributes) }

// Ended tells whether the identity ended. One that expired ends when the store next sweeps.
func (i *Identity) Ended() bool { return i.state.Load().end != nil }

// Reason returns why the identity ended, or "" while it lives.
func (i *Identity) Reason() Reason {
	if end := i.state.Load().end; end != nil {
		return end.Reason
	}
	return ""
}

// OnEnd arranges for f to be called when the identity ends, by whoever ends it and before that returns,
// or at once if it has ended. Functions are called in no particular order, exactly once each.
//
// Calling stop takes f back. It returns false if f was called, or is about to be, without waiting for
// it, or was taken back before.
func (i *Identity) OnEnd(f func()) (stop func() bool) { return i.onEnd.on(f, i.Ended) }

// Hang does what OnEnd does, with a hook of the caller's, who calls Unhang or lets the identity end.
func (i *Identity) Hang(h *Hook, do Happening) {
	h.do = do
	i.onEnd.hang(h, i.Ended)
}

// Unhang takes back what Hang arranged, as the stop of OnEnd does.
func (i *Identity) Unhang(h *Hook) bool { return i.onEnd.takeBack(h) }

// kin is what counts those that share bounds with the identity: the instances of its self id, or where that is not
// proven the identities of its peer. That of the host itself has none.
func (i *Identity) kin() *tally {
	if i.peer != nil && !i.proven {
		return i.peer
	}
	return i.self
}

// expired tells whether the identity is past its time, whether or not the store has noticed.
func (s *state) expired(now instant) bool { return now >= s.expires }

// good tells whether the identity may be used.
func (s *state) good(now instant) bool { return s.end == nil && !s.expired(now) }

// lifetime returns how long the token was meant to live when it was issued.
func (s *state) lifetime() time.Duration { return time.Duration(s.expires - s.issued) }

func (i *Identity) key() string { return i.runtimeID }

func (i *Identity) position() *int { return &i.expiry }
