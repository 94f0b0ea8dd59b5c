#!/usr/bin/env bash
# Guess: in ttrpc, which containerd speaks with its plugins and shims in place of gRPC, a handler's context ends when its caller's does, as in
# gRPC: when the caller cancels, and when its deadline has passed. And Shutdown waits for the calls that are in flight, as GracefulStop does.
# Seen: with github.com/containerd/ttrpc v1.2.10 only the deadline of a unary call is told. The caller gives up at once, and the handler goes on, where the
# caller cancels, unary or stream, and where the deadline of a stream passes; its context has no deadline, either. Shutdown takes a connection
# whose only call began after it was idle for an idle one, as that call's start is not noticed before something else is answered: it returns nil at
# once, the handler's context ends, and the caller gets "ttrpc: closed". With a second call that was answered meanwhile it waits.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/containerd/ttrpc v1.2.10
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/sirupsen/logrus"
	"google.golang.org/protobuf/types/known/emptypb"
)

type empty = emptypb.Empty

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// told is what a handler learnt of its caller's end.
var told = make(chan string, 1)

func wait(ctx context.Context) {
	_, deadline := ctx.Deadline()
	select {
	case <-ctx.Done():
		told <- fmt.Sprintf("told %q (deadline %t)", ctx.Err(), deadline)
	case <-time.After(2 * time.Second):
		told <- fmt.Sprintf("not told (deadline %t)", deadline)
	}
}

// start returns a server and a client of it, on a connection that has carried nothing.
func start() (*ttrpc.Server, *ttrpc.Client) {
	s := must(ttrpc.NewServer())
	s.RegisterService("e.E", &ttrpc.ServiceDesc{
		Methods: map[string]ttrpc.Method{
			"Wait": func(ctx context.Context, in func(any) error) (any, error) {
				wait(ctx)
				return &empty{}, in(&empty{})
			},
			"Answer": func(_ context.Context, in func(any) error) (any, error) { return &empty{}, in(&empty{}) },
		},
		Streams: map[string]ttrpc.Stream{"Watch": {StreamingServer: true, Handler: func(ctx context.Context, s ttrpc.StreamServer) (any, error) {
			if err := s.RecvMsg(&empty{}); err != nil {
				return nil, err
			}
			if err := s.SendMsg(&empty{}); err != nil {
				return nil, err
			}
			wait(ctx)
			return nil, nil
		}}},
	})
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	go s.Serve(context.Background(), l)
	return s, ttrpc.NewClient(must(net.Dial("tcp", l.Addr().String())))
}

func main() {
	logrus.SetOutput(io.Discard) // it has a word for each answer that nobody waits for
	var seen []string
	report := func(name string, err error) {
		seen = append(seen, fmt.Sprintf("%s: caller %q, handler %s", name, err, <-told))
	}
	ends := map[string]func() (context.Context, context.CancelFunc){
		"cancelled": func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(context.Background())
			time.AfterFunc(300*time.Millisecond, cancel)
			return ctx, cancel
		},
		"deadline": func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.Background(), 300*time.Millisecond)
		},
	}
	for _, how := range []string{"cancelled", "deadline"} {
		_, client := start()
		ctx, cancel := ends[how]()
		report("unary, "+how, client.Call(ctx, "e.E", "Wait", &empty{}, &empty{}))
		cancel()
		ctx, cancel = ends[how]()
		stream := must(client.NewStream(ctx, &ttrpc.StreamDesc{StreamingServer: true}, "e.E", "Watch", &empty{}))
		if err := stream.RecvMsg(&empty{}); err != nil {
			panic(err)
		}
		report("stream, "+how, stream.RecvMsg(&empty{}))
		cancel()
	}
	for _, beside := range []bool{false, true} {
		server, client := start()
		ended := make(chan error)
		go func() { ended <- client.Call(context.Background(), "e.E", "Wait", &empty{}, &empty{}) }()
		time.Sleep(500 * time.Millisecond)
		if beside {
			if err := client.Call(context.Background(), "e.E", "Answer", &empty{}, &empty{}); err != nil {
				panic(err)
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		begin := time.Now()
		err := server.Shutdown(ctx)
		cancel()
		seen = append(seen, fmt.Sprintf("Shutdown, another was answered %t: %v, at once %t; caller: %v, handler %s", beside, err, time.Since(begin) < 500*time.Millisecond, <-ended, <-told))
	}
	want := []string{
		`unary, cancelled: caller "context canceled", handler not told (deadline false)`,
		`stream, cancelled: caller "context canceled", handler not told (deadline false)`,
		`unary, deadline: caller "context deadline exceeded", handler told "context deadline exceeded" (deadline true)`,
		`stream, deadline: caller "context deadline exceeded", handler not told (deadline false)`,
		`Shutdown, another was answered false: <nil>, at once true; caller: ttrpc: closed, handler told "context canceled" (deadline false)`,
		`Shutdown, another was answered true: <nil>, at once false; caller: <nil>, handler not told (deadline false)`,
	}
	same := len(seen) == len(want)
	for i, line := range seen {
		fmt.Println(line)
		same = same && line == want[i]
	}
	if !same {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/containerd/ttrpc
GOTOOLCHAIN=local timeout 120 go run .
