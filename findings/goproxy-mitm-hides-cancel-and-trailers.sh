#!/usr/bin/env bash
# Guess: an egress proxy of goproxy that looks into TLS (AlwaysMitm) and changes nothing is not noticed by calls over HTTP/2, or refuses those that it cannot
# carry: an answer has its trailers, and the service is told when its caller goes.
# Seen: with github.com/elazarl/goproxy v1.9.4 as it comes, caller and service of connectrpc.com/connect v1.21.1: (1) in gRPC each call runs at the service
# and fails at its caller, with internal, or with unknown in place of the service's own code, as the trailers are lost: whoever tries again runs it again. In
# Connect and gRPC-Web, whose ends stand in the body, they end as they should. (2) In all three a caller that cancels, unary or stream, is not told to the
# service, which goes on. With AllowHTTP2 both are as without the proxy, and so they are where it passes TLS on unread.
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
	github.com/elazarl/goproxy v1.9.4
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"time"

	"connectrpc.com/connect"
	"github.com/elazarl/goproxy"
	"google.golang.org/protobuf/types/known/emptypb"
)

type (
	empty    = emptypb.Empty
	request  = connect.Request[empty]
	response = connect.Response[empty]
)

// told is whether a handler learnt that its caller had gone.
var told = make(chan bool, 1)

func wait(ctx context.Context) {
	select {
	case <-ctx.Done():
		told <- true
	case <-time.After(2 * time.Second):
		told <- false
	}
}

func serve() *httptest.Server {
	mux := http.NewServeMux()
	mux.Handle("/e.E/Do", connect.NewUnaryHandler("/e.E/Do", func(context.Context, *request) (*response, error) { return connect.NewResponse(&empty{}), nil }))
	mux.Handle("/e.E/Fail", connect.NewUnaryHandler("/e.E/Fail", func(context.Context, *request) (*response, error) {
		return nil, connect.NewError(connect.CodeNotFound, errors.New("no such thing"))
	}))
	mux.Handle("/e.E/Wait", connect.NewUnaryHandler("/e.E/Wait", func(ctx context.Context, _ *request) (*response, error) {
		wait(ctx)
		return connect.NewResponse(&empty{}), nil
	}))
	mux.Handle("/e.E/Watch", connect.NewServerStreamHandler("/e.E/Watch", func(ctx context.Context, _ *request, s *connect.ServerStream[empty]) error {
		if err := s.Send(&empty{}); err != nil {
			return err
		}
		wait(ctx)
		return nil
	}))
	s := httptest.NewUnstartedServer(mux)
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	return s
}

// calls is what became of four calls.
func calls(transport http.RoundTripper, base string, protocol connect.ClientOption) string {
	client := func(method string) *connect.Client[empty, empty] {
		return connect.NewClient[empty, empty](&http.Client{Transport: transport}, base+"/e.E/"+method, protocol)
	}
	code := func(err error) string {
		if err == nil {
			return "ok"
		}
		return connect.CodeOf(err).String()
	}
	_, do := client("Do").CallUnary(context.Background(), connect.NewRequest(&empty{}))
	_, fail := client("Fail").CallUnary(context.Background(), connect.NewRequest(&empty{}))
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(500*time.Millisecond, cancel)
	_, _ = client("Wait").CallUnary(ctx, connect.NewRequest(&empty{}))
	unary := <-told
	ctx, cancel = context.WithCancel(context.Background())
	stream, err := client("Watch").CallServerStream(ctx, connect.NewRequest(&empty{}))
	if err != nil || !stream.Receive() {
		panic(fmt.Sprint(err, stream.Err()))
	}
	cancel()
	return fmt.Sprintf("one that succeeds %s, one of not_found %s, told of cancel %t, of a stream's %t", code(do), code(fail), unary, <-told)
}

func main() {
	log.SetOutput(io.Discard)
	service := serve()
	insecure := &tls.Config{InsecureSkipVerify: true} // the service's certificate and the proxy's are for tests
	var seen []string
	for _, kind := range []string{"TLS passed on", "TLS looked into", "TLS looked into, AllowHTTP2"} {
		proxy := goproxy.NewProxyHttpServer()
		proxy.Logger = log.New(io.Discard, "", 0)
		proxy.Tr = &http.Transport{TLSClientConfig: insecure.Clone(), ForceAttemptHTTP2: true}
		proxy.AllowHTTP2 = kind == "TLS looked into, AllowHTTP2"
		if kind != "TLS passed on" {
			proxy.OnRequest().HandleConnect(goproxy.AlwaysMitm)
		}
		at, err := url.Parse(httptest.NewServer(proxy).URL)
		if err != nil {
			panic(err)
		}
		transport := &http.Transport{Proxy: http.ProxyURL(at), TLSClientConfig: insecure.Clone(), ForceAttemptHTTP2: true}
		seen = append(seen,
			kind+", Connect: "+calls(transport, service.URL, connect.WithClientOptions()),
			kind+", gRPC: "+calls(transport, service.URL, connect.WithGRPC()),
			kind+", gRPC-Web: "+calls(transport, service.URL, connect.WithGRPCWeb()))
	}
	right := "one that succeeds ok, one of not_found not_found, told of cancel true, of a stream's true"
	half := "one that succeeds ok, one of not_found not_found, told of cancel false, of a stream's false"
	want := []string{
		"TLS passed on, Connect: " + right, "TLS passed on, gRPC: " + right, "TLS passed on, gRPC-Web: " + right,
		"TLS looked into, Connect: " + half,
		"TLS looked into, gRPC: one that succeeds internal, one of not_found unknown, told of cancel false, of a stream's false",
		"TLS looked into, gRPC-Web: " + half,
		"TLS looked into, AllowHTTP2, Connect: " + right, "TLS looked into, AllowHTTP2, gRPC: " + right, "TLS looked into, AllowHTTP2, gRPC-Web: " + right,
	}
	for _, line := range seen {
		fmt.Println(line)
	}
	if !slices.Equal(seen, want) {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/elazarl/goproxy connectrpc.com/connect
GOTOOLCHAIN=local go build -o finding .
timeout 120 ./finding
