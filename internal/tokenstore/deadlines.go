package tokenstore

// mortal is what a deadlines holds: a pointer to something with a place to keep its position.
type mortal[V any] interface {
	*V
	position() *int
}

// deadlines is a heap of what expires, soonest first. Any item can be moved and removed. The zero value
// is empty. It is not safe for concurrent use.
type deadlines[V any, P mortal[V]] struct {
	heap []deadline[V]
}

type deadline[V any] struct {
	at   instant
	item *V
}

// minHeapRoom is the capacity below which the heap does not bother to shrink.
const minHeapRoom = 64

func (d *deadlines[V, P]) len() int { return len(d.heap) }

// first returns the item that expires first, and when, or nil and never.
func (d *deadlines[V, P]) first() (*V, instant) {
	if len(d.heap) == 0 {
		return nil, never
	}
	return d.heap[0].item, d.heap[0].at
}

func (d *deadlines[V, P]) add(v *V, at instant) {
	d.heap = append(d.heap, deadline[V]{at: at, item: v})
	d.up(len(d.heap) - 1)
}

func (d *deadlines[V, P]) move(v *V, at instant) {
	i := *P(v).position()
	d.heap[i].at = at
	d.fix(i)
}

func (d *deadlines[V, P]) remove(v *V) {
	i, last := *P(v).position(), len(d.heap)-1
	d.heap[i] = d.heap[last]
	d.heap[last] = deadline[V]{}
	d.heap = d.heap[:last]
	if i < last {
		d.fix(i)
	}
	if room := cap(d.heap); room > minHeapRoom && 4*last < room {
		d.heap = append(make([]deadline[V], 0, room/2), d.heap...)
	}
}

// fix restores the order after the item at i changed.
func (d *deadlines[V, P]) fix(i int) { d.down(d.up(i)) }

func (d *deadlines[V, P]) up(i int) int {
	moving := d.heap[i]
	for i > 0 {
		parent := (i - 1) / 2
		if d.heap[parent].at <= moving.at {
			break
		}
		d.set(i, d.heap[parent])
		i = parent
	}
	d.set(i, moving)
	return i
}

func (d *deadlines[V, P]) down(i int) {
	moving := d.heap[i]
	for {
		child := 2*i + 1
		if child >= len(d.heap) {
			break
		}
		if right := child + 1; right < len(d.heap) && d.heap[right].at < d.heap[child].at {
			child = right
		}
		if moving.at <= d.heap[child].at {
			break
		}
		d.set(i, d.heap[child])
		i = child
	}
	d.set(i, moving)
}

func (d *deadlines[V, P]) set(i int, x deadline[V]) {
	d.heap[i] = x
	*P(x.item).position() = i
}
