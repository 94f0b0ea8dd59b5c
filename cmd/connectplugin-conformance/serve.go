package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// handler serves what the kit and a subject have in common.
func handler() *http.ServeMux {
	mux := http.NewServeMux()
	handle(mux, "Echo", func(_ context.Context, value string) (string, error) { return value, nil })
	handle(mux, "Who", who)
	handle(mux, "Fail", func(_ context.Context, value string) (string, error) { return "", failure(value) })
	mux.Handle(base+"Collect", connect.NewClientStreamHandler(base+"Collect", collect))
	mux.Handle(base+"Repeat", connect.NewServerStreamHandler(base+"Repeat", repeat))
	mux.Handle(base+"Converse", connect.NewBidiStreamHandler(base+"Converse", converse))
	return mux
}

// handle serves a unary method.
func handle(mux *http.ServeMux, method string, f func(context.Context, string) (string, error)) {
	mux.Handle(base+method, connect.NewUnaryHandler(base+method,
		func(ctx context.Context, r *connect.Request[text]) (*connect.Response[text], error) {
			value, err := f(ctx, r.Msg.GetValue())
			if err != nil {
				return nil, err
			}
			return connect.NewResponse(wrapperspb.String(value)), nil
		}))
}

// who answers with what the host states of the caller.
func who(ctx context.Context, _ string) (string, error) {
	c, ok := connect.CallInfoForHandlerContext(ctx)
	if !ok {
		return "", errWrongAnswer
	}
	return c.RequestHeader().Get("X-Plugin-Caller-Self-Id"), nil
}

// failure is the error that a call of Fail asks for: a number and a text.
func failure(value string) error {
	number, said, _ := strings.Cut(value, " ")
	code, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	return connect.NewError(connect.Code(code), errors.New(said))
}

func collect(_ context.Context, stream *connect.ClientStream[text]) (*connect.Response[text], error) {
	var got []string
	for stream.Receive() {
		got = append(got, stream.Msg().GetValue())
	}
	return connect.NewResponse(wrapperspb.String(strings.Join(got, ","))), stream.Err()
}

func repeat(_ context.Context, r *connect.Request[text], stream *connect.ServerStream[text]) error {
	n, err := strconv.Atoi(r.Msg.GetValue())
	if err != nil {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	for i := range n {
		if err := stream.Send(wrapperspb.String(strconv.Itoa(i))); err != nil {
			return fmt.Errorf("repeat: %w", err)
		}
	}
	return nil
}

func converse(_ context.Context, stream *connect.BidiStream[text, text]) error {
	for {
		m, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("converse: %w", err)
		}
		if err := stream.Send(m); err != nil {
			return fmt.Errorf("converse: %w", err)
		}
	}
}
