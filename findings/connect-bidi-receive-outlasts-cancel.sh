#!/usr/bin/env bash
# Guess: a caller of a bidirectional stream over HTTP/2 who cancels its context gets its pending Receive back at once: the
# documentation of net/http says that a request's context controls its whole lifetime, reading the body included.
# Seen: with connectrpc.com/connect v1.21.1 and net/http of Go 1.26, once the first message has come, a Receive goes on
# waiting after the cancellation while the caller's side of the stream is open, with Connect and with gRPC, and the server's
# handler is told nothing. It ends when the caller closes its side. Where that was closed before, the cancellation is seen at once.
# The transport looks at the context between two reads of the request's body, and connect's body waits for the next Send.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
export GOTOOLCHAIN=local GOFLAGS=-mod=mod
go mod init example.com/finding > /dev/null 2>&1
go get connectrpc.com/connect@v1.21.1 google.golang.org/protobuf@v1.36.12 > /dev/null 2>&1
cat > main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"
)

// moment is far more than a cancellation takes on one machine.
const moment = 3 * time.Second

type empty = emptypb.Empty

func main() {
	told := make(chan struct{}, 10)
	srv := httptest.NewUnstartedServer(connect.NewBidiStreamHandler("/a.v1.A/B",
		func(ctx context.Context, stream *connect.BidiStream[empty, empty]) error {
			if err := stream.Send(&empty{}); err != nil {
				return err
			}
			<-ctx.Done()
			told <- struct{}{}
			return ctx.Err()
		}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	for name, opts := range map[string][]connect.ClientOption{"Connect": nil, "gRPC": {connect.WithGRPC()}} {
		for _, closed := range []bool{false, true} {
			ended, heard := play(srv.Client(), srv.URL+"/a.v1.A/B", closed, told, opts)
			fmt.Printf("%-7s  own side closed before: %-5v  after the cancellation Receive ended: %-5v  the server was told: %v\n", name, closed, ended, heard)
			if ended != closed || heard != closed {
				fmt.Println("CHANGED")
				os.Exit(1)
			}
		}
	}
}

// play reports whether a Receive ends when the stream's context is cancelled, and whether the server is told.
func play(client *http.Client, url string, closed bool, told chan struct{}, opts []connect.ClientOption) (ended, heard bool) {
	ctx, cancel := context.WithCancel(context.Background())
	stream := connect.NewClient[empty, empty](client, url, opts...).CallBidiStream(ctx)
	if err := stream.Send(&empty{}); err != nil {
		panic(err)
	}
	if closed {
		_ = stream.CloseRequest()
	}
	if _, err := stream.Receive(); err != nil {
		panic(err)
	}
	received := make(chan error, 1)
	go func() { _, err := stream.Receive(); received <- err }()
	time.Sleep(moment / 10) // until it waits: one that begins later looks at its context first
	cancel()
	for range 2 {
		select {
		case <-received:
			ended, received = true, nil
		case <-told:
			heard, told = true, nil
		case <-time.After(moment):
		}
	}
	if !ended {
		_ = stream.CloseRequest()
		if err := <-received; connect.CodeOf(err) != connect.CodeCanceled {
			panic(err)
		}
	}
	if !heard {
		<-told
	}
	return ended, heard
}
GO
echo "connect v1.21.1, $(go version)"
timeout 300 go run .
