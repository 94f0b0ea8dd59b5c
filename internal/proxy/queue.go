package proxy

// queue has the calls that wait for room at a provider, in the order in which they
// came for each caller; callers take turns. The zero value is empty. It is not
// safe for concurrent use.
type queue struct {
	lines map[string]*line
	turns []*line // with a call that was not woken
	size  int
}

// line is the part of a queue that is one caller's.
type line struct {
	caller string
	asleep []*waiter // not woken, the oldest first
	size   int       // woken or not
}

// waiter is one call in a queue.
type waiter struct {
	line  *line
	woken bool
	turn  chan struct{} // has an element when woken
}

// add puts a call of the caller in, nil if the queue or the caller's part of it
// is full.
func (q *queue) add(caller string, most, mostEach int) *waiter {
	l := q.lines[caller]
	if q.size >= most || l != nil && l.size >= mostEach {
		return nil
	}
	if l == nil {
		if q.lines == nil {
			q.lines = make(map[string]*line)
		}
		l = &line{caller: caller}
		q.lines[caller] = l
	}
	l.size++
	q.size++
	w := &waiter{line: l, turn: make(chan struct{}, 1)}
	q.sleep(w)
	return w
}

// sleep makes a call wait that is new or was woken in vain.
func (q *queue) sleep(w *waiter) {
	w.woken = false
	w.line.asleep = append(w.line.asleep, w)
	if len(w.line.asleep) == 1 {
		q.turns = append(q.turns, w.line)
	}
}

// again makes a call that was woken wait once more, before those that came later.
func (q *queue) again(w *waiter) {
	if !w.woken {
		return
	}
	q.sleep(w)
	asleep := w.line.asleep
	copy(asleep[1:], asleep)
	asleep[0] = w
}

// remove takes a call out.
func (q *queue) remove(w *waiter) {
	l := w.line
	if !w.woken {
		for i, other := range l.asleep {
			if other == w {
				l.asleep = append(l.asleep[:i], l.asleep[i+1:]...)
				break
			}
		}
		if len(l.asleep) == 0 {
			q.dropTurn(l)
		}
	}
	q.size--
	if l.size--; l.size == 0 {
		delete(q.lines, l.caller)
	}
}

func (q *queue) dropTurn(l *line) {
	for i, other := range q.turns {
		if other == l {
			q.turns = append(q.turns[:i], q.turns[i+1:]...)
			return
		}
	}
}

// wake wakes the call whose turn it is, and reports whether there was one.
func (q *queue) wake() bool {
	if len(q.turns) == 0 {
		return false
	}
	l := q.turns[0]
	q.turns = append(q.turns[:0], q.turns[1:]...)
	w := l.asleep[0]
	l.asleep = append(l.asleep[:0], l.asleep[1:]...)
	if len(l.asleep) > 0 {
		q.turns = append(q.turns, l)
	}
	w.woken = true
	select {
	case w.turn <- struct{}{}:
	default:
	}
	return true
}
