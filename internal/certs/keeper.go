package certs

import (
	"context"
	"sync"
	"time"
)

// Keeper renews what has a name and a time when it is due, as long as somebody runs it.
// The zero value keeps nothing. It is safe for concurrent use.
type Keeper struct {
	mu   sync.Mutex
	jobs map[string]*keeping
	wake chan struct{} // capacity one: something was added; made when it is needed
}

// keeping is one thing that is kept.
type keeping struct {
	at    time.Time
	since time.Time // when that was said, by the wall's clock
	renew Renewal
	busy  bool // somebody renews it
}

// Renewal renews something, and returns when it is due again; the zero time ends it.
type Renewal func(now time.Time) (next time.Time)

// Add has something renewed at a time, in place of what had the name.
func (k *Keeper) Add(name string, at time.Time, renew Renewal) {
	k.mu.Lock()
	defer k.mu.Unlock()

	if k.jobs == nil {
		k.jobs = map[string]*keeping{}
	}

	k.jobs[name] = &keeping{at: at, since: time.Now().Round(0), renew: renew}

	select {
	case k.wakeLocked() <- struct{}{}:
	default:
	}
}

// Run renews until ctx ends. Where several run, each does a part.
func (k *Keeper) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()

	k.mu.Lock()
	wake := k.wakeLocked()
	k.mu.Unlock()

	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-timer.C:
		}

		for k.renewOne(time.Now()) && ctx.Err() == nil { //nolint:revive // the condition does the work
		}

		timer.Reset(k.wait(time.Now()))
	}
}

// renewOne renews something that is due, and reports whether there was any.
func (k *Keeper) renewOne(now time.Time) bool {
	name, job := k.take(now)
	if job == nil {
		return false
	}

	next := job.renew(now)

	k.mu.Lock()
	defer k.mu.Unlock()

	job.busy, job.at, job.since = false, next, now.Round(0)
	if next.IsZero() && k.jobs[name] == job {
		delete(k.jobs, name)
	}

	return true
}

// take returns something that is due and that nobody renews. When it is due was said by the clock:
// where that was set back since, it is asked again.
func (k *Keeper) take(now time.Time) (string, *keeping) {
	k.mu.Lock()
	defer k.mu.Unlock()

	for name, job := range k.jobs {
		if !job.busy && (!now.Before(job.at) || now.Before(job.since.Add(-ClockSkew))) {
			job.busy = true

			return name, job
		}
	}

	return "", nil
}

// wait is how long it is until something is due. Clocks that are set are noticed within
// a minute.
func (k *Keeper) wait(now time.Time) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()

	wait := clockEvery

	for _, job := range k.jobs {
		if !job.busy {
			wait = min(wait, job.at.Sub(now))
		}
	}

	return max(wait, 0)
}

func (k *Keeper) wakeLocked() chan struct{} {
	if k.wake == nil {
		k.wake = make(chan struct{}, 1)
	}

	return k.wake
}
