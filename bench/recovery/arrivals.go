package main

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// headerCall numbers a call for its provider, so that a call whose time was over is known to have
// reached one, or not.
const headerCall = "Bench-Call"

// arrivals are numbers of calls that reached a provider.
type arrivals struct {
	mu      sync.Mutex
	numbers []uint64
}

// note takes in a call that a provider got.
func (a *arrivals) note(h http.Header) {
	n, err := strconv.ParseUint(h.Get(headerCall), 10, 64)
	if err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.numbers = append(a.numbers, n)
}

// add takes in more of them.
func (a *arrivals) add(numbers []uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.numbers = append(a.numbers, numbers...)
}

// of returns how many of the given ones are among them.
func (a *arrivals) of(numbers []uint64) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	arrived := make(map[uint64]bool, len(a.numbers))
	for _, n := range a.numbers {
		arrived[n] = true
	}
	found := 0
	for _, n := range numbers {
		if arrived[n] {
			found++
		}
	}
	return found
}

// take returns those since the last time.
func (a *arrivals) take() []uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	numbers := a.numbers
	a.numbers = nil
	return numbers
}

// lag is the longest time by which a process was late where it wanted to go on after a pause, in
// nanoseconds: it says how much of a delay is that of the process and not of what it waits for.
type lag struct{ longest atomic.Int64 }

// note takes in by how much a pause was too long.
func (l *lag) note(late time.Duration) {
	for {
		longest := l.longest.Load()
		if int64(late) <= longest || l.longest.CompareAndSwap(longest, int64(late)) {
			return
		}
	}
}

// keep notes by how much this process is late, until ctx ends.
func (l *lag) keep(ctx context.Context) {
	for {
		due := time.Now().Add(tellEvery)
		select {
		case <-time.After(tellEvery):
			l.note(time.Since(due))
		case <-ctx.Done():
			return
		}
	}
}

// take returns the longest since the last time.
func (l *lag) take() time.Duration { return time.Duration(l.longest.Swap(0)) }
