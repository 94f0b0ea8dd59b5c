// Package breaker is the state machine of a circuit breaker: what keeps failing is
// not asked for a while, then tried by a few. It knows no clock and calls nobody.
package breaker

import (
	"sync"
	"time"
)

// State is the state of a [Breaker].
type State int

// The states.
const (
	Closed   State = iota // lets everything through
	Open                  // lets nothing through
	HalfOpen              // lets a few through to see how they fare
)

// Outcome says what a call that was let through tells.
type Outcome int

// The outcomes.
const (
	Success Outcome = iota
	Failure
	Neither // says nothing either way
)

// Config says when the state changes. All of it is above zero.
type Config struct {
	Failures  int           // in a row, that open it
	Successes int           // that close it when half-open; and no more calls than that at a time
	Timeout   time.Duration // from open to half-open
}

// Change is one change of the state.
type Change struct{ From, To State }

// Breaker is a circuit breaker. It is safe for concurrent use.
type Breaker struct {
	config Config // fixed at creation
	keep   bool   // changes for Next; fixed at creation

	mu        sync.Mutex
	state     State
	era       uint64 // counts changes of state; an outcome counts in its own era only
	failures  int    // in a row, while closed
	successes int    // while half-open
	trials    int    // in flight, while half-open
	openUntil time.Time
	changes   []Change // that Next did not hand out yet
	telling   bool     // somebody has a change from Next
}

// New returns a closed breaker. Where keepChanges says so it keeps each change of
// state until [Breaker.Next] hands it out.
func New(config Config, keepChanges bool) *Breaker {
	return &Breaker{config: config, keep: keepChanges}
}

// State returns the present state.
func (b *Breaker) State() State {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state
}

// Admit reports whether a call may begin. Where it may, its outcome is recorded
// with the era.
func (b *Breaker) Admit(now time.Time) (era uint64, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == Open && !now.Before(b.openUntil) {
		b.changeLocked(HalfOpen)
	}
	switch b.state {
	case Closed:
		return b.era, true
	case HalfOpen:
		if b.trials+b.successes >= b.config.Successes {
			return 0, false
		}
		b.trials++
		return b.era, true
	case Open:
	}
	return 0, false
}

// Record counts the outcome of a call, unless the state has changed since the call
// was admitted.
func (b *Breaker) Record(era uint64, outcome Outcome, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if era != b.era {
		return
	}
	switch b.state {
	case Closed:
		b.recordClosedLocked(outcome, now)
	case HalfOpen:
		b.trials--
		b.recordTrialLocked(outcome, now)
	case Open: // admits no calls, so none began in its era
	}
}

func (b *Breaker) recordClosedLocked(outcome Outcome, now time.Time) {
	switch outcome {
	case Success:
		b.failures = 0
	case Failure:
		if b.failures++; b.failures >= b.config.Failures {
			b.openLocked(now)
		}
	case Neither:
	}
}

func (b *Breaker) recordTrialLocked(outcome Outcome, now time.Time) {
	switch outcome {
	case Success:
		if b.successes++; b.successes >= b.config.Successes {
			b.changeLocked(Closed)
		}
	case Failure:
		b.openLocked(now)
	case Neither:
	}
}

func (b *Breaker) openLocked(now time.Time) {
	b.openUntil = now.Add(b.config.Timeout)
	b.changeLocked(Open)
}

func (b *Breaker) changeLocked(to State) {
	if b.keep {
		b.changes = append(b.changes, Change{From: b.state, To: to})
	}
	b.state = to
	b.era++
	b.failures, b.successes, b.trials = 0, 0, 0
}

// Next hands out the next change of state, in order and one at a time: until told
// is called there is no other one, for nobody.
func (b *Breaker) Next() (change Change, told func(), ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.telling || len(b.changes) == 0 {
		return Change{}, nil, false
	}
	change = b.changes[0]
	b.changes = b.changes[1:]
	b.telling = true
	return change, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.telling = false
	}, true
}
