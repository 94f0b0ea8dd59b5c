#!/usr/bin/env bash
# Guess: with connect-go's in-process transport, which replaces the loopback listener, a unary call whose deadline passes, or whose
# context is cancelled, ends there and then with deadline_exceeded or canceled, as over HTTP; the handler may go on.
# Seen: connectrpc.com/connect/v2 v2.0.2 (connectinprocess) runs the handler of a unary call in the caller's goroutine. The call ends
# when the handler does, however late, and then succeeds. A server stream whose deadline passes ends in time.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	connectrpc.com/connect/v2 v2.0.2
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
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectinprocess"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	deadline = 200 * time.Millisecond
	slow     = 2 * time.Second
)

var (
	unary  = connect.Spec{Procedure: "/e.Echo/Unary", StreamType: connect.StreamTypeUnary}
	stream = connect.Spec{Procedure: "/e.Echo/Server", StreamType: connect.StreamTypeServer}
)

// answer takes its time and does not look at its context.
func answer(_ context.Context, _ connect.Spec, s connect.ServerStream) error {
	var m wrapperspb.StringValue
	if err := s.Receive(&m); err != nil {
		return err
	}
	time.Sleep(slow)
	return s.Send(&m)
}

func callUnary(ctx context.Context, c *connect.Client) error {
	return c.CallUnary(ctx, unary, wrapperspb.String("x"), new(wrapperspb.StringValue))
}

func callStream(ctx context.Context, c *connect.Client) error {
	s, err := c.CallServerStream(ctx, stream, wrapperspb.String("x"))
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Receive(new(wrapperspb.StringValue))
}

func main() {
	server := connect.NewServer()
	server.Register(connect.Method{Spec: unary, Handler: answer})
	server.Register(connect.Method{Spec: stream, Handler: answer})
	mux := http.NewServeMux()
	connecthttp.Mount(mux, server)
	web := httptest.NewServer(mux)
	seen := ""
	for _, t := range []struct {
		name string
		c    *connect.Client
	}{
		{"http", connect.NewClient(connecthttp.NewTransport(web.Client(), web.URL))},
		{"in process", connect.NewClient(connectinprocess.New(server))},
	} {
		for _, k := range []struct {
			name string
			call func(context.Context, *connect.Client) error
		}{{"unary", callUnary}, {"server stream", callStream}} {
			ctx, cancel := context.WithTimeout(context.Background(), deadline)
			began := time.Now()
			err := k.call(ctx, t.c)
			took, code := time.Since(began), "ok"
			cancel()
			if err != nil {
				if code = connect.CodeOf(err).String(); ctx.Err() != nil && context.Cause(ctx) == err {
					code = "deadline_exceeded" // the bare error of the context
				}
			}
			line := fmt.Sprintf("%s, %s: %s, in time: %t\n", t.name, k.name, code, took < slow-deadline)
			fmt.Printf("%s  (%v)\n", line[:len(line)-1], took.Round(10*time.Millisecond))
			seen += line
		}
	}
	want := "http, unary: deadline_exceeded, in time: true\nhttp, server stream: deadline_exceeded, in time: true\n" +
		"in process, unary: ok, in time: false\nin process, server stream: deadline_exceeded, in time: true\n"
	if seen != want {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go version; grep connect/v2 go.mod
GOTOOLCHAIN=local timeout 120 go run .
