package h2

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	fieldTime  = 50 * time.Microsecond // of one processor: what a field takes, and as much for others as they like to have
	frameTime  = 25 * time.Microsecond // the same of a frame with next to nothing in it
	timeFree   = 16 * time.Millisecond // worth of both that comes at once
	remembered = time.Second           // since there was time for all that somebody got
)

// Pace is how fast servers of one owner may send, to each of those who call them, what answers usually lack: header fields
// beyond the usual, and frames with next to nothing in them. Each head waits until there was time for those before it,
// and who got many makes the next call when there is time for as many again. Nobody waits for what others get, nor does
// an instance for what others of its name get; but those that wait have the time of one together. It is safe for
// concurrent use. The zero value is ready, a nil one has nobody wait.
type Pace struct {
	some atomic.Bool // of names; without a lock, for who makes a call

	mu    sync.Mutex
	names map[string]instances
	swept time.Time
}

// Payer is who calls, for whom what comes is counted.
type Payer struct {
	Name     string // of several that have the time of one together
	Instance string // which of them it is, empty where there is one
}

// instances are those of a name that got something.
type instances map[string]*pacing

// pacing is what an instance got.
type pacing struct {
	over   time.Time // when there was time for all that came
	fields int       // that the last answer had too many, or half as many as were expected before
}

// Reserved is what was counted for an answer that has not come. The zero value is nothing.
type Reserved struct {
	fields int
	time   time.Duration
}

// Reserve has whoever is about to make a call wait for as long as it says, and counts as many fields for the answer as
// the last one had too many. They go into [Request.Expected].
func (p *Pace) Reserve(who Payer) (Reserved, time.Duration) {
	if p == nil || !p.some.Load() {
		return Reserved{}, 0
	}
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweepLocked(now)
	all := p.names[who.Name]
	c := all[who.Instance]
	if c == nil {
		return Reserved{}, 0
	}
	wait := max(c.over.Sub(now), 0)
	r := Reserved{fields: c.fields, time: all.worth(c, c.fields, fieldTime, now)}
	c.add(r.time, now)
	return r, wait
}

// firstLook is after what time whoever waits looks first whether others gave back what they had reserved; then it is after twice
// as long.
const firstLook = 10 * time.Millisecond

// Wait waits for as long as [Pace.Reserve] said, or less, where what was reserved before comes back meanwhile. It reports false
// where it was interrupted.
func (p *Pace) Wait(who Payer, r Reserved, wait time.Duration, interrupted <-chan struct{}) bool {
	until := time.Now().Add(wait)
	t := time.NewTimer(min(wait, firstLook))
	defer t.Stop()
	for look := 2 * firstLook; ; look *= 2 {
		select {
		case <-t.C:
		case <-interrupted:
			return false
		}
		if wait = p.left(who, r, until); wait == 0 {
			return true
		}
		t.Reset(min(wait, look))
	}
}

// Return takes back what was reserved for an answer that there is not.
func (p *Pace) Return(who Payer, r Reserved) {
	if r.fields > 0 {
		p.note(who, func(_ instances, c *pacing, now time.Time) { c.add(-r.time, now) })
	}
}

// Rested reports whether nobody waits for what came, or would for what comes next.
func (p *Pace) Rested(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, all := range p.names {
		for _, c := range all {
			if c.over.After(now.Add(-timeFree)) {
				return false
			}
		}
	}
	return true
}

// left is how long whoever reserved something still has to wait, until a time at most.
func (p *Pace) left(who Payer, r Reserved, until time.Time) time.Duration {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.names[who.Name][who.Instance]
	if c == nil {
		return 0
	}
	if over := c.over.Add(-r.time); over.Before(until) {
		until = over
	}
	return max(until.Sub(now), 0)
}

// answered notes an answer with so many fields too many, of which some were reserved, and returns how long it waits.
// One with fewer than before makes fewer expected, but not at once: who gets both in turn would have none expected.
func (p *Pace) answered(who Payer, fields int, r Reserved) time.Duration {
	return p.note(who, func(all instances, c *pacing, now time.Time) {
		c.fields = max(fields, min(c.fields, r.fields)/2)
		if more := fields - r.fields; more >= 0 {
			c.add(all.worth(c, more, fieldTime, now), now)
			return
		}
		c.add(-r.time*time.Duration(r.fields-fields)/time.Duration(r.fields), now)
	})
}

// fell notes that nothing more comes of an answer for which something may have been reserved.
func (p *Pace) fell(who Payer, r *Reserved) {
	if r.fields > 0 {
		p.answered(who, 0, *r)
		*r = Reserved{}
	}
}

// came notes so many frames with next to nothing in them, and returns how long who reads them waits.
func (p *Pace) came(who Payer, frames int) time.Duration {
	return p.note(who, func(all instances, c *pacing, now time.Time) { c.add(all.worth(c, frames, frameTime, now), now) })
}

func (p *Pace) note(who Payer, add func(instances, *pacing, time.Time)) time.Duration {
	if p == nil {
		return 0
	}
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweepLocked(now)
	all := p.names[who.Name]
	if all == nil {
		all = make(instances)
		if p.names == nil {
			p.names = make(map[string]instances)
		}
		p.names[who.Name] = all
		p.some.Store(true)
	}
	c := all[who.Instance]
	if c == nil {
		c = new(pacing)
		all[who.Instance] = c
	}
	add(all, c, now)
	return max(c.over.Sub(now), 0)
}

// worth is how long n things take for c, that take so long of one processor each: as many times as long as there are
// others of its name that wait.
func (all instances) worth(c *pacing, n int, each time.Duration, now time.Time) time.Duration {
	if n == 0 {
		return 0
	}
	waiting := 1
	for _, other := range all {
		if other != c && other.over.After(now) {
			waiting++
		}
	}
	return time.Duration(n*waiting) * each / time.Duration(runtime.GOMAXPROCS(0))
}

// add counts what takes so long, or takes it back.
func (c *pacing) add(d time.Duration, now time.Time) {
	if free := now.Add(-timeFree); c.over.Before(free) {
		c.over = free
	}
	c.over = c.over.Add(d)
}

// sweepLocked forgets, now and then, those who got nothing for a while.
func (p *Pace) sweepLocked(now time.Time) {
	if now.Sub(p.swept) < remembered {
		return
	}
	p.swept = now
	for name, all := range p.names {
		for which, c := range all {
			if now.Sub(c.over) > remembered {
				delete(all, which)
			}
		}
		if len(all) == 0 {
			delete(p.names, name)
		}
	}
	p.some.Store(len(p.names) > 0)
}
