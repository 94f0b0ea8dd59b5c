// Package lifespan tells how long something lives whose end another machine states by its own clock.
package lifespan

import (
	"net/http"
	"time"
)

const tick = time.Second // of the field Date (RFC 9110, 6.6.1), which states the second that has begun

// Left returns how long it is until an end that the head of an answer came with, by the clock that the answer's Date was read from:
// the clock of this machine is asked as far as both agree, since it is the finer one, and where no Date says another time. It is
// at most what is left, but for what a Date states too early.
func Left(ends time.Time, head http.Header, now time.Time) time.Duration {
	own := ends.Sub(now)
	stated, err := http.ParseTime(head.Get("Date"))
	if err != nil {
		return own
	}
	most := ends.Sub(stated)
	least := max(most-tick, most/2) // half of what lives for a second
	if most <= 0 || least <= own && own <= most {
		return own
	}
	return least
}
