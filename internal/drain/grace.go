package drain

import (
	"context"
	"time"
)

// shares is into how many parts a short time is divided, of which the last is for those that are cut off.
const shares = 4

// Grace returns a context in which calls may end by themselves where all is to be over when ctx ends: it ends before, by as long as
// parting, or by a quarter of what is left where that is less. A context without a deadline has no end before its own.
func Grace(ctx context.Context, parting time.Duration) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, end.Add(-min(parting, time.Until(end)/shares)))
}

// least is how long who is cut off has to be told in any case: a busy machine takes some time for that.
const least = 500 * time.Millisecond

// Parting is how long those have that are cut off: until ctx ends, but half a second in any case, and as long as parting at most, or
// all of that where ctx has ended before its time.
func Parting(ctx context.Context, parting time.Duration) time.Duration {
	if end, ok := ctx.Deadline(); ok && ctx.Err() == nil {
		return min(parting, max(time.Until(end), least))
	}
	return parting
}
