package delegate

import (
	"context"
	"iter"

	"connectrpc.com/connect"
)

// Fail is the iterator of a call that cannot be made: it yields the error and ends.
func Fail[Res any](err error) iter.Seq2[*Res, error] {
	return func(yield func(*Res, error) bool) { yield(nil, err) }
}

// ServerStream makes an iterator of a method with streamed responses.
func ServerStream[Req, Res any](
	ctx context.Context,
	call func(context.Context, *connect.Request[Req]) (*connect.ServerStreamForClient[Res], error),
	req *Req,
) iter.Seq2[*Res, error] {
	return ServerStreamSimple(ctx, func(ctx context.Context, req *Req) (*connect.ServerStreamForClient[Res], error) {
		return call(ctx, connect.NewRequest(req))
	}, req)
}

// ServerStreamSimple is [ServerStream] for clients that were generated with the
// option simple of protoc-gen-connect-go.
func ServerStreamSimple[Req, Res any](
	ctx context.Context, call func(context.Context, *Req) (*connect.ServerStreamForClient[Res], error), req *Req,
) iter.Seq2[*Res, error] {
	return func(yield func(*Res, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := call(ctx, req)
		if err != nil {
			yield(nil, err)
			return
		}
		defer func() {
			cancel() // Close would read on to the end.
			_ = stream.Close()
		}()
		for stream.Receive() {
			if !yield(stream.Msg(), nil) {
				return
			}
		}
		if err := stream.Err(); err != nil {
			yield(nil, err)
		}
	}
}
