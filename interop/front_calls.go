package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type frontText = wrapperspb.StringValue

// frontService answers once, thrice, and not at all.
func frontService() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(frontOnce, connect.NewUnaryHandler(frontOnce,
		func(_ context.Context, req *connect.Request[frontText]) (*connect.Response[frontText], error) {
			return connect.NewResponse(req.Msg), nil
		}))
	mux.Handle(frontThrice, connect.NewServerStreamHandler(frontThrice,
		func(_ context.Context, req *connect.Request[frontText], stream *connect.ServerStream[frontText]) error {
			for range 3 {
				if err := stream.Send(req.Msg); err != nil {
					return fmt.Errorf("send: %w", err)
				}
			}
			return nil
		}))
	mux.Handle(frontFail, connect.NewUnaryHandler(frontFail,
		func(context.Context, *connect.Request[frontText]) (*connect.Response[frontText], error) {
			return nil, connect.NewError(connect.CodeDataLoss, errors.New("lost"))
		}))
	return mux
}

// enrol obtains an identity through the balancer, and gives it back.
func (s *scene) enrol(ctx context.Context, unbound bool) error {
	c, free, err := s.client(unbound)
	if err != nil {
		return err
	}
	defer free()
	if err := c.Connect(ctx); err != nil {
		return errors.Join(err, c.Close())
	}
	return c.Leave(ctx) //nolint:wrapcheck // says it
}

// frontErrors is how many errors without a body are asked for: a head that was not flushed
// costs some of them their status, not all.
const frontErrors = 50

var errAnswer = errors.New("wrong answer")

// call calls the plugin over gRPC, through the balancer and the host.
func (s *scene) call(ctx context.Context) (unary, stream, failure error) {
	c, free, err := s.client(true)
	if err != nil {
		return err, err, err
	}
	defer free()
	defer c.Close() //nolint:errcheck // the results are known
	if err := c.Connect(ctx); err != nil {
		return err, err, err
	}
	conn, err := c.Service(ctx, frontType, "")
	if err != nil {
		return err, err, err
	}
	defer conn.Close()
	to := func(procedure string) *connect.Client[frontText, frontText] {
		return connect.NewClient[frontText, frontText](conn.HTTPClient(), conn.BaseURL()+procedure, connect.WithGRPC())
	}
	text := wrapperspb.String("through")
	if resp, err := to(frontOnce).CallUnary(ctx, connect.NewRequest(text)); err != nil {
		unary = err
	} else if resp.Msg.GetValue() != text.GetValue() {
		unary = errAnswer
	}
	for range frontErrors {
		if _, err := to(frontFail).CallUnary(ctx, connect.NewRequest(text)); connect.CodeOf(err) != connect.CodeDataLoss {
			failure = fmt.Errorf("%w: %w", errAnswer, err)
		}
	}
	return unary, s.thrice(ctx, to(frontThrice), text), failure
}

func (*scene) thrice(ctx context.Context, to *connect.Client[frontText, frontText], text *frontText) error {
	answers, err := to.CallServerStream(ctx, connect.NewRequest(text))
	if err != nil {
		return fmt.Errorf("stream: %w", err)
	}
	defer answers.Close() //nolint:errcheck // read to its end
	n := 0
	for answers.Receive() {
		n++
	}
	if err := answers.Err(); err != nil || n != 3 {
		return fmt.Errorf("%w: %d messages: %w", errAnswer, n, orNone(err))
	}
	return nil
}
