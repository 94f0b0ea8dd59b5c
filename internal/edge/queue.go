package edge

// queue has those take turns that share an [intake]: who waits is served one request after those of the others, on however many
// connections each of them waits. It is guarded by the lock of its intake.
type queue struct {
	lines   map[string]*line // of those who wait, and of others who had turns meanwhile; nil where nobody waits
	waiting int              // in all of them
	reached uint64           // what the one had who had the last turn
}

// line is those who wait of one identity.
type line struct {
	waiting int
	turns   uint64        // that it had; of one that comes as many as who had the last one
	room    chan struct{} // tells one of them to look again
}

// had says that somebody had so many turns. Where nobody waits there are none to take.
func (q *queue) had(who string, n int) {
	if n > 0 && q.waiting > 0 {
		q.line(who).turns += uint64(n)
	}
}

func (q *queue) line(who string) *line {
	l := q.lines[who]
	if l == nil {
		l = &line{turns: q.reached, room: make(chan struct{}, 1)}
		if q.lines == nil {
			q.lines = map[string]*line{}
		}
		q.lines[who] = l
	}
	return l
}

// join has somebody wait.
func (q *queue) join(who string) *line {
	l := q.line(who)
	l.turns = max(l.turns, q.reached)
	l.waiting++
	q.waiting++
	return l
}

// leave has somebody wait no more.
func (q *queue) leave(l *line) {
	l.waiting--
	if q.waiting--; q.waiting == 0 {
		q.lines = nil
		return
	}
	for who, other := range q.lines {
		if other.waiting == 0 && other.turns <= q.reached {
			delete(q.lines, who)
		}
	}
}

// first returns the line whose turn it is, nil where nobody waits.
func (q *queue) first() (first *line) {
	for _, l := range q.lines {
		if l.waiting > 0 && (first == nil || l.turns < first.turns) {
			first = l
		}
	}
	return first
}

// takes has somebody who waits take a turn, and reports whether it was his.
func (q *queue) takes(l *line) bool {
	if first := q.first(); first.turns < l.turns {
		return false
	}
	q.reached = max(q.reached, l.turns)
	l.turns++
	return true
}
