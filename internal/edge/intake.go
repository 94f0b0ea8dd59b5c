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

// atOnce is how many requests of one peer are taken on at once.
var atOnce = sync.OnceValue(func() float64 { return float64(takenPerProcessor * runtime.GOMAXPROCS(0)) })

// intake takes on the requests of one peer: so many at once, one more for each that ended, and
// as many again after a breath, whatever became of the others. So thousands that come in one
// piece never stand in front of what others ask meanwhile, and calls that take their time keep
// nobody waiting. The zero value takes on. It is safe for concurrent use.
type intake struct {
	mu    sync.Mutex
	taken float64       // at once; more than may be by one for each connection
	at    time.Time     // when it was looked at
	room  chan struct{} // tells that one ended, to whoever waits; nil where nobody did yet
}

// take takes on some of n requests, one at least, and reports whether the next ones have to wait.
func (in *intake) take(n int, now time.Time) (took int, wait bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if passed := now.Sub(in.at); passed > 0 {
		in.taken = max(in.taken-worth(passed), 0)
		in.at = now
	}
	took = min(n, 1+int(max(atOnce()-in.taken, 0)))
	in.taken += float64(took)
	return took, in.taken > atOnce()
}

// ended says that a request ended.
func (in *intake) ended() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.taken = max(in.taken-1, 0)
	if in.room == nil || in.taken > atOnce() {
		return
	}
	select {
	case in.room <- struct{}{}:
	default:
	}
}

// refused says that a request was refused.
func (in *intake) refused() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.taken = min(in.taken+worth(refusing), max(in.taken, worth(longestBreath)))
}

// worth is how many requests are taken on in a time.
func worth(d time.Duration) float64 { return atOnce() * float64(d) / float64(breath) }

// wait returns when the next request may come, a breath later at most.
func (in *intake) wait(gone <-chan struct{}) {
	in.mu.Lock()
	if in.taken <= atOnce() { // some ended meanwhile
		in.mu.Unlock()
		return
	}
	if in.room == nil {
		in.room = make(chan struct{}, 1)
	}
	room := in.room
	longest := max(breath, time.Duration((in.taken/atOnce()-1)*float64(breath)))
	in.mu.Unlock()
	t := time.NewTimer(longest)
	defer t.Stop()
	select {
	case <-room:
	case <-t.C:
	case <-gone:
	}
}
