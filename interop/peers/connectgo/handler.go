package connectgo

import (
	"context"
	"errors"
	"io"
	"net/http"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/masegraye/connect-plugin-go/interop/echo"
)

type message = wrapperspb.BytesValue

// Handler serves the service in the three protocols.
func Handler() http.Handler {
	s := &echo.Service{}
	mux := http.NewServeMux()
	for _, method := range []string{echo.MethodUnary, echo.MethodFail, echo.MethodSleep, echo.MethodCount} {
		mux.Handle(echo.Base+method, unaryHandler(s, method))
	}
	mux.Handle(echo.Base+echo.MethodClient, clientHandler(s))
	mux.Handle(echo.Base+echo.MethodServer, serverHandler(s))
	mux.Handle(echo.Base+echo.MethodBidi, bidiHandler(s))
	return mux
}

func unaryHandler(s *echo.Service, method string) http.Handler {
	return connect.NewUnaryHandler(echo.Base+method,
		func(ctx context.Context, r *connect.Request[message]) (*connect.Response[message], error) {
			out, err := s.Unary(ctx, method, r.Msg.GetValue())
			if err != nil {
				return nil, coded(err)
			}
			return connect.NewResponse(wrapperspb.Bytes(out)), nil
		})
}

func clientHandler(s *echo.Service) http.Handler {
	return connect.NewClientStreamHandler(echo.Base+echo.MethodClient,
		func(ctx context.Context, in *connect.ClientStream[message]) (*connect.Response[message], error) {
			end := &serverEnd{receive: func() (*message, error) {
				if in.Receive() {
					return in.Msg(), nil
				}
				return nil, orEOF(in.Err())
			}}
			var answer []byte
			end.send = func(m *message) error { answer = m.GetValue(); return nil }
			if err := s.Stream(ctx, echo.MethodClient, end); err != nil {
				return nil, coded(err)
			}
			return connect.NewResponse(wrapperspb.Bytes(answer)), nil
		})
}

func serverHandler(s *echo.Service) http.Handler {
	return connect.NewServerStreamHandler(echo.Base+echo.MethodServer,
		func(ctx context.Context, r *connect.Request[message], out *connect.ServerStream[message]) error {
			end := &serverEnd{receive: func() (*message, error) { return r.Msg, nil }, send: out.Send}
			return coded(s.Stream(ctx, echo.MethodServer, end))
		})
}

func bidiHandler(s *echo.Service) http.Handler {
	return connect.NewBidiStreamHandler(echo.Base+echo.MethodBidi,
		func(ctx context.Context, stream *connect.BidiStream[message, message]) error {
			return coded(s.Stream(ctx, echo.MethodBidi, &serverEnd{receive: stream.Receive, send: stream.Send}))
		})
}

// serverEnd is a server's end of a stream.
type serverEnd struct {
	receive func() (*message, error)
	send    func(*message) error
}

// Receive implements echo.Stream.
func (e *serverEnd) Receive() ([]byte, error) {
	m, err := e.receive()
	return m.GetValue(), err
}

// Send implements echo.Stream.
func (e *serverEnd) Send(b []byte) error { return e.send(wrapperspb.Bytes(b)) }

func orEOF(err error) error {
	if err == nil {
		return io.EOF
	}
	return err
}

// coded gives an error of the service the form of Connect.
func coded(err error) error {
	f, ok := errors.AsType[*echo.CallError](err)
	if !ok {
		return err
	}
	out := connect.NewError(connect.Code(f.Code), f)
	if detail, err := connect.NewErrorDetail(wrapperspb.Bytes(f.Detail)); err == nil {
		out.AddDetail(detail)
	}
	return out
}
