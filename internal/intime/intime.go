// Package intime says how long somebody may be kept waiting so that there is time left to say that it was in vain.
package intime

import "time"

// What is kept of the time that is left: a share of it, and no more than a reason needs on its way.
const (
	share = 8
	most  = 500 * time.Millisecond

	// least is what has to be left: who asks again and again with one deadline would else do so
	// ever faster.
	least = 10 * time.Millisecond
)

// Wait returns how long to wait at most where so much time is left, and false where so little is
// that the wait may last as long.
func Wait(left time.Duration) (time.Duration, bool) {
	if left < least {
		return 0, false
	}
	return left - min(left/share, most), true
}

// Half is Wait for somebody who has to go on, or to ask another, with what is left then: half of the time.
func Half(left time.Duration) (time.Duration, bool) {
	if left < least {
		return 0, false
	}
	return left / 2, true
}
