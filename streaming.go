package connectplugin

import (
	"context"
	"errors"

	"connectrpc.com/connect"
)

// PumpToStream sends what arrives on ch to stream, in order, until one of these
// ends it:
//   - ch is closed: it returns nil, or the error that waits on errs;
//   - errs yields an error: what ch has buffered is sent, and the error returned;
//   - ctx ends: it returns [connect.CodeCanceled] or
//     [connect.CodeDeadlineExceeded], wrapping the context's error;
//   - the stream fails: it returns that error.
//
// A nil error on errs, a closed and a nil errs say nothing. PumpToStream starts
// no goroutine and leaves none, and panics where the stream is nil. After it returned nobody reads the channels:
// their writers must watch ctx too, which a Connect handler's return ends.
func PumpToStream[T any](ctx context.Context, ch <-chan T, errs <-chan error, stream *connect.ServerStream[T]) error {
	if ctx.Err() == nil && (stream == nil || stream.Conn() == nil) {
		panic("connectplugin: PumpToStream: the stream is nil or a zero value; pass the one that Connect gave to the handler")
	}
	for {
		// Of several ready channels select takes any, and the end of the context
		// comes first.
		if err := contextError(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return contextError(ctx)
		case msg, open := <-ch:
			if !open {
				return pendingError(errs)
			}
			if err := stream.Send(&msg); err != nil {
				return err
			}
		case err, open := <-errs:
			if !open {
				errs = nil
			}
			if err == nil {
				continue
			}
			if err := sendBuffered(ctx, ch, stream); err != nil {
				return err
			}
			return err
		}
	}
}

// sendBuffered sends what its writer put into ch before the error.
func sendBuffered[T any](ctx context.Context, ch <-chan T, stream *connect.ServerStream[T]) error {
	for range len(ch) {
		if err := contextError(ctx); err != nil {
			return err
		}
		msg, open := <-ch
		if !open {
			return nil
		}
		if err := stream.Send(&msg); err != nil {
			return err
		}
	}
	return nil
}

// pendingError returns the error that waits on errs, if any.
func pendingError(errs <-chan error) error {
	for {
		select {
		case err, open := <-errs:
			if err != nil || !open {
				return err
			}
		default:
			return nil
		}
	}
}

// contextError returns the coded error of a context that ended, else nil.
func contextError(ctx context.Context) error {
	err := ctx.Err()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, err)
	default:
		return connect.NewError(connect.CodeCanceled, err)
	}
}
