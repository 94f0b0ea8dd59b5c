package tokenstore

import (
	"crypto/rand"
	"io"
	"time"
)

// What the zero values of [Config] mean.
const (
	DefaultTTL                  = 24 * time.Hour
	DefaultGrace                = 30 * time.Second
	DefaultMaxTotal             = 100_000
	DefaultMaxPerSelf           = 1_000
	DefaultMaxPerPeer           = 1_000
	DefaultMaxGrantsPerIdentity = 256

	// DefaultGrantTTL is how long a grant lives that [Store.IssueGrant] is given no time for.
	DefaultGrantTTL = time.Hour
)

// Config holds the bounds of a [Store]. The zero value is usable. Of every number, zero or less means
// the default; math.MaxInt is no bound.
type Config struct {
	// TTL is how long a token lives where [Request.TTL] does not say. Zero means DefaultTTL.
	TTL time.Duration

	// Grace is how long the previous token lives on after a renewal, though never past its own expiry.
	// Zero means DefaultGrace, less than zero means not at all.
	Grace time.Duration

	// MaxTotal bounds the live identities. Zero means DefaultMaxTotal.
	MaxTotal int

	// MaxPerSelf bounds the live identities of one self id where [Request.MaxInstances] does not say.
	// Zero means DefaultMaxPerSelf.
	MaxPerSelf int

	// MaxPerPeer bounds the live identities of one peer. Zero means DefaultMaxPerPeer.
	MaxPerPeer int

	// MaxGrantsPerIdentity bounds the live grants of one owner, the host itself counting as one. All instances of a
	// self id, or identities of a peer that proved nothing, have four times as many together, or eight each where
	// those are more. Zero means DefaultMaxGrantsPerIdentity.
	MaxGrantsPerIdentity int

	// Rand is the source of ids and tokens and must be safe for concurrent use. Nil means that of
	// crypto/rand.
	Rand io.Reader

	// Now tells the time and must be safe for concurrent use. Nil means time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() Config {
	c.TTL = orDefault(c.TTL, DefaultTTL)
	if c.Grace == 0 {
		c.Grace = DefaultGrace
	}
	c.MaxTotal = orDefault(c.MaxTotal, DefaultMaxTotal)
	c.MaxPerSelf = orDefault(c.MaxPerSelf, DefaultMaxPerSelf)
	c.MaxPerPeer = orDefault(c.MaxPerPeer, DefaultMaxPerPeer)
	c.MaxGrantsPerIdentity = orDefault(c.MaxGrantsPerIdentity, DefaultMaxGrantsPerIdentity)
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	return c
}

// orDefault returns the value if it is positive, otherwise the default.
func orDefault[N int | time.Duration](value, fallback N) N {
	if value > 0 {
		return value
	}
	return fallback
}
