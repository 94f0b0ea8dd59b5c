package grpcgo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/masegraye/connect-plugin-go/interop/echo"
)

const (
	maxMessage = 64 << 20
	grace      = 5 * time.Second
)

// Serve serves until ctx ends, and then until the calls in flight have. But for the size of
// messages it has gRPC-Go's defaults.
func Serve(ctx context.Context, j echo.Job, l net.Listener) error {
	cfg, err := j.ServerTLS()
	if err != nil {
		return fmt.Errorf("gRPC-Go: %w", err)
	}
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(cfg)), grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
	)
	server.RegisterService(description(), &echo.Service{})
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("gRPC-Go: %w", err)
	case <-ctx.Done():
	}
	late := time.AfterFunc(grace, server.Stop)
	defer late.Stop()
	server.GracefulStop()
	return <-served
}

func description() *grpc.ServiceDesc {
	d := &grpc.ServiceDesc{ServiceName: echo.Name, HandlerType: (*any)(nil)}
	for _, method := range []string{echo.MethodUnary, echo.MethodFail, echo.MethodSleep, echo.MethodCount} {
		d.Methods = append(d.Methods, grpc.MethodDesc{MethodName: method, Handler: unaryHandler(method)})
	}
	for _, s := range []grpc.StreamDesc{
		{StreamName: echo.MethodClient, ClientStreams: true},
		{StreamName: echo.MethodServer, ServerStreams: true},
		{StreamName: echo.MethodBidi, ClientStreams: true, ServerStreams: true},
	} {
		s.Handler = streamHandler(s.StreamName)
		d.Streams = append(d.Streams, s)
	}
	return d
}

var errService = errors.New("not the echo service")

func unaryHandler(method string) grpc.MethodHandler {
	return func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		s, ok := srv.(*echo.Service)
		if !ok {
			return nil, errService
		}
		var in wrapperspb.BytesValue
		if err := decode(&in); err != nil {
			return nil, err
		}
		out, err := s.Unary(ctx, method, in.GetValue())
		if err != nil {
			return nil, coded(err)
		}
		return wrapperspb.Bytes(out), nil
	}
}

func streamHandler(method string) grpc.StreamHandler {
	return func(srv any, stream grpc.ServerStream) error {
		s, ok := srv.(*echo.Service)
		if !ok {
			return errService
		}
		return coded(s.Stream(stream.Context(), method, &end{stream}))
	}
}

// end is either end of a stream.
type end struct {
	stream messages
}

// messages is what both ends of gRPC-Go have.
type messages interface {
	SendMsg(message any) error
	RecvMsg(message any) error
}

// Receive implements echo.Stream.
func (e *end) Receive() ([]byte, error) {
	var m wrapperspb.BytesValue
	if err := e.stream.RecvMsg(&m); err != nil {
		return nil, err
	}
	return m.GetValue(), nil
}

// Send implements echo.Stream.
func (e *end) Send(b []byte) error { return e.stream.SendMsg(wrapperspb.Bytes(b)) }

// coded gives an error of the service the form of gRPC-Go.
func coded(err error) error {
	f, ok := errors.AsType[*echo.CallError](err)
	if !ok {
		return err
	}
	s, err := status.New(codes.Code(f.Code), f.Text).WithDetails(wrapperspb.Bytes(f.Detail))
	if err != nil {
		return err //nolint:wrapcheck // a fault of ours
	}
	return s.Err()
}
