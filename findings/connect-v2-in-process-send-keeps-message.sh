#!/usr/bin/env bash
# Guess: with connect-go's in-process transport a message may be used again once Send has returned, as over HTTP, where it is encoded
# by then: messages are deeply copied, "so the client and server never share message state", and Send waits for the other side.
# Seen: connectrpc.com/connect/v2 v2.0.2 (connectinprocess) hands the other side the message itself, and that copies it in its own
# goroutine when Send has returned already. One message that is counted up and sent again arrives with later numbers than were sent:
# in client streams, and in server streams just so. It is a data race.
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
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectinprocess"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const messages = 1000

var (
	up   = connect.Spec{Procedure: "/e.Count/Up", StreamType: connect.StreamTypeClient}
	down = connect.Spec{Procedure: "/e.Count/Down", StreamType: connect.StreamTypeServer}
)

// count sends 0, 1, 2 … in one message.
func count(send func(any) error) error {
	var m wrapperspb.Int64Value
	for i := range messages {
		m.Value = int64(i)
		if err := send(&m); err != nil {
			return err
		}
	}
	return nil
}

// wrong counts the messages that are not what was sent.
func wrong(receive func(any) error) (n int64, err error) {
	for i := int64(0); ; i++ {
		var m wrapperspb.Int64Value
		if err := receive(&m); errors.Is(err, io.EOF) {
			return n, nil
		} else if err != nil {
			return n, err
		}
		if m.GetValue() != i {
			n++
		}
	}
}

func main() {
	server := connect.NewServer()
	server.Register(connect.Method{Spec: up, Handler: func(_ context.Context, _ connect.Spec, s connect.ServerStream) error {
		n, err := wrong(s.Receive)
		if err != nil {
			return err
		}
		return s.Send(wrapperspb.Int64(n))
	}})
	server.Register(connect.Method{Spec: down, Handler: func(_ context.Context, _ connect.Spec, s connect.ServerStream) error {
		if err := s.Receive(new(wrapperspb.Int64Value)); err != nil {
			return err
		}
		return count(s.Send)
	}})
	mux := http.NewServeMux()
	connecthttp.Mount(mux, server)
	web := httptest.NewServer(mux)
	as := true
	for _, t := range []struct {
		name string
		c    *connect.Client
		lost bool
	}{
		{"http", connect.NewClient(connecthttp.NewTransport(web.Client(), web.URL)), false},
		{"in process", connect.NewClient(connectinprocess.New(server)), true},
	} {
		sent, received := uploads(t.c), downloads(t.c)
		fmt.Printf("%s: of %d messages %d wrong in a client stream, %d in a server stream\n", t.name, messages, sent, received)
		as = as && (sent > 0) == t.lost && (received > 0) == t.lost
	}
	if !as {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}

func uploads(c *connect.Client) int64 {
	s, err := c.CallClientStream(context.Background(), up)
	must(err)
	defer s.Close()
	must(count(s.Send))
	must(s.CloseSend())
	var m wrapperspb.Int64Value
	must(s.Receive(&m))
	return m.GetValue()
}

func downloads(c *connect.Client) int64 {
	s, err := c.CallServerStream(context.Background(), down, new(wrapperspb.Int64Value))
	must(err)
	defer s.Close()
	n, err := wrong(s.Receive)
	must(err)
	return n
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go version; grep connect/v2 go.mod
GOTOOLCHAIN=local timeout 120 go run .
