package proxy

import (
	"cmp"
	"slices"
)

// queue has the calls that wait for room at a provider, in the order in which they
// came for each caller; callers take turns. The zero value is empty. It is not
// safe for concurrent use.
type queue struct {
	lines map[string]*line
	turns []*line // with a call that was not woken, the one whose turn is next first
	size  int
	awake int // of them, woken
	clock uint64
}

// line is the part of a queue that is one caller's.
type line struct {
	caller string
	turn   uint64    // when it had its last one
	asleep []*waiter // not woken, the oldest first
	size   int       // woken or not
}

// waiter is one call in a queue.
type waiter struct {
	line  *line
	came  uint64
	gave  uint64 // the turn of the line when this call was woken
	woken bool
	turn  chan struct{} // has an element when woken
}

// add puts a call of the caller in. It returns nil if the queue, or the caller's
// part of it, is full.
func (q *queue) add(caller string, most, mostEach int) *waiter {
	l := q.lines[caller]
	if q.size >= most || l != nil && l.size >= mostEach {
		return nil
	}
	q.clock++
	if l == nil {
		if q.lines == nil {
			q.lines = make(map[string]*line)
		}
		l = &line{caller: caller, turn: q.clock}
		q.lines[caller] = l
	}
	l.size++
	q.size++
	w := &waiter{line: l, came: q.clock, turn: make(chan struct{}, 1)}
	q.sleep(w)
	return w
}

// sleep makes a call wait.
func (q *queue) sleep(w *waiter) {
	l := w.line
	at, _ := slices.BinarySearchFunc(l.asleep, w.came, func(other *waiter, came uint64) int { return cmp.Compare(other.came, came) })
	l.asleep = slices.Insert(l.asleep, at, w)
	q.enlist(l)
}

// enlist puts a line where its turn is.
func (q *queue) enlist(l *line) {
	q.turns = slices.DeleteFunc(q.turns, func(other *line) bool { return other == l })
	if len(l.asleep) == 0 {
		return
	}
	at, _ := slices.BinarySearchFunc(q.turns, l.turn, func(other *line, turn uint64) int { return cmp.Compare(other.turn, turn) })
	q.turns = slices.Insert(q.turns, at, l)
}

// again makes a call that was woken in vain wait once more, where it was.
func (q *queue) again(w *waiter) {
	if !w.woken {
		return
	}
	w.woken = false
	q.awake--
	w.line.turn = min(w.line.turn, w.gave)
	q.sleep(w)
}

// remove takes a call out.
func (q *queue) remove(w *waiter) {
	l := w.line
	if !w.woken {
		l.asleep = slices.DeleteFunc(l.asleep, func(other *waiter) bool { return other == w })
		q.enlist(l)
	} else {
		q.awake--
	}
	q.size--
	if l.size--; l.size == 0 {
		delete(q.lines, l.caller)
	}
}

// has reports whether a call of a caller waits, woken or not, who may have room.
func (q *queue) has(may func(caller string) bool) bool {
	for _, l := range q.lines {
		if may(l.caller) {
			return true
		}
	}
	return false
}

// anybody may have room.
func anybody(string) bool { return true }

// isHost reports whether a caller is the host, which has no name.
func isHost(caller string) bool { return caller == "" }

// wake wakes the call whose turn it is among those of callers who may have room, and reports
// whether there was one.
func (q *queue) wake(may func(caller string) bool) bool {
	at := slices.IndexFunc(q.turns, func(l *line) bool { return may(l.caller) })
	if at < 0 {
		return false
	}
	l := q.turns[at]
	w := l.asleep[0]
	l.asleep = slices.Delete(l.asleep, 0, 1)
	q.clock++
	w.gave, l.turn = l.turn, q.clock
	q.enlist(l)
	w.woken = true
	q.awake++
	select {
	case w.turn <- struct{}{}:
	default:
	}
	return true
}
