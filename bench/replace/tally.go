package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// tally counts what happened.
type tally struct {
	calls, failed, streams, told, cut atomic.Int64

	mu    sync.Mutex
	first error
}

func (t *tally) fail(err error) {
	t.failed.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.first == nil {
		t.first = err
	}
}

func (t *tally) call(ctx context.Context, way string, c *connect.Client[text, text]) {
	for ctx.Err() == nil {
		_, err := c.CallUnary(ctx, connect.NewRequest(wrapperspb.String("x")))
		switch {
		case ctx.Err() != nil:
		case err != nil:
			t.fail(fmt.Errorf("%s call: %w", way, err))
		default:
			t.calls.Add(1)
		}
	}
}

// stream keeps one stream open, and opens it again when the plugin ends it.
func (t *tally) stream(ctx context.Context, c *connect.Client[text, text]) {
	for ctx.Err() == nil {
		s, err := c.CallServerStream(ctx, connect.NewRequest(wrapperspb.String("x")))
		if err != nil {
			if ctx.Err() == nil {
				t.fail(fmt.Errorf("open a stream: %w", err))
			}
			continue
		}
		opened := s.Receive()
		for s.Receive() { // until it ends
		}
		err = s.Err()
		_ = s.Close()
		switch {
		case ctx.Err() != nil:
		case !opened:
			t.fail(fmt.Errorf("stream: %w", err))
		case connect.CodeOf(err) == connect.CodeUnavailable && err.Error() == "unavailable: "+takenOver:
			t.streams.Add(1)
			t.told.Add(1)
		case connect.CodeOf(err) == connect.CodeUnavailable:
			t.streams.Add(1)
			t.cut.Add(1)
		default:
			t.fail(fmt.Errorf("stream: %w", err))
		}
	}
}

func (t *tally) print(out io.Writer, took []time.Duration, all time.Duration) error {
	slices.Sort(took)
	_, _ = fmt.Fprintf(out, "%d replacements in %s: p50 %s, highest %s\n", len(took), all.Round(time.Millisecond),
		took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
	_, _ = fmt.Fprintf(out, "%-34s %8d\n", "unary calls that succeeded", t.calls.Load())
	_, _ = fmt.Fprintf(out, "%-34s %8d\n", "calls and streams that failed", t.failed.Load())
	_, _ = fmt.Fprintf(out, "%-34s %8d\n", "streams that were told to move", t.told.Load())
	_, _ = fmt.Fprintf(out, "%-34s %8d\n", "streams that outlasted StopGrace", t.cut.Load())
	if t.failed.Load() > 0 {
		return fmt.Errorf("%d calls failed, the first with: %w", t.failed.Load(), t.first)
	}
	return nil
}
