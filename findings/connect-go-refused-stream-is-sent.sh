#!/usr/bin/env bash
# Guess: a call whose message the client's own interceptor refuses, as connectrpc.com/validate does for clients, is not sent: the server, and
# what counts, limits and logs there, hears nothing of it. It is so for unary calls.
# Seen: with connectrpc.com/connect v1.21.1 and connectrpc.com/validate v0.9.0 a server stream that the client refuses with invalid_argument is sent all
# the same, without a message, in Connect, gRPC and gRPC-Web: at the server it is a call that failed with unimplemented, "unary request has
# zero messages", before the handler. So invalid input of one client is there an error that looks like an old server. connectrpc.com/connect/v2
# v2.0.2 (connecthttp) sends nothing of the stream.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	buf.build/go/protovalidate v1.4.0
	connectrpc.com/connect v1.21.1
	connectrpc.com/connect/v2 v2.0.2
	connectrpc.com/validate v0.9.0
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"time"

	"buf.build/go/protovalidate"
	"connectrpc.com/connect"
	connectv2 "connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type number = wrapperspb.Int64Value

const say, watch = "/e.E/Say", "/e.E/Watch"

// positive stands for rules: it takes numbers above 0.
type positive struct{ protovalidate.Validator }

func (positive) Validate(m proto.Message, _ ...protovalidate.ValidationOption) error {
	if n, ok := m.(*number); ok && n.GetValue() <= 0 {
		return new(protovalidate.ValidationError)
	}
	return nil
}

// server notes what came.
type server struct {
	mu   sync.Mutex
	seen []string
}

func (s *server) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, fmt.Sprintf(format, args...))
}

// told is what was noted since it was asked last.
func (s *server) told() string {
	time.Sleep(500 * time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.seen = nil }()
	if len(s.seen) == 0 {
		return "nothing"
	}
	return strings.Join(s.seen, ", ")
}

// noting is an interceptor of the server's.
type noting struct{ *server }

func (n noting) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		n.note("a call")
		return next(ctx, r)
	}
}

func (n noting) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc { return next }

func (n noting) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, c connect.StreamingHandlerConn) error {
		err := next(ctx, c)
		n.note("a stream that failed with %v", err)
		return err
	}
}

func main() {
	s := new(server)
	mux := http.NewServeMux()
	mux.Handle(say, connect.NewUnaryHandler(say, func(_ context.Context, r *connect.Request[number]) (*connect.Response[number], error) {
		return connect.NewResponse(r.Msg), nil
	}, connect.WithInterceptors(noting{s})))
	mux.Handle(watch, connect.NewServerStreamHandler(watch, func(_ context.Context, r *connect.Request[number], out *connect.ServerStream[number]) error {
		s.note("the handler ran")
		return out.Send(r.Msg)
	}, connect.WithInterceptors(noting{s})))
	web := httptest.NewUnstartedServer(mux)
	web.EnableHTTP2 = true
	web.StartTLS()
	defer web.Close()
	with := validate.WithValidator(positive{})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	as := true
	check := func(what string, code fmt.Stringer, want string) {
		got := s.told()
		fmt.Printf("%s: %v; the server saw: %s\n", what, code, got)
		as = as && code.String() == "invalid_argument" && got == want
	}
	for _, p := range []struct {
		name   string
		option connect.ClientOption
	}{{"Connect", connect.WithClientOptions()}, {"gRPC", connect.WithGRPC()}, {"gRPC-Web", connect.WithGRPCWeb()}} {
		options := connect.WithClientOptions(p.option, connect.WithInterceptors(validate.NewInterceptor(with)))
		_, err := connect.NewClient[number, number](web.Client(), web.URL+say, options).CallUnary(ctx, connect.NewRequest(wrapperspb.Int64(0)))
		check("connect, "+p.name+", unary", connect.CodeOf(err), "nothing")
		_, err = connect.NewClient[number, number](web.Client(), web.URL+watch, options).CallServerStream(ctx, connect.NewRequest(wrapperspb.Int64(0)))
		check("connect, "+p.name+", server stream", connect.CodeOf(err), "a stream that failed with unimplemented: unary request has zero messages")
	}
	c := connectv2.NewClient(connecthttp.NewTransport(web.Client(), web.URL), validate.NewClientInterceptor(with))
	_, err := c.CallServerStream(ctx, connectv2.Spec{Procedure: watch, StreamType: connectv2.StreamTypeServer}, wrapperspb.Int64(0))
	check("connect/v2, server stream", connectv2.CodeOf(err), "nothing")
	if !as {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go version
grep -E '^	connectrpc.com/' go.mod
GOTOOLCHAIN=local timeout 120 go run .
