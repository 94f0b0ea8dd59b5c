package connectpluginv2

import (
	"context"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectinprocess"
	"google.golang.org/protobuf/proto"
)

// NewInProcess returns a transport to a server in this process, such as one that also
// serves other plugins through [NewService] or the router. Messages are copied, and nothing
// is encoded; a message may be used again once it is sent, as over a wire. Of the caller's
// context its end passes, and the headers of the call: no value, so that a handler that
// calls on does not lend the callee its own caller. Streams have no room: a message waits
// until the other side takes it. A unary call takes as long as its handler, which runs in
// the caller's goroutine: one that does not mind its context outlasts the caller's deadline.
func NewInProcess(server *connect.Server, options ...connectinprocess.Option) connect.Transport {
	front := connect.NewServer()
	front.SetUnknownHandler(func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		info, ok := connect.CallInfoForServerContext(ctx)
		if ok && info.Spec.StreamType != connect.StreamTypeUnary {
			stream = copyingServer{stream}
		}
		return server.Call(ctx, spec.Procedure, info, stream) //nolint:wrapcheck // the handler's own
	})
	return inProcess{connectinprocess.New(front, options...)}
}

type inProcess struct{ connect.Transport }

// NewClientStream implements connect.Transport.
func (t inProcess) NewClientStream(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
	stream, err := t.Transport.NewClientStream(bareContext{ctx}, spec)
	if err != nil || spec.StreamType == connect.StreamTypeUnary {
		return stream, err //nolint:wrapcheck // stands for what it wraps
	}
	return copyingClient{stream}, nil
}

// copyingClient sends copies: the other side takes a message, and copies it only when Send
// has returned, after which its sender may change it.
type copyingClient struct{ connect.ClientStream }

// Send implements connect.ClientStream.
func (s copyingClient) Send(message any) error {
	return s.ClientStream.Send(copyOf(message)) //nolint:wrapcheck // stands for what it wraps
}

// copyingServer is copyingClient for the other direction.
type copyingServer struct{ connect.ServerStream }

// Send implements connect.ServerStream.
func (s copyingServer) Send(message any) error {
	return s.ServerStream.Send(copyOf(message)) //nolint:wrapcheck // stands for what it wraps
}

// copyOf copies a message of protobuf. Others are the business of whoever set how they are
// copied.
func copyOf(message any) any {
	if m, ok := message.(proto.Message); ok {
		return proto.Clone(m)
	}
	return message
}

// bareContext is a context with no value but the record of the call.
type bareContext struct{ context.Context } //nolint:containedctx // it is one

// Value implements context.Context.
func (c bareContext) Value(key any) any {
	value := c.Context.Value(key)
	if _, ok := value.(*connect.CallInfo); ok {
		return value
	}
	return nil
}
