package grpcgo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/masegraye/connect-plugin-go/interop/echo"
)

// Caller calls with gRPC-Go. The route stands before the method's name.
type Caller struct {
	// Fixed at creation.
	conn   *grpc.ClientConn
	header []string

	prefix atomic.Pointer[string]
}

// Dial makes a caller.
func Dial(j echo.Job) (*Caller, error) {
	cfg, err := j.ClientTLS()
	if err != nil {
		return nil, fmt.Errorf("gRPC-Go: %w", err)
	}
	conn, err := grpc.NewClient("passthrough:///"+j.Target,
		grpc.WithTransportCredentials(credentials.NewTLS(cfg)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
	)
	if err != nil {
		return nil, fmt.Errorf("gRPC-Go: %w", err)
	}
	c := &Caller{conn: conn}
	if j.Token != "" {
		c.header = []string{"x-plugin-runtime-id", j.ID, "authorization", "Bearer " + j.Token}
	}
	c.prefix.Store(&j.Prefix)
	return c, nil
}

// Move implements echo.Caller.
func (c *Caller) Move(prefix string) { c.prefix.Store(&prefix) }

// Close implements echo.Caller.
func (c *Caller) Close() { _ = c.conn.Close() }

// Unary implements echo.Caller.
func (c *Caller) Unary(ctx context.Context, method string, in []byte) ([]byte, error) {
	var out wrapperspb.BytesValue
	err := c.conn.Invoke(c.outgoing(ctx), c.path(method), wrapperspb.Bytes(in), &out)
	return out.GetValue(), err
}

// Open implements echo.Caller.
func (c *Caller) Open(ctx context.Context, method string) (echo.CallerStream, error) {
	kind := &grpc.StreamDesc{
		StreamName: method, ClientStreams: method != echo.MethodServer, ServerStreams: method != echo.MethodClient,
	}
	s, err := c.conn.NewStream(c.outgoing(ctx), kind, c.path(method))
	if err != nil {
		return nil, err //nolint:wrapcheck // its code is read
	}
	return &callerEnd{end: end{s}, stream: s, single: method == echo.MethodClient}, nil
}

// Failure implements echo.Caller.
func (*Caller) Failure(err error) echo.CallError {
	s, ok := status.FromError(err)
	if !ok {
		return echo.CallError{}
	}
	f := echo.CallError{Code: uint32(s.Code()), Text: s.Message()}
	for _, d := range s.Details() {
		if m, ok := d.(*wrapperspb.BytesValue); ok {
			f.Detail = m.GetValue()
		}
	}
	return f
}

func (c *Caller) outgoing(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, c.header...)
}

func (c *Caller) path(method string) string { return *c.prefix.Load() + echo.Base + method }

type callerEnd struct {
	end

	stream grpc.ClientStream
	single bool // there is one answer
	ended  bool
}

// CloseSend implements echo.CallerStream.
func (e *callerEnd) CloseSend() error { return e.stream.CloseSend() } //nolint:wrapcheck // its code is read

// Receive implements echo.Stream.
func (e *callerEnd) Receive() ([]byte, error) {
	if e.ended {
		return nil, io.EOF
	}
	e.ended = e.single
	return e.end.Receive()
}

// Send implements echo.Stream. Where the stream has ended, the reason is with Receive.
func (e *callerEnd) Send(b []byte) error {
	err := e.end.Send(b)
	if errors.Is(err, io.EOF) {
		if _, cause := e.end.Receive(); cause != nil {
			return cause
		}
	}
	return err
}
