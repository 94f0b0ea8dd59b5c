package edge

import "time"

// limit bounds the time of a TLS handshake, without that in which it waits for its turn: that is none of the peer's.
// One goroutine at a time uses it.
type limit struct {
	timer *time.Timer
	left  time.Duration
	since time.Time
}

// newLimit calls over when the time has passed.
func newLimit(d time.Duration, over func()) *limit {
	return &limit{timer: time.AfterFunc(d, over), left: d, since: time.Now()}
}

// pause stops the time, and resume has it go on.
func (l *limit) pause() {
	if l.timer.Stop() {
		l.left -= time.Since(l.since)
	}
}

func (l *limit) resume() {
	l.since = time.Now()
	l.timer.Reset(max(l.left, 0))
}

func (l *limit) end() { l.timer.Stop() }
