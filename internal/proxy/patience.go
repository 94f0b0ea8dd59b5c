package proxy

import (
	"math/rand/v2"
	"time"
)

// The waits before a provider is dialled again that could not be reached, or
// could be and was of no use: the second costs both sides handshakes.
const (
	firstRefusedWait = 10 * time.Millisecond
	mostRefusedWait  = 250 * time.Millisecond
	firstUselessWait = 50 * time.Millisecond
	mostUselessWait  = 30 * time.Second
	forgotten        = time.Minute // after a wait those before it do not count

	// shortWait is a wait that a call sits out; before a longer one it fails.
	shortWait = mostRefusedWait
)

// patience says when a provider may be dialled again. The zero value says at once.
type patience struct {
	refused int // attempts in a row that reached nobody
	useless int // connections in a row that nothing was answered on
	until   time.Time
	last    error // what came of the last attempt
}

// refuse takes in an attempt that reached nobody. The first one is free: a
// provider that restarts is back at once.
func (p *patience) refuse(now time.Time, err error) {
	p.refused++
	p.last = err
	if p.refused > 1 {
		p.wait(now, grown(firstRefusedWait, mostRefusedWait, p.refused-1))
	}
}

// waste takes in a connection that was of no use.
func (p *patience) waste(now time.Time, err error) {
	if now.Sub(p.until) > forgotten {
		p.useless = 0
	}
	p.useless++
	p.last = err
	p.wait(now, grown(firstUselessWait, mostUselessWait, p.useless))
}

// wait moves the next attempt to a random moment in the second half of a wait.
func (p *patience) wait(now time.Time, d time.Duration) {
	d = d/2 + rand.N(d/2+1) //nolint:gosec // a jitter is no secret
	if until := now.Add(d); until.After(p.until) {
		p.until = until
	}
}

// left returns how long to wait before the next attempt.
func (p *patience) left(now time.Time) time.Duration { return max(0, p.until.Sub(now)) }

// grown doubles first for each attempt after the first one, up to most.
func grown(first, most time.Duration, attempts int) time.Duration {
	d := first
	for range attempts - 1 {
		if d *= 2; d >= most {
			return most
		}
	}
	return d
}
