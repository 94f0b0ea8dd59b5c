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

// Account pays for the bytes that connections carry, both ways. They are paid when they were
// carried, so that an account may be in debt. It is safe for concurrent use; make it with
// [NewAccount].
type Account struct {
	// Fixed at creation.
	perSecond, burst float64

	intake intake
	conns  atomic.Int64 // that it pays for

	mu   sync.Mutex
	left float64 // less than zero is debt
	at   time.Time
}

// NewAccount returns an account that holds burst bytes, and gains perSecond of them.
func NewAccount(perSecond float64, burst int) *Account {
	return &Account{perSecond: perSecond, burst: float64(burst), left: float64(burst)}
}

// Debt returns how long it takes until the account is out of debt, a minute at most, and zero
// where it is in none. A nil account never is.
func (a *Account) Debt(now time.Time) time.Duration {
	if a == nil {
		return 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fillLocked(now)
	if a.left >= 0 {
		return 0
	}
	return time.Duration(min(-a.left/a.perSecond, longestDebt.Seconds()) * float64(time.Second))
}

// After returns when the account can pay for n bytes more than a debt, a minute at most: whoever was
// refused for that debt and comes again with n bytes before is refused again.
func (a *Account) After(debt time.Duration, n int64) time.Duration {
	seconds := min(debt.Seconds()+float64(n)/a.perSecond, longestDebt.Seconds())
	return time.Duration(seconds * float64(time.Second))
}

// count says that it pays for n connections more.
func (a *Account) count(n int64) {
	if a != nil {
		a.conns.Add(n)
	}
}

// spend pays for n bytes.
func (a *Account) spend(n int, now time.Time) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fillLocked(now)
	a.left -= float64(n)
}

func (a *Account) fillLocked(now time.Time) {
	if passed := now.Sub(a.at).Seconds(); passed > 0 {
		a.left = min(a.left+passed*a.perSecond, a.burst)
		a.at = now
	}
}
