// Package echo is a service with RPCs of every kind, for tests: what serves it on a
// host, what calls it in every protocol, and what records or traps calls. It is for
// tests only.
package echo

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The service "echo" has a procedure of every kind; Look has no side effects.
const (
	Type   = "echo"
	Base   = "/test.v1.Echo/"
	Unary  = Base + "Unary"
	Look   = Base + "Look"
	Client = Base + "Client"
	Server = Base + "Server"
	Bidi   = Base + "Bidi"
)

// Text is the message of the service.
type Text = wrapperspb.StringValue

// Service serves the service. A nil field sends back what it got; Client
// joins what it got, Server sends what it got three times.
type Service struct {
	Unary  func(context.Context, *connect.Request[Text]) (*connect.Response[Text], error)
	Client func(context.Context, *connect.ClientStream[Text]) (*connect.Response[Text], error)
	Server func(context.Context, *connect.Request[Text], *connect.ServerStream[Text]) error
	Bidi   func(context.Context, *connect.BidiStream[Text, Text]) error
}

// Handler serves the service.
func (s Service) Handler(opts ...connect.HandlerOption) http.Handler {
	if s.Unary == nil {
		s.Unary = func(_ context.Context, req *connect.Request[Text]) (*connect.Response[Text], error) {
			return connect.NewResponse(req.Msg), nil
		}
	}
	if s.Client == nil {
		s.Client = joinAll
	}
	if s.Server == nil {
		s.Server = sendThrice
	}
	if s.Bidi == nil {
		s.Bidi = SendBack
	}
	mux := http.NewServeMux()
	mux.Handle(Unary, connect.NewUnaryHandler(Unary, s.Unary, opts...))
	mux.Handle(Look, connect.NewUnaryHandler(Look, s.Unary, append(slices.Clone(opts), connect.WithIdempotency(connect.IdempotencyNoSideEffects))...))
	mux.Handle(Client, connect.NewClientStreamHandler(Client, s.Client, opts...))
	mux.Handle(Server, connect.NewServerStreamHandler(Server, s.Server, opts...))
	mux.Handle(Bidi, connect.NewBidiStreamHandler(Bidi, s.Bidi, opts...))
	return mux
}

func joinAll(_ context.Context, stream *connect.ClientStream[Text]) (*connect.Response[Text], error) {
	var all strings.Builder
	for stream.Receive() {
		all.WriteString(stream.Msg().GetValue())
	}
	return connect.NewResponse(wrapperspb.String(all.String())), stream.Err()
}

func sendThrice(_ context.Context, req *connect.Request[Text], stream *connect.ServerStream[Text]) error {
	for range 3 {
		if err := stream.Send(req.Msg); err != nil {
			return err
		}
	}
	return nil
}

// SendBack sends back each message when it comes.
func SendBack(_ context.Context, stream *connect.BidiStream[Text, Text]) error {
	for {
		msg, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(msg); err != nil {
			return err
		}
	}
}
