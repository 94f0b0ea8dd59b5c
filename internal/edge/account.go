package edge

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// longestPause is how long a connection in debt waits at most for its next piece: one that
	// waits longer looks dead to its peer.
	longestPause = time.Second
	// longestDebt bounds what a debtor is told.
	longestDebt = time.Minute
)

// Account pays for the bytes that connections carry, both ways, and for their requests that were
// refused. They are paid afterwards, so that an account may be in debt. It is safe for concurrent
// use; make it with [NewAccount].
type Account struct {
	intake *intake      // of itself and of those beside it
	conns  atomic.Int64 // that it pays for

	mu       sync.Mutex
	bytes    purse
	refusals purse
}

// NewAccount returns an account for bytes and for refusals.
func NewAccount(bytes, refusals Rate) *Account {
	return &Account{intake: &intake{}, bytes: newPurse(bytes), refusals: newPurse(refusals)}
}

// Beside returns another account for bytes and for refusals, of somebody whose requests are taken on together with
// those of the first.
func (a *Account) Beside(bytes, refusals Rate) *Account {
	return &Account{intake: a.intake, bytes: newPurse(bytes), refusals: newPurse(refusals)}
}

// Debt returns how long it takes until the account has paid for its bytes, a minute at most, and
// zero where it is in no debt. A nil account never is.
func (a *Account) Debt(now time.Time) time.Duration {
	if a == nil {
		return 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.bytes.debt(now)
}

// After returns when the account can pay for n bytes more than a debt, a minute at most: whoever was
// refused for that debt and comes again with n bytes before is refused again.
func (a *Account) After(debt time.Duration, n int64) time.Duration {
	seconds := min(debt.Seconds()+float64(n)/a.bytes.perSecond, longestDebt.Seconds())
	return time.Duration(seconds * float64(time.Second))
}

// Whole reports that nothing of it was used, or that all of that is there again.
func (a *Account) Whole(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.bytes.fill(now)
	a.refusals.fill(now)
	return a.bytes.left >= a.bytes.burst && a.refusals.left >= a.refusals.burst && a.intake.rested(now)
}

// Waits reports whether what it pays for has to wait, since more of it was refused than it can pay for.
func (a *Account) Waits(now time.Time) bool { return a.patience(now) > 0 }

// patience is Debt for refusals.
func (a *Account) patience(now time.Time) time.Duration {
	if a == nil {
		return 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.refusals.debt(now)
}

// refused pays for a refusal, and served gives one back.
func (a *Account) refused(now time.Time) { a.pay(&a.refusals, 1, now) }

func (a *Account) served(now time.Time) {
	if a != nil {
		a.pay(&a.refusals, -1, now)
	}
}

// count says that it pays for n connections more.
func (a *Account) count(n int64) {
	if a != nil {
		a.conns.Add(n)
	}
}

// spend pays for n bytes.
func (a *Account) spend(n int, now time.Time) {
	if a != nil {
		a.pay(&a.bytes, float64(n), now)
	}
}

func (a *Account) pay(from *purse, n float64, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	from.fill(now)
	from.left = min(from.left-n, from.burst)
}

// purse holds what may be used up: so much at once, and as much again in time. What is in it may
// be less than nothing.
type purse struct {
	perSecond, burst float64

	left float64
	at   time.Time
}

func newPurse(r Rate) purse {
	return purse{perSecond: r.PerSecond, burst: float64(r.Burst), left: float64(r.Burst)}
}

func (p *purse) fill(now time.Time) {
	if passed := now.Sub(p.at).Seconds(); passed > 0 {
		p.left = min(p.left+passed*p.perSecond, p.burst)
		p.at = now
	}
}

// debt returns how long it takes until it is in none, a minute at most.
func (p *purse) debt(now time.Time) time.Duration {
	p.fill(now)
	if p.left >= 0 {
		return 0
	}
	return time.Duration(min(-p.left/p.perSecond, longestDebt.Seconds()) * float64(time.Second))
}
