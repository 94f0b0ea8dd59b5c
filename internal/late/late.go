// Package late has a context that costs nothing until somebody waits for its end: most calls
// are over before anybody did.
package late

import (
	"cmp"
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
	root   *Context        // whose end is that of the parent; nil where that is not known
	alone  bool            // the parent's end is not its own
	kept   bool            // End is called when the parent ends, too
	hangs  bool            // told hears of the parent's end from the root; guarded by mu

	over atomic.Pointer[end]
	full atomic.Pointer[full]

	mu   sync.Mutex  // held to change full, and over while full is nil
	told Ender       // nil for nobody
	stop func() bool // has told not hear of the parent's end from package context; nil where it does not
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

// InitUnder does what Init does where the parent is another one, its root, with values and nothing else: whoever is told
// of ends is told by the root then. One of another package is as good as none.
func (c *Context) InitUnder(parent, root context.Context) {
	c.parent = parent
	c.root, _ = root.(*Context)
}

// InitKept does what Init does where whoever makes c calls [Context.End] in any case, at the end of the parent, too: whoever
// is told of ends costs the parent nothing then.
func (c *Context) InitKept(parent context.Context) { c.parent, c.kept = parent, true }

// InitAlone makes c a context with the values of its parent, which ends by End alone.
func (c *Context) InitAlone(parent context.Context) { c.parent, c.alone = parent, true }

// End ends c, for a reason that [context.Cause] returns; nil stands for [context.Canceled].
// It does nothing where c has ended.
func (c *Context) End(cause error) {
	c.mu.Lock()
	if c.over.Load() != nil {
		c.mu.Unlock()
		return
	}
	if c.parentErr() != nil { // which tells others, or is told here
		told, kept := c.told, c.kept
		c.mu.Unlock()
		if told != nil && kept {
			go c.parentEnded()
		}
		return
	}
	over := plain
	if cause != nil {
		over = &end{cause}
	}
	c.over.Store(over)
	told, rope := c.untieLocked()
	c.mu.Unlock()
	if f := c.full.Load(); f != nil {
		f.cancel(cause)
	}
	switch {
	case told == nil:
	case c.kept: // its maker may hold what told asks for
		go told.Ended(cmp.Or(cause, context.Canceled))
	default:
		rope.cut()
		told.Ended(cmp.Or(cause, context.Canceled))
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
		return f.Err()
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
	return c.parent.Err()
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
