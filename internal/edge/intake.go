package edge

import (
	"runtime"
	"sync"
	"time"
)

const (
	// takenPerProcessor is how many requests of one peer are taken on at once for each
	// processor: enough to keep it busy, and done so soon that others hardly wait.
	takenPerProcessor = 16
	// breath is how long a peer waits at most that has sent more, and none of it was refused.
	breath = time.Millisecond
	// refusing is how much longer a peer waits for each request that was refused, longestBreath at
	// most: whoever asks again and again for what there is not is served at that pace.
	refusing      = 4 * time.Millisecond
	longestBreath = 20 * time.Millisecond
)

// mostReady is how many requests of one peer wait at most to be begun: so many that they leave half of the
// processors to others, who would stand behind them. The next is taken on as soon as one has begun.
var mostReady = sync.OnceValue(func() int { return max(1, runtime.GOMAXPROCS(0)/2) })

// atOnce is how many requests of one peer are taken on at once.
var atOnce = sync.OnceValue(func() float64 { return float64(takenPerProcessor * runtime.GOMAXPROCS(0)) })

// intake takes on the requests of one peer: so many at once, one more for each that ended, and
// as many again after a breath, whatever became of the others. So thousands that come in one
// piece never stand in front of what others ask meanwhile, and calls that take their time keep
// nobody waiting. However long the processors are busy, few wait to be begun. The zero value takes
// on. It is safe for concurrent use.
type intake struct {
	mu    sync.Mutex
	taken float64       // at once; more than may be by one for each connection
	at    time.Time     // when it was looked at
	ready int           // that were taken on and are not known to have begun
	room  chan struct{} // tells that one began or ended, to whoever waits; nil where nobody did yet
}

// take takes on some of n requests, one at least, and reports whether the next ones have to wait.
func (in *intake) take(n int, now time.Time) (took int, wait bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if passed := now.Sub(in.at); passed > 0 {
		in.taken = max(in.taken-worth(passed), 0)
		in.at = now
	}
	took = min(n, 1+int(max(atOnce()-in.taken, 0)), max(mostReady()-in.ready, 1))
	in.taken += float64(took)
	in.ready += took
	return took, in.taken > atOnce() || took < n
}

// began says that a request began to be served.
func (in *intake) began() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.ready = max(in.ready-1, 0)
	in.tellLocked()
}

// ended says that a request ended.
func (in *intake) ended() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.taken = max(in.taken-1, 0)
	in.tellLocked()
}

// tellLocked tells whoever waits to look again.
func (in *intake) tellLocked() {
	if in.room == nil || in.fullLocked(false) {
		return
	}
	select {
	case in.room <- struct{}{}:
	default:
	}
}

// fullLocked reports whether the next request has to wait. Where it was cut off from those before it,
// it waits for them to begin, too.
func (in *intake) fullLocked(cut bool) bool {
	return in.taken > atOnce() || cut && in.ready >= mostReady()
}

// refused says that a request was refused.
func (in *intake) refused() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.taken = min(in.taken+worth(refusing), max(in.taken, worth(longestBreath)))
}

// worth is how many requests are taken on in a time.
func worth(d time.Duration) float64 { return atOnce() * float64(d) / float64(breath) }

// wait returns when the next request may come, a breath later at most unless requests were refused.
func (in *intake) wait(cut bool, gone <-chan struct{}) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.fullLocked(cut) { // some began or ended meanwhile
		return
	}
	if in.room == nil {
		in.room = make(chan struct{}, 1)
	}
	t := time.NewTimer(max(breath, time.Duration((in.taken/atOnce()-1)*float64(breath))))
	defer t.Stop()
	for waiting := true; waiting && in.fullLocked(cut); {
		waiting = in.waitLocked(t.C, gone)
	}
	in.tellLocked() // others that wait
}

// waitLocked waits until there may be room, and reports false where that takes too long. Then one of
// those that wait to be begun is taken for begun: what is no request that is served never begins.
func (in *intake) waitLocked(late <-chan time.Time, gone <-chan struct{}) bool {
	in.mu.Unlock()
	defer in.mu.Lock()
	select {
	case <-in.room: // is never another one
		return true
	case <-late:
		in.began()
	case <-gone:
	}
	return false
}
