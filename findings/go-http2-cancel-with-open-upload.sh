#!/usr/bin/env bash
# Guess: "the context controls the entire lifetime of a request and its response"
# (http.NewRequestWithContext), so ending the context of an HTTP/2 call ends it.
# Seen: while the request's body is open and has nothing to read, the clients of net/http (Go
# 1.26) and golang.org/x/net/http2 do not look at the context any more once the head of the answer is
# there. A pending Read of the answer goes on waiting, and the server is told nothing. Closing
# the request's body sets both free. A bidirectional stream of connect-go, which is
# such a call, therefore hangs in Receive after its context was cancelled. gRPC-Go ends at once.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOF'
module finding

go 1.26.0

require (
	connectrpc.com/connect v1.21.1
	golang.org/x/net v0.62.0
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)
EOF
cat > main.go <<'EOF'
package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type message = wrapperspb.BytesValue

const enough = 3 * time.Second

// outcome cancels a call in which receive is pending and tells whether receive and the server
// learnt of it; free ends the upload afterwards.
func outcome(cancel func(), receive func() error, server <-chan error, free func()) string {
	got := make(chan error, 1)
	go func() { got <- receive() }()
	time.Sleep(100 * time.Millisecond)
	cancel()
	text := "receive ends"
	select {
	case <-got:
		got <- nil
	case <-time.After(enough):
		text = "receive goes on waiting"
	}
	select {
	case <-server:
		text += ", server learns of it"
	case <-time.After(enough):
		text += ", server does not learn of it"
		free()
		<-server
	}
	<-got
	return text
}

func main() {
	plain := make(chan error, 1)
	stream := make(chan error, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("/plain", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		_, err := io.Copy(io.Discard, r.Body)
		plain <- err
	})
	mux.Handle("/e.Echo/Bidi", connect.NewBidiStreamHandler("/e.Echo/Bidi", func(_ context.Context, s *connect.BidiStream[message, message]) error {
		for {
			m, err := s.Receive()
			if err != nil {
				stream <- err
				return err
			}
			_ = s.Send(m)
		}
	}))
	server := httptest.NewUnstartedServer(mux)
	server.EnableHTTP2 = true
	server.StartTLS()
	trust := server.Client().Transport.(*http.Transport).TLSClientConfig

	fmt.Println(runtime.Version(), "x/net v0.62.0 connect-go", connect.Version, "gRPC-Go", grpc.Version)
	var rows []string
	row := func(name, text string) { rows = append(rows, name+": "+text); fmt.Println(rows[len(rows)-1]) }

	for _, c := range []struct {
		name string
		t    http.RoundTripper
	}{
		{"net/http", server.Client().Transport},
		{"x/net/http2", &http2.Transport{TLSClientConfig: trust.Clone()}},
	} {
		ctx, cancel := context.WithCancel(context.Background())
		r, w := io.Pipe()
		req, _ := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/plain", r)
		resp, err := c.t.RoundTrip(req)
		if err != nil || resp.ProtoMajor != 2 {
			panic(fmt.Sprint(err, resp))
		}
		row(c.name, outcome(cancel, func() error { _, err := resp.Body.Read(make([]byte, 1)); return err }, plain, func() { _ = w.Close() }))
	}

	ctx, cancel := context.WithCancel(context.Background())
	s := connect.NewClient[message, message](server.Client(), server.URL+"/e.Echo/Bidi", connect.WithGRPC()).CallBidiStream(ctx)
	_ = s.Send(wrapperspb.Bytes([]byte("x")))
	if _, err := s.Receive(); err != nil {
		panic(err)
	}
	row("connect-go", outcome(cancel, func() error { _, err := s.Receive(); return err }, stream, func() { _ = s.CloseRequest() }))

	ctx, cancel = context.WithCancel(context.Background())
	conn, err := grpc.NewClient(server.Listener.Addr().String(), grpc.WithTransportCredentials(creds(trust)))
	if err != nil {
		panic(err)
	}
	g, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/e.Echo/Bidi")
	if err != nil {
		panic(err)
	}
	_ = g.SendMsg(wrapperspb.Bytes([]byte("x")))
	if err := g.RecvMsg(&message{}); err != nil {
		panic(err)
	}
	row("gRPC-Go", outcome(cancel, func() error { return g.RecvMsg(&message{}) }, stream, func() {}))

	const hangs, ends = "receive goes on waiting, server does not learn of it", "receive ends, server learns of it"
	for i, want := range []string{"net/http: " + hangs, "x/net/http2: " + hangs, "connect-go: " + hangs, "gRPC-Go: " + ends} {
		if rows[i] != want {
			fmt.Println("CHANGED, was:", want)
			os.Exit(1)
		}
	}
}
EOF
cat > creds.go <<'EOF'
package main

import (
	"crypto/tls"

	"google.golang.org/grpc/credentials"
)

func creds(trust *tls.Config) credentials.TransportCredentials {
	cfg := trust.Clone()
	cfg.ServerName = "example.com" // of httptest's certificate
	return credentials.NewTLS(cfg)
}
EOF
sed -i '/^\t"crypto\/tls"$/d; /grpc\/credentials"$/d' main.go
export GOFLAGS=-mod=mod GOTOOLCHAIN=local
go mod tidy -e > /dev/null 2>&1
go run .
