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
	h := &Hook{do: function(f)}
	o.hang(h, past)
	return func() bool { return o.takeBack(h) }
}

// hang does what on does for what a hook is about.
func (o *occasion) hang(one *Hook, past func() bool) {
	h := o.hooks.Load()
	for h == nil {
		o.hooks.CompareAndSwap(nil, new(hooks))
		h = o.hooks.Load()
	}
	if !h.add(one, past) {
		one.do.Happen()
	}
}

// awaited reports whether anything was arranged.
func (o *occasion) awaited() bool {
	h := o.hooks.Load()
	if h == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.pending) > 0
}

// takeBack removes a hook and tells whether it was still there.
func (o *occasion) takeBack(one *Hook) bool {
	h := o.hooks.Load()
	return h != nil && h.remove(one)
}

// happen calls what was arranged. The occasion is past by then.
func (o *occasion) happen() {
	h := o.hooks.Load()
	if h == nil {
		return
	}
	for one := range h.take() {
		one.do.Happen()
	}
}

// Happening is what happens at an occasion.
type Happening interface{ Happen() }

// Hook is the place of a [Happening], for once: see [Identity.Hang]. It must not be copied.
type Hook struct{ do Happening }

// function is a happening that is a function.
type function func()

// Happen implements Happening.
func (f function) Happen() { f() }

// hooks are what is to happen at an occasion.
type hooks struct {
	mu      sync.Mutex
	pending map[*Hook]struct{}
}

// add adds a hook unless past says that it is too late: then take has run, or will find nothing
// of it. It returns false in that case.
func (h *hooks) add(one *Hook, past func() bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if past() {
		return false
	}
	if h.pending == nil {
		h.pending = make(map[*Hook]struct{})
	}
	h.pending[one] = struct{}{}
	return true
}

// remove takes back a hook and tells whether it was still there.
func (h *hooks) remove(one *Hook) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, found := h.pending[one]
	delete(h.pending, one)
	return found
}

// take returns the hooks and forgets them.
func (h *hooks) take() map[*Hook]struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	taken := h.pending
	h.pending = nil
	return taken
}
