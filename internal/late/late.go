// Package late has a context that costs nothing until somebody waits for its end: most calls
// are over before anybody did.
package late

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Ender is told that a context ended, and why. It must not wait for anything.
type Ender interface{ Ended(cause error) }

// Context is a context that ends with its parent, or before it by [Context.End]. It holds what
// the package context knows of contexts: whoever asks sees no difference. It is safe for
// concurrent use, must not be copied, and is ready after Init or InitAlone.
type Context struct {
	// Fixed by Init.
	parent context.Context //nolint:containedctx // it is a context itself
	alone  bool            // the parent's end is not its own

	over atomic.Pointer[end]
	full atomic.Pointer[full]

	mu   sync.Mutex // held to change full, and over while full is nil
	told Ender      // nil for nobody
	stop func() bool
}

// end is why a context ended before its parent.
type end struct{ cause error }

// plain is an end without a reason, as that of most calls is.
var plain = new(end)

// full is what others can wait for.
type full struct {
	context.Context //nolint:containedctx // it is what Context stands for

	cancel context.CancelCauseFunc
}

// Init makes c a context that ends with its parent.
func (c *Context) Init(parent context.Context) { c.parent = parent }

// InitAlone makes c a context with the values of its parent, which ends by End alone.
func (c *Context) InitAlone(parent context.Context) { c.parent, c.alone = parent, true }

// End ends c, for a reason that [context.Cause] returns; nil stands for [context.Canceled].
// It does nothing where c has ended.
func (c *Context) End(cause error) {
	c.mu.Lock()
	if c.over.Load() != nil || c.parentErr() != nil {
		c.mu.Unlock()
		return
	}
	over := plain
	if cause != nil {
		over = &end{cause}
	}
	c.over.Store(over)
	told, stop := c.untieLocked()
	c.mu.Unlock()
	if f := c.full.Load(); f != nil {
		f.cancel(cause)
	}
	if stop != nil {
		stop()
		told.Ended(cause)
	}
}

// Deadline implements context.Context.
func (c *Context) Deadline() (deadline time.Time, ok bool) {
	if c.alone {
		return time.Time{}, false
	}
	return c.parent.Deadline()
}

// Done implements context.Context.
func (c *Context) Done() <-chan struct{} { return c.whole().Done() }

// Err implements context.Context.
func (c *Context) Err() error {
	if f := c.full.Load(); f != nil {
		return f.Err() //nolint:wrapcheck // that of a context
	}
	if c.over.Load() != nil {
		return context.Canceled
	}
	return c.parentErr()
}

// Value implements context.Context. What the package context finds the cause of an end in is a
// context itself, and that of the parent need not be that of c.
func (c *Context) Value(key any) any {
	if f := c.full.Load(); f != nil {
		return f.Value(key)
	}
	value := c.parent.Value(key)
	if _, of := value.(context.Context); of && (c.alone || c.over.Load() != nil) {
		return c.whole().Value(key)
	}
	return value
}

// parentErr is that of the parent, where its end is that of c.
func (c *Context) parentErr() error {
	if c.alone {
		return nil
	}
	return c.parent.Err() //nolint:wrapcheck // that of a context
}

// whole returns what others can wait for.
func (c *Context) whole() *full {
	if f := c.full.Load(); f != nil {
		return f
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.full.Load(); f != nil {
		return f
	}
	over, parent := c.over.Load(), c.parent
	if c.alone || over != nil { // the parent may have ended after c
		parent = context.WithoutCancel(parent)
	}
	f := new(full)
	f.Context, f.cancel = context.WithCancelCause(parent)
	if over != nil {
		f.cancel(over.cause)
	}
	c.full.Store(f)
	return f
}
