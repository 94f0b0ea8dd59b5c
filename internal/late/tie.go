package late

import "context"

// Tie is the wish to be told of a context's end.
type Tie struct {
	late *Context
	stop func() bool
}

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
	t.late.mu.Lock()
	_, stop := t.late.untieLocked()
	t.late.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// tie has e told of the end, and reports false where another is, where c is whole, as then it
// is as cheap to ask that, and where c has ended.
func (c *Context) tie(e Ender) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.alone || c.told != nil || c.over.Load() != nil || c.full.Load() != nil || c.parent.Err() != nil {
		return false
	}
	c.told, c.stop = e, context.AfterFunc(c.parent, c.parentEnded)
	return true
}

// untieLocked returns whom to tell, and how to stop waiting for the parent, and forgets both.
func (c *Context) untieLocked() (told Ender, stop func() bool) {
	told, stop = c.told, c.stop
	c.told, c.stop = nil, nil
	return told, stop
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
