// Package supervise knows when something that ended is started again: soon after a first
// failure, later after each one that follows, and not at all for a while once there were too
// many of them. It reads no clock and starts nothing.
package supervise

import (
	"cmp"
	"math/rand/v2"
	"time"
)

// Defaults of a [Config].
const (
	DefaultMinBackoff  = 100 * time.Millisecond
	DefaultMaxBackoff  = 30 * time.Second
	DefaultStableAfter = time.Minute
	DefaultMaxFailures = 5
	DefaultWindow      = time.Minute
	DefaultCooldown    = time.Minute

	maxDoublings = 40
)

// Config says when to start again. Zero fields mean the defaults.
type Config struct {
	// MinBackoff is the wait after the first failure, doubled by each that follows up to
	// MaxBackoff. A wait is drawn from the upper half of what it would be.
	MinBackoff, MaxBackoff time.Duration
	// StableAfter is how long a run must last for the failures before it to be forgotten.
	StableAfter time.Duration
	// MaxFailures within Window are one crash loop: the breaker opens, and the next start
	// is Cooldown later. If that one fails soon as well, the breaker stays open.
	MaxFailures      int
	Window, Cooldown time.Duration
	// Random returns a number from 0 up to 1. Nil means a good one.
	Random func() float64
}

func (c Config) withDefaults() Config {
	c.MinBackoff = cmp.Or(c.MinBackoff, DefaultMinBackoff)
	c.MaxBackoff = max(cmp.Or(c.MaxBackoff, DefaultMaxBackoff), c.MinBackoff)
	c.StableAfter = cmp.Or(c.StableAfter, DefaultStableAfter)
	c.MaxFailures = cmp.Or(c.MaxFailures, DefaultMaxFailures)
	c.Window = cmp.Or(c.Window, DefaultWindow)
	c.Cooldown = cmp.Or(c.Cooldown, DefaultCooldown)
	if c.Random == nil {
		c.Random = rand.Float64
	}
	return c
}

// Next is what to do after a failure.
type Next struct {
	// At is when to start again.
	At time.Time
	// Broken says that the breaker is open: there were too many failures.
	Broken bool
	// Failures counts those since the last stable run.
	Failures int
}

// Supervisor remembers the failures of one thing. It is not safe for concurrent use.
type Supervisor struct {
	cfg      Config
	failures int
	recent   []time.Time // at most MaxFailures, the oldest first
	open     bool
}

// New makes a supervisor of something that has not failed yet.
func New(cfg Config) *Supervisor { return &Supervisor{cfg: cfg.withDefaults()} }

// Failed notes that the thing ended, or did not come up, at now, after it had run for ran,
// and says what to do.
func (s *Supervisor) Failed(now time.Time, ran time.Duration) Next {
	if ran >= s.cfg.StableAfter {
		s.Reset()
	}
	s.failures++
	s.recent = append(s.recent, now)
	if over := len(s.recent) - s.cfg.MaxFailures; over > 0 {
		s.recent = append(s.recent[:0], s.recent[over:]...)
	}
	if len(s.recent) == s.cfg.MaxFailures && now.Sub(s.recent[0]) <= s.cfg.Window {
		s.open = true
	}
	next := Next{Broken: s.open, Failures: s.failures}
	if s.open {
		next.At = now.Add(s.cfg.Cooldown)
		return next
	}
	next.At = now.Add(s.backoff())
	return next
}

// Configure says anew when to start again. What failed before counts on.
func (s *Supervisor) Configure(cfg Config) { s.cfg = cfg.withDefaults() }

// Reset forgets the failures: somebody changed something.
func (s *Supervisor) Reset() {
	s.failures, s.recent, s.open = 0, s.recent[:0], false
}

// backoff returns the wait after so many failures.
func (s *Supervisor) backoff() time.Duration {
	wait := s.cfg.MinBackoff
	for range min(s.failures-1, maxDoublings) {
		if wait >= s.cfg.MaxBackoff/2 {
			wait = s.cfg.MaxBackoff
			break
		}
		wait *= 2
	}
	return wait/2 + time.Duration(s.cfg.Random()*float64(wait-wait/2))
}
