package tokenstore

import (
	"sync"
	"sync/atomic"
)

// occasion is something that happens once at most, and the functions to call then. It takes next to
// nothing until somebody asks to be called.
type occasion struct {
	hooks atomic.Pointer[hooks]
}

// on arranges for f to be called, or calls it at once if the occasion is past. The functions of an
// occasion that is past have been, or will be, taken by happen.
func (o *occasion) on(f func(), past func() bool) (stop func() bool) {
	h := o.hooks.Load()
	for h == nil {
		o.hooks.CompareAndSwap(nil, new(hooks))
		h = o.hooks.Load()
	}
	added := h.add(f, past)
	if added == nil {
		f()
		return func() bool { return false }
	}
	return func() bool { return h.remove(added) }
}

// happen calls what was arranged. The occasion is past by then.
func (o *occasion) happen() {
	h := o.hooks.Load()
	if h == nil {
		return
	}
	for one := range h.take() {
		one.f()
	}
}

// hooks are the functions to call at an occasion.
type hooks struct {
	mu      sync.Mutex
	pending map[*hook]struct{}
}

type hook struct{ f func() }

// add adds a function unless past says that it is too late: then take has run, or will find nothing
// of it. It returns nil in that case.
func (h *hooks) add(f func(), past func() bool) *hook {
	h.mu.Lock()
	defer h.mu.Unlock()
	if past() {
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
