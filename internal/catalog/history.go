package catalog

import (
	"container/list"
	"crypto/rand"
	"strconv"
)

// history is the events of types that nobody offers or watches any more, the
// most recent ones. Giving one up starts a new epoch for the types to come, so
// that a number of the forgotten events is never mistaken for one of the new.
type history struct {
	feeds map[string]*list.Element
	order list.List // of *feed, the oldest first

	// Random, so that no two catalogues share an epoch.
	incarnation string
	forgotten   uint64
	epoch       string
}

func newHistory() *history {
	incarnation := rand.Text()

	return &history{feeds: make(map[string]*list.Element), incarnation: incarnation, epoch: incarnation}
}

// take returns the events of a type, which is in use again; nil if there are
// none.
func (h *history) take(name string) *feed {
	el := h.feeds[name]
	if el == nil {
		return nil
	}

	delete(h.feeds, name)
	f, _ := h.order.Remove(el).(*feed)

	return f
}

// keep takes in the events of a type, and forgets the oldest over limit. A type
// that had none needs no memory.
func (h *history) keep(f *feed, limit int) {
	if !f.eventful() {
		return
	}

	h.feeds[f.name] = h.order.PushBack(f)

	for h.order.Len() > max(limit, 0) {
		if oldest, ok := h.order.Remove(h.order.Front()).(*feed); ok {
			delete(h.feeds, oldest.name)
		}

		h.forgotten++
		h.epoch = h.incarnation + "." + strconv.FormatUint(h.forgotten, 10)
	}
}
