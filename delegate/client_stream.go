package delegate

import (
	"context"
	"errors"
	"io"
	"iter"

	"connectrpc.com/connect"
)

// ClientStream calls a method with streamed requests: it sends what requests yields,
// in the caller's goroutine, and returns the response. A nil requests yields nothing.
// An error from requests ends the call and is returned. The server may answer before
// it has read everything; then requests is not asked for more. A call that is given up
// in the very moment in which the server begins to answer may last until the server
// ends it.
func ClientStream[Req, Res any](
	ctx context.Context, requests iter.Seq2[*Req, error], call func(context.Context) *connect.ClientStreamForClient[Req, Res],
) (*Res, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream := call(ctx)
	if conn, err := stream.Conn(); err == nil {
		defer abortAtEnd(ctx, conn.CloseResponse)()
	}
	defer cancel()
	return upload(requests, stream.Send, cancel, func() (*Res, error) {
		res, err := stream.CloseAndReceive()
		if err != nil {
			return nil, err //nolint:wrapcheck // the errors of Connect are coded already
		}
		return res.Msg, nil
	})
}

// ClientStreamSimple is [ClientStream] for clients that were generated with the
// option simple of protoc-gen-connect-go. They give no access to the response before
// the end: a call that is given up after the server began to answer ends when the
// server ends it.
func ClientStreamSimple[Req, Res any](
	ctx context.Context,
	requests iter.Seq2[*Req, error],
	call func(context.Context) (*connect.ClientStreamForClientSimple[Req, Res], error),
) (*Res, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := call(ctx)
	if err != nil {
		return nil, err
	}
	return upload(requests, stream.Send, cancel, stream.CloseAndReceive)
}

// upload sends everything and finishes the call, or gives it up.
func upload[Req, Res any](
	requests iter.Seq2[*Req, error], send func(*Req) error, cancel func(), finish func() (*Res, error),
) (*Res, error) {
	if err := sendAll(requests, send); err != nil {
		// Not by finishing: the server could take what it has for the whole.
		cancel()
		return nil, err
	}
	return finish()
}

// sendAll sends what requests yields until it ends, it fails, or the server wants no
// more. Then the response says why.
func sendAll[Req any](requests iter.Seq2[*Req, error], send func(*Req) error) error {
	if requests == nil {
		return nil
	}
	for req, err := range requests {
		if err != nil {
			return err
		}
		switch err := send(req); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
	return nil
}
