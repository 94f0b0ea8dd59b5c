package catalog

import "container/heap"

// asideHeap orders the entries that are set aside by when they return.
type asideHeap struct {
	entries []*entry
}

var _ heap.Interface = (*asideHeap)(nil)

// Len implements [heap.Interface].
func (h *asideHeap) Len() int { return len(h.entries) }

// Less implements [heap.Interface].
func (h *asideHeap) Less(i, j int) bool {
	a, b := h.entries[i], h.entries[j]
	if !a.record.until.Equal(b.record.until) {
		return a.record.until.Before(b.record.until)
	}

	return a.order < b.order
}

// Swap implements [heap.Interface].
func (h *asideHeap) Swap(i, j int) {
	h.entries[i], h.entries[j] = h.entries[j], h.entries[i]
	h.entries[i].record.index, h.entries[j].record.index = i, j
}

// Push implements [heap.Interface].
func (h *asideHeap) Push(x any) {
	if e, ok := x.(*entry); ok {
		e.record.index = len(h.entries)
		h.entries = append(h.entries, e)
	}
}

// Pop implements [heap.Interface].
func (h *asideHeap) Pop() any {
	last := len(h.entries) - 1
	e := h.entries[last]
	h.entries[last] = nil
	h.entries = h.entries[:last]

	return e
}

// first is who returns next; the heap is not empty.
func (h *asideHeap) first() *entry { return h.entries[0] }
