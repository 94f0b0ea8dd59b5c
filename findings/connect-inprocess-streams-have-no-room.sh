#!/usr/bin/env bash
# Guess: connectinprocess of Connect for Go behaves as the network does, but faster: a caller may send a few messages of a
# bidirectional stream before it begins to receive.
# Seen: with connectrpc.com/connect/v2 v2.0.2 a stream has no room at all. A caller that sends a second message while the
# handler answers the first waits for ever, and so does the handler; over HTTP the same two messages pass.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
export GOTOOLCHAIN=local GOFLAGS=-mod=mod
go mod init example.com/finding > /dev/null 2>&1
go get connectrpc.com/connect/v2@v2.0.2 google.golang.org/protobuf@v1.36.12 > /dev/null 2>&1
cat > main.go <<'GO'
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

var spec = connect.Spec{Procedure: "/echo.v1.Echo/Both", StreamType: connect.StreamTypeBidi}

func main() {
	server := connect.NewServer()
	server.Register(connect.Method{Spec: spec, Handler: func(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
		for {
			var m wrapperspb.StringValue
			if stream.Receive(&m) != nil {
				return nil
			}
			if err := stream.Send(&m); err != nil {
				return err
			}
		}
	}})
	mux := http.NewServeMux()
	connecthttp.Mount(mux, server)
	over := httptest.NewUnstartedServer(mux)
	over.EnableHTTP2 = true
	over.StartTLS()
	defer over.Close()
	network := sendsTwo(connecthttp.NewTransport(over.Client(), over.URL))
	inProcess := sendsTwo(connectinprocess.New(server))
	fmt.Println("connect/v2", connect.Version, "| over HTTP:", network, "| in process:", inProcess)
	if network != "both were sent" || inProcess != "the second waits" {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}

// sendsTwo sends two messages and receives nothing.
func sendsTwo(transport connect.Transport) string {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	stream, err := connect.NewClient(transport).CallClientStream(ctx, spec)
	if err != nil {
		return err.Error()
	}
	defer stream.Close()
	for _, text := range []string{"a", "b"} {
		if err := stream.Send(wrapperspb.String(text)); err != nil {
			if ctx.Err() != nil && text == "b" {
				return "the second waits"
			}
			return err.Error()
		}
	}
	return "both were sent"
}
GO
timeout 300 go run .
