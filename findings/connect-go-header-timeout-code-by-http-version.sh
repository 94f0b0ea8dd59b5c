#!/usr/bin/env bash
# Guess: a call that http.Transport.ResponseHeaderTimeout ends fails with the same code over HTTP/1.1 and over HTTP/2, that of
# http.Client.Timeout: deadline_exceeded.
# Seen: connectrpc.com/connect v1.21.1 and connectrpc.com/connect/v2 v2.0.2 (connecthttp) on Go 1.26 say deadline_exceeded over HTTP/1.1
# and unavailable over HTTP/2. Both errors of net/http are timeouts by net.Error, but only the first is context.DeadlineExceeded by
# errors.Is. Retry policies that go by codes repeat the second, on which the server may be at work, and not the first.
# http.Client.Timeout is deadline_exceeded over both.
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
	connectrpc.com/connect/v2 v2.0.2
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"connectrpc.com/connect"
	connect2 "connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/types/known/emptypb"
)

const soon = 300 * time.Millisecond

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	var both http.Protocols
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	slow := connect.NewUnaryHandler("/e.E/Slow", func(ctx context.Context, _ *connect.Request[emptypb.Empty]) (*connect.Response[emptypb.Empty], error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	go (&http.Server{Handler: slow, Protocols: &both}).Serve(l)
	seen := ""
	for _, http2 := range []bool{false, true} {
		var one http.Protocols
		one.SetHTTP1(!http2)
		one.SetUnencryptedHTTP2(http2)
		for _, client := range []*http.Client{
			{Transport: &http.Transport{Protocols: &one}, Timeout: soon},
			{Transport: &http.Transport{Protocols: &one, ResponseHeaderTimeout: soon}},
		} {
			option := "ResponseHeaderTimeout"
			if client.Timeout > 0 {
				option = "Client.Timeout"
			}
			url := "http://" + l.Addr().String()
			_, first := connect.NewClient[emptypb.Empty, emptypb.Empty](client, url+"/e.E/Slow").CallUnary(context.Background(), connect.NewRequest(&emptypb.Empty{}))
			second := connect2.NewClient(connecthttp.NewTransport(client, url)).CallUnary(context.Background(), connect2.Spec{Procedure: "/e.E/Slow"}, &emptypb.Empty{}, &emptypb.Empty{})
			var timeout net.Error
			line := fmt.Sprintf("HTTP/2 %t, %s: v1 %v, v2 %v\n", http2, option, connect.CodeOf(first), connect2.CodeOf(second))
			fmt.Printf("%s  (%v; by net.Error %t, by errors.Is %t)\n", line[:len(line)-1], first,
				errors.As(first, &timeout) && timeout.Timeout(), errors.Is(first, context.DeadlineExceeded))
			seen += line
		}
	}
	want := "HTTP/2 false, Client.Timeout: v1 deadline_exceeded, v2 deadline_exceeded\n" +
		"HTTP/2 false, ResponseHeaderTimeout: v1 deadline_exceeded, v2 deadline_exceeded\n" +
		"HTTP/2 true, Client.Timeout: v1 deadline_exceeded, v2 deadline_exceeded\n" +
		"HTTP/2 true, ResponseHeaderTimeout: v1 unavailable, v2 unavailable\n"
	if seen != want {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go version; grep connectrpc.com go.mod
GOTOOLCHAIN=local timeout 120 go run .
