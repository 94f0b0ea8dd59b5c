#!/usr/bin/env bash
# Guess: handlers of net/http, such as those of connect-go, behave behind Fiber's adaptor as behind net/http, at least where a call is unary or a
# server stream over HTTP/1.1: the request is the caller's, and its context ends when the caller goes.
# Seen: with github.com/gofiber/fiber/v3 v3.1.0 (middleware/adaptor, on fasthttpadaptor of github.com/valyala/fasthttp v1.69.0) and connectrpc.com/connect
# v1.21.1 of a request's field that comes more than once the handler has the last value alone: of the metadata x-label "red" and "blue" it
# has "blue". Answers keep both. A caller that cancels a unary call is not noticed, nor one that leaves a stream while the handler sends
# nothing; its deadline is, as Connect tells it. A client stream reaches the handler when the caller has ended it, all messages at once.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	connectrpc.com/connect v1.21.1
	github.com/gofiber/fiber/v3 v3.1.0
	github.com/valyala/fasthttp v1.69.0
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/adaptor"
	"google.golang.org/protobuf/types/known/emptypb"
)

type empty = emptypb.Empty

const label, wait, watch, upload = "/e.E/Label", "/e.E/Wait", "/e.E/Watch", "/e.E/Upload"

// told is what a handler learnt of its caller's end.
var told = make(chan string, 1)

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		told <- "told " + ctx.Err().Error()
	case <-time.After(2 * time.Second):
		told <- "not told"
	}
	return ctx.Err()
}

func handlers() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(label, connect.NewUnaryHandler(label, func(_ context.Context, r *connect.Request[empty]) (*connect.Response[empty], error) {
		answer := connect.NewResponse(&empty{})
		answer.Header()["X-Had"] = r.Header().Values("X-Label")
		answer.Header()["X-Label"] = []string{"red", "blue"}
		return answer, nil
	}))
	mux.Handle(wait, connect.NewUnaryHandler(wait, func(ctx context.Context, _ *connect.Request[empty]) (*connect.Response[empty], error) {
		return connect.NewResponse(&empty{}), pause(ctx)
	}))
	mux.Handle(watch, connect.NewServerStreamHandler(watch, func(ctx context.Context, _ *connect.Request[empty], s *connect.ServerStream[empty]) error {
		if err := s.Send(&empty{}); err != nil {
			return err
		}
		return pause(ctx)
	}))
	mux.Handle(upload, connect.NewClientStreamHandler(upload, func(_ context.Context, s *connect.ClientStream[empty]) (*connect.Response[empty], error) {
		var first, last time.Time
		for s.Receive() {
			last = time.Now()
			if first.IsZero() {
				first = last
			}
		}
		answer := connect.NewResponse(&empty{})
		answer.Header().Set("X-At-Once", fmt.Sprint(last.Sub(first) < 300*time.Millisecond))
		return answer, s.Err()
	}))
	return mux
}

func listen() (net.Listener, string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	return l, "http://" + l.Addr().String()
}

func main() {
	plain, plainURL := listen()
	go http.Serve(plain, handlers())
	behind, fiberURL := listen()
	app := fiber.New()
	app.Use(adaptor.HTTPHandler(handlers()))
	go app.Listener(behind, fiber.ListenConfig{DisableStartupMessage: true})
	seen := strings.Join(append(report("net/http", plainURL), report("Fiber", fiberURL)...), "\n")
	fmt.Println(seen)
	const want = `net/http: request has [red blue], answer has [red blue]
net/http: unary, cancelled: told context canceled
net/http: unary, deadline: told a deadline
net/http: stream, cancelled: told context canceled
net/http: client stream arrives at once: false
Fiber: request has [blue], answer has [red blue]
Fiber: unary, cancelled: not told
Fiber: unary, deadline: told a deadline
Fiber: stream, cancelled: not told
Fiber: client stream arrives at once: true`
	if seen != want {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}

func report(name, url string) (lines []string) {
	client := func(procedure string) *connect.Client[empty, empty] {
		return connect.NewClient[empty, empty](http.DefaultClient, url+procedure)
	}
	say := func(format string, args ...any) { lines = append(lines, name+": "+fmt.Sprintf(format, args...)) }
	ctx := context.Background()

	request := connect.NewRequest(&empty{})
	request.Header()["X-Label"] = []string{"red", "blue"}
	answer, err := client(label).CallUnary(ctx, request)
	if err != nil {
		panic(err)
	}
	say("request has %v, answer has %v", answer.Header().Values("X-Had"), answer.Header().Values("X-Label"))

	cancelled, cancel := context.WithCancel(ctx)
	time.AfterFunc(300*time.Millisecond, cancel)
	client(wait).CallUnary(cancelled, connect.NewRequest(&empty{}))
	say("unary, cancelled: %s", <-told)

	timed, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	client(wait).CallUnary(timed, connect.NewRequest(&empty{}))
	cancel()
	if how := <-told; how == "not told" {
		say("unary, deadline: %s", how)
	} else { // net/http may see first that the caller has gone
		say("unary, deadline: told a deadline")
	}

	cancelled, cancel = context.WithCancel(ctx)
	stream, err := client(watch).CallServerStream(cancelled, connect.NewRequest(&empty{}))
	if err != nil || !stream.Receive() {
		panic("no stream")
	}
	cancel()
	say("stream, cancelled: %s", <-told)

	up := client(upload).CallClientStream(ctx)
	for range 3 {
		if err := up.Send(&empty{}); err != nil {
			panic(err)
		}
		time.Sleep(300 * time.Millisecond)
	}
	answer, err = up.CloseAndReceive()
	if err != nil {
		panic(err)
	}
	say("client stream arrives at once: %s", answer.Header().Get("X-At-Once"))
	return lines
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/gofiber/fiber/v3 github.com/valyala/fasthttp connectrpc.com/connect
GOTOOLCHAIN=local timeout 120 go run .
