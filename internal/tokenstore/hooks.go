package tokenstore

import "sync"

// hooks are the functions to call when an identity ends.
type hooks struct {
	mu      sync.Mutex
	pending map[*hook]struct{}
}

type hook struct{ f func() }

// add adds a function unless ended says that it is too late: then take has run, or will find nothing
// of it. It returns nil in that case.
func (h *hooks) add(f func(), ended func() bool) *hook {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ended() {
		return nil
	}
	if h.pending == nil {
		h.pending = make(map[*hook]struct{})
	}
	added := &hook{f: f}
	h.pending[added] = struct{}{}
	return added
}

// remove takes back a function and tells whether it was still there.
func (h *hooks) remove(one *hook) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, found := h.pending[one]
	delete(h.pending, one)
	return found
}

// take returns the functions and forgets them.
func (h *hooks) take() map[*hook]struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	taken := h.pending
	h.pending = nil
	return taken
}
