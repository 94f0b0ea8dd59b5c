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
	// spread is how long it takes until as many again are taken on, whatever became of the others: what
	// a request costs in the beginning is a third of that of the processors.
	spread = 16 * time.Millisecond
	// breath is how long a request is taken for one that waits to be begun: what is no request never begins.
	breath = time.Millisecond
	// refusing is how much longer a peer waits for each request that was refused, longestBreath at
	// most: whoever asks again and again for what there is not is served at that pace.
	refusing      = 4 * time.Millisecond
	longestBreath = 20 * time.Millisecond
	// parted is how much longer whoever was cut off waits, for each connection on which that was, and longestParted
	// at most: it comes again, and what it begins anew costs more than what it was cut off for.
	parted        = 500 * time.Millisecond
	longestParted = 2 * time.Second
	// fieldsOfOne is how many fields, beyond those that are usual, count as one request more: reading them,
	// handing them on and reading them again takes host and provider as long as that.
	fieldsOfOne = 20
	// littleOfOne is how many frames of DATA with less than littleData bytes count as one request more, as those of a
	// provider do.
	littleOfOne = 40
	// answeredOfOne is how many requests that were answered, of anybody, count as one that was refused: somebody may be asking
	// whether the host lives, and no more often than that.
	answeredOfOne = 5
	// longHeadOfOne is how many bytes of heads of nobody, beyond plainHead of each, count as one request more: what is packed in
	// HPACK's Huffman code takes ten times as long to read as to decrypt.
	longHeadOfOne = 4 << 10
	// unexplainedOfOne is how many frames, or records of TLS, that neither calls nor data explain count as one request more:
	// each may come in a record of its own, and is read by itself.
	unexplainedOfOne = 20
	// longestOwed is how long it takes at most until what counts as requests is paid for: longer than anybody waits for it at a time.
	longestOwed = 10 * time.Second
)

// mostReady is how many requests of one peer wait at most to be begun: so many that they leave half of the
// processors to others, who would stand behind them. The next is taken on as soon as one has begun.
var mostReady = sync.OnceValue(func() int { return max(1, runtime.GOMAXPROCS(0)/2) })

// atOnce is how many requests of one peer are taken on at once.
var atOnce = sync.OnceValue(func() float64 { return float64(takenPerProcessor * runtime.GOMAXPROCS(0)) })

// intake takes on the requests of one peer: so many at once, one more for each that ended, and
// as many again by and by, whatever became of the others. So thousands that come in one
// piece never stand in front of what others ask meanwhile, and calls that take their time keep
// nobody waiting for long. However long the processors are busy, few wait to be begun. Where several identities
// share it, those of each are taken on in turn. The zero value takes on. It is safe for concurrent use.
type intake struct {
	queue // of those that wait for their turn

	times float64 // what it takes on is that of so many peers; zero is one. Fixed at creation

	mu    sync.Mutex // guards that, too
	taken float64    // at once; more than may be by one for each connection
	at    time.Time  // when it was looked at
	ready int        // that were taken on and are not known to have begun
}

// take takes on some of n requests of somebody, one at least, and reports whether the next ones have to wait.
func (in *intake) take(who string, n int, now time.Time) (took int, wait bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.leakLocked(now)
	took = min(n, 1+int(max(in.atOnce()-in.taken, 0)), max(in.mostReady()-in.ready, 1))
	in.taken += float64(took)
	in.ready += took
	in.had(who, took-1) // one was had by who waited
	return took, in.taken > in.atOnce() || took < n
}

// atOnce and mostReady are those of all peers that share it.
func (in *intake) atOnce() float64 { return atOnce() * max(in.times, 1) }

func (in *intake) mostReady() int { return mostReady() * max(int(in.times), 1) }

// rested reports whether the next request is taken on as if there had been none.
func (in *intake) rested(now time.Time) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.leakLocked(now)
	return in.taken == 0
}

// leakLocked forgets of those that were taken on as many as are worth the time since.
func (in *intake) leakLocked(now time.Time) {
	if passed := now.Sub(in.at); passed > 0 {
		in.taken = max(in.taken-in.worth(passed), 0)
		in.at = now
	}
}

// began says that a request began to be served.
func (in *intake) began() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.beganLocked()
}

func (in *intake) beganLocked() {
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

// tellLocked tells whose turn it is to look again.
func (in *intake) tellLocked() {
	first := in.first()
	if first == nil {
		return
	}
	select {
	case first.room <- struct{}{}:
	default:
	}
}

// refused says that a request was refused.
func (in *intake) refused(now time.Time) { in.charge(refusing, longestBreath, now) }

// cutOff says that the peer was cut off on a connection.
func (in *intake) cutOff(now time.Time) { in.charge(parted, longestParted, now) }

// charge has the peer wait longer, up to a bound beyond which it does not on account of this.
func (in *intake) charge(d, longest time.Duration, now time.Time) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.leakLocked(now)
	in.taken = min(in.taken+in.worth(d), max(in.taken, in.atOnce()+in.worth(longest)))
}

// heavy says that the fields of a request count so much more than is usual, and returns how long it waits for them: each
// has its time behind those before it, so that they are not read all at once when there is room again.
func (in *intake) heavy(fields int, now time.Time) time.Duration {
	return in.costs(float64(fields)/fieldsOfOne, now)
}

// costs says that what came counts as so many requests, and returns how long the next one waits for them. Nobody owes more than
// longestOwed: others of the address, or of all addresses, would wait long after whoever it was has gone.
func (in *intake) costs(requests float64, now time.Time) time.Duration {
	if requests <= 0 {
		return 0
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.leakLocked(now)
	in.taken = min(in.taken+requests, max(in.taken, in.atOnce()+in.worth(longestOwed)))
	return in.overLocked()
}

// worth is how many requests are taken on in a time.
func (in *intake) worth(d time.Duration) float64 { return in.atOnce() * float64(d) / float64(spread) }

// leftLocked is how long the next request has to wait, zero for not at all. Where it was cut off from those
// before it, it waits for them to begin, too.
func (in *intake) leftLocked(cut bool, now time.Time) time.Duration {
	in.leakLocked(now)
	if over := in.overLocked(); over > 0 {
		return over
	}
	if cut && in.ready >= in.mostReady() {
		return breath
	}
	return 0
}

// overLocked is how long it takes until no more are taken on than may be at once.
func (in *intake) overLocked() time.Duration {
	over := in.taken - in.atOnce()
	if over <= 0 {
		return 0
	}
	return time.Duration(over/in.atOnce()*float64(spread)) + 1
}

// isOver reports whether more are taken on than may be at once.
func (in *intake) isOver(now time.Time) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.leakLocked(now)
	return in.overLocked() > 0
}

// wait returns when the next request of somebody may come, or nobody wants it any more.
func (in *intake) wait(who string, cut bool, gone <-chan struct{}) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.waiting == 0 && in.leftLocked(cut, time.Now()) == 0 { // some began or ended meanwhile
		return
	}
	l := in.join(who)
	in.waitInLocked(l, cut, gone)
	in.leave(l)
	in.tellLocked() // others that wait
}

// waitInLocked waits for the turn of a line.
func (in *intake) waitInLocked(l *line, cut bool, gone <-chan struct{}) {
	t := time.NewTimer(spread)
	defer t.Stop()
	for {
		left := in.leftLocked(cut, time.Now())
		if left == 0 {
			if in.takes(l) {
				return
			}
			in.tellLocked() // whose turn it is, who tells the next one
			left = spread
		}
		t.Reset(left)
		switch in.waitLocked(l.room, t.C, gone) {
		case ended:
			return
		case late:
			if cut && in.ready >= in.mostReady() {
				in.beganLocked() // what is no request that is served never begins
			}
		case told:
		}
	}
}

// heard is why somebody waits no more.
type heard int

const (
	told  heard = iota // that one began or ended
	late               // it took long
	ended              // nobody wants it any more
)

// waitLocked waits until there may be room.
func (in *intake) waitLocked(room <-chan struct{}, soon <-chan time.Time, gone <-chan struct{}) heard {
	in.mu.Unlock()
	defer in.mu.Lock()
	select {
	case <-room:
		return told
	case <-soon:
		return late
	case <-gone:
		return ended
	}
}
