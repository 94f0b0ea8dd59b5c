#!/usr/bin/env bash
# Guess: a client of Connect for Go whose server resets the TCP connection instead of answering gets unavailable, as where
# nobody listens: the network failed, and the caller cancelled nothing.
# Seen: connectrpc.com/connect v1.21.1 and connectrpc.com/connect/v2 v2.0.2 (connecthttp) say canceled: a function that is
# meant for servers, whose clients went away, takes ECONNRESET and EPIPE for that on the client's side too. Retry policies
# that go by codes do not take it. A refused connection is unavailable.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
export GOTOOLCHAIN=local GOFLAGS=-mod=mod
go mod init example.com/finding > /dev/null 2>&1
go get connectrpc.com/connect@v1.21.1 connectrpc.com/connect/v2@v2.0.2 google.golang.org/protobuf@v1.36.12 > /dev/null 2>&1
cat > main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"

	"connectrpc.com/connect"
	connect2 "connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/types/known/emptypb"
)

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 4096))
			_ = conn.(*net.TCPConn).SetLinger(0) // a reset
			_ = conn.Close()
		}
	}()
	reset := codes("http://" + l.Addr().String())
	_ = l.Close()
	refused := codes("http://" + l.Addr().String())
	fmt.Println("reset:  ", reset)
	fmt.Println("refused:", refused)
	if reset != [2]string{"canceled", "canceled"} || refused != [2]string{"unavailable", "unavailable"} {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}

// codes are what callers of both versions see.
func codes(url string) [2]string {
	_, err := connect.NewClient[emptypb.Empty, emptypb.Empty](&http.Client{}, url+"/a.v1.A/B").
		CallUnary(context.Background(), connect.NewRequest(&emptypb.Empty{}))
	err2 := connect2.NewClient(connecthttp.NewTransport(&http.Client{}, url)).
		CallUnary(context.Background(), connect2.Spec{Procedure: "/a.v1.A/B"}, &emptypb.Empty{}, &emptypb.Empty{})
	return [2]string{connect.CodeOf(err).String(), connect2.CodeOf(err2).String()}
}
GO
echo "connect v1.21.1, connect/v2 v2.0.2, $(go version)"
timeout 300 go run .
