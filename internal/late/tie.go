package late

import "context"

// Tie is the wish to be told of a context's end.
type Tie struct {
	late *Context
	stop func() bool
}

// rope is how a context that has to tell of its end hears of that of its parent: from its root, or from the
// package context. The zero value is for one that needs neither.
type rope struct {
	root *Context
	stop func() bool
}

func (r rope) cut() {
	switch {
	case r.root != nil:
		r.root.untie()
	case r.stop != nil:
		r.stop()
	}
}

// hanging is a context that is told of its root's end.
type hanging Context

// Ended implements Ender.
func (h *hanging) Ended(error) { (*Context)(h).parentEnded() }

// OnEnd has e told when ctx ends, or now if it has ended: once at most, on another goroutine or
// that of [Context.End]. It may be told while Loose runs.
func OnEnd(ctx context.Context, e Ender) Tie {
	if c, ok := ctx.(*Context); ok && c.tie(e) {
		return Tie{late: c}
	}
	return Tie{stop: context.AfterFunc(ctx, func() { e.Ended(context.Cause(ctx)) })}
}

// Loose takes the wish back.
func (t Tie) Loose() {
	if t.late == nil {
		t.stop()
		return
	}
	t.late.untie()
}

// untie has nobody told.
func (c *Context) untie() {
	c.mu.Lock()
	_, rope := c.untieLocked()
	c.mu.Unlock()
	rope.cut()
}

// tie has e told of the end, and reports false where another is, where c is whole, as then it
// is as cheap to ask that, and where c has ended.
func (c *Context) tie(e Ender) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.alone || c.told != nil || c.over.Load() != nil || c.full.Load() != nil || c.parent.Err() != nil {
		return false
	}
	c.told = e
	switch {
	case c.kept:
	case c.root != nil && c.root.tie((*hanging)(c)):
		c.hangs = true
	default:
		c.stop = context.AfterFunc(c.parent, c.parentEnded)
	}
	return true
}

// untieLocked returns whom to tell, and by what it is to hear of the parent's end, and forgets both.
func (c *Context) untieLocked() (told Ender, by rope) {
	told, by.stop = c.told, c.stop
	if c.hangs {
		by.root = c.root
	}
	c.told, c.stop, c.hangs = nil, nil, false
	return told, by
}

// parentEnded tells of the parent's end.
func (c *Context) parentEnded() {
	c.mu.Lock()
	told, _ := c.untieLocked()
	c.mu.Unlock()
	if told != nil {
		told.Ended(context.Cause(c.parent))
	}
}
