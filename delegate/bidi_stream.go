package delegate

import (
	"context"
	"errors"
	"io"
	"iter"

	"connectrpc.com/connect"
)

// duplex is what both kinds of bidirectional streams can do.
type duplex[Req, Res any] interface {
	Send(req *Req) error
	CloseRequest() error
	Receive() (*Res, error)
	CloseResponse() error
}

// BidiStream makes an iterator of a method with streamed requests and responses. What
// requests returns is ranged over in a goroutine of its own, beside the responses. Its
// context ends with the call, and it has to end soon after that: the range over the
// responses waits for it. A nil requests sends nothing.
func BidiStream[Req, Res any](
	ctx context.Context,
	requests func(context.Context) iter.Seq2[*Req, error],
	call func(context.Context) *connect.BidiStreamForClient[Req, Res],
) iter.Seq2[*Res, error] {
	return converse(ctx, requests, func(ctx context.Context) (duplex[Req, Res], error) { return call(ctx), nil })
}

// BidiStreamSimple is [BidiStream] for clients that were generated with the option
// simple of protoc-gen-connect-go.
func BidiStreamSimple[Req, Res any](
	ctx context.Context,
	requests func(context.Context) iter.Seq2[*Req, error],
	call func(context.Context) (*connect.BidiStreamForClientSimple[Req, Res], error),
) iter.Seq2[*Res, error] {
	return converse(ctx, requests, func(ctx context.Context) (duplex[Req, Res], error) { return call(ctx) })
}

// sendError is why a call was given up from this side.
type sendError struct{ err error }

func (e *sendError) Error() string { return e.err.Error() }
func (e *sendError) Unwrap() error { return e.err }

func converse[Req, Res any](
	ctx context.Context,
	requests func(context.Context) iter.Seq2[*Req, error],
	call func(context.Context) (duplex[Req, Res], error),
) iter.Seq2[*Res, error] {
	return func(yield func(*Res, error) bool) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		stream, err := call(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			if err := talk(ctx, requests, stream); err != nil {
				cancel(&sendError{err})
			}
			if ctx.Err() == nil { // Or the server would take what it has for the whole.
				_ = stream.CloseRequest()
			}
		}()
		defer func() {
			cancel(nil)
			<-sent
			_ = stream.CloseResponse()
		}()
		listen(ctx, stream, yield)
	}
}

// talk sends the requests.
func talk[Req, Res any](ctx context.Context, requests func(context.Context) iter.Seq2[*Req, error], stream duplex[Req, Res]) error {
	// Nil sends the header alone, so that the server may speak first. If that fails,
	// so does all that follows, and the response says why.
	_ = stream.Send(nil)
	if requests == nil {
		return nil
	}
	return sendAll(requests(ctx), stream.Send)
}

// listen yields the responses, and in the end the error.
func listen[Req, Res any](ctx context.Context, stream duplex[Req, Res], yield func(*Res, error) bool) {
	for {
		res, err := stream.Receive()
		if err != nil {
			if gaveUp, ok := errors.AsType[*sendError](context.Cause(ctx)); ok {
				yield(nil, gaveUp.err)
			} else if !errors.Is(err, io.EOF) {
				yield(nil, err)
			}
			return
		}
		if !yield(res, nil) {
			return
		}
	}
}
