package limiter

import (
	"sync"
	"time"
)

// mostPace bounds how long a [Pace] tells anybody to wait.
const mostPace = time.Minute

// Pace admits what comes at a rate, and gives everybody else a time to come back at: each
// a later one, so that they do not come back together. The zero value is ready; it is safe
// for concurrent use.
type Pace struct {
	mu       sync.Mutex
	tokens   float64
	latest   time.Time // zero before the first call, when the burst is there
	promised time.Time // the last time that somebody was given
}

// Admit takes one of burst, of which perSecond come back each second, and returns zero. Where
// there is none it returns how long to wait, a minute at most. Zero, negative or NaN
// perSecond give none back. Time does not run backwards: a now before one already seen
// counts as that one.
func (p *Pace) Admit(perSecond float64, burst int, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !(perSecond > 0) {
		perSecond = 0
	}
	if p.latest.IsZero() {
		p.tokens, p.latest = float64(burst), now
	}
	now = later(p.latest, now)
	p.tokens = min(float64(burst), p.tokens+now.Sub(p.latest).Seconds()*perSecond)
	p.latest = now
	if p.tokens >= 1 {
		p.tokens--
		return 0
	}
	if perSecond == 0 {
		return mostPace
	}
	p.promised = later(now, p.promised).Add(time.Duration(float64(time.Second) / perSecond))
	if most := now.Add(mostPace); p.promised.After(most) {
		p.promised = most
	}
	return p.promised.Sub(now)
}

// Return gives back what Admit took and nothing was done with.
func (p *Pace) Return() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tokens++
}
