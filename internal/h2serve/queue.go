package h2serve

import "sync"

// partSizes are the lengths of the parts of a queue.
var partSizes = [...]int{1 << 10, 4 << 10, 16 << 10}

// parts has the parts that nobody needs now, by size.
var parts [len(partSizes)]sync.Pool

// part is a piece of a queue.
type part struct {
	next     *part
	b        []byte // as long as it was made
	from, to int    // what is in it
}

// queue is bytes that are taken in the order in which they came. The zero queue is empty. It
// is for one goroutine at a time.
type queue struct {
	first, last *part
	length      int
}

// put adds a copy of p.
func (q *queue) put(p []byte) {
	q.length += len(p)
	for len(p) > 0 {
		if q.last == nil || q.last.to == len(q.last.b) {
			q.grow(len(p))
		}
		n := copy(q.last.b[q.last.to:], p)
		q.last.to += n
		p = p[n:]
	}
}

// grow adds a part for n bytes, or the largest there is: also where others wait already, for
// then more will come.
func (q *queue) grow(n int) {
	size := 0
	for size < len(partSizes)-1 && (q.first != nil || partSizes[size] < n) {
		size++
	}
	added, ok := parts[size].Get().(*part)
	if !ok {
		added = &part{b: make([]byte, partSizes[size])}
	}
	if q.first == nil {
		q.first = added
	} else {
		q.last.next = added
	}
	q.last = added
}

// take moves what there is to p, and returns how much.
func (q *queue) take(p []byte) int {
	taken := 0
	for q.first != nil && taken < len(p) {
		n := copy(p[taken:], q.first.b[q.first.from:q.first.to])
		q.first.from += n
		if taken += n; q.first.from == q.first.to {
			q.drop()
		}
	}
	q.length -= taken
	return taken
}

// drop gives the first part back.
func (q *queue) drop() {
	p := q.first
	if q.first = p.next; q.first == nil {
		q.last = nil
	}
	for i, size := range partSizes {
		if len(p.b) == size {
			*p = part{b: p.b}
			parts[i].Put(p)
			return
		}
	}
}

// clear empties the queue, and returns how much was in it.
func (q *queue) clear() int {
	n := q.length
	for q.first != nil {
		q.drop()
	}
	q.length = 0
	return n
}
