#!/usr/bin/env bash
# Guess: with hedgedhttp as the transport of connect-go a unary call that is slow is sent a second time, with its message, and the first answer that comes
# is the call's; at worst the second attempt is of no use.
# Seen: github.com/cristalhq/hedgedhttp v0.9.2 gives each attempt the same body, which the first has read. With connectrpc.com/connect v1.21.1 over HTTP/2,
# in Connect and in gRPC, the second attempt is the end of a call that would have succeeded: the server answers it, without a handler, and that answer
# counts and the first attempt is cancelled, so that each call that is slower than the hedge's delay fails, with unknown in Connect and internal in gRPC,
# "request declared a Content-Length of 2 but only wrote 0 bytes". Over HTTP/1.1 the second attempt is not sent, and the call waits for the first. A client
# of net/http with GET, which has no body, gets the second attempt's answer. With hedgepolicy of github.com/failsafe-go/failsafe-go v0.9.8 the second
# attempt has the message and its answer is the call's, in each case.
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
	github.com/cristalhq/hedgedhttp v0.9.2
	github.com/failsafe-go/failsafe-go v0.9.8
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
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/cristalhq/hedgedhttp"
	"github.com/failsafe-go/failsafe-go/failsafehttp"
	"github.com/failsafe-go/failsafe-go/hedgepolicy"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type number = wrapperspb.Int64Value

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

const (
	delay = 300 * time.Millisecond
	slow  = 3 * time.Second
	path  = "/e.E/Get"
)

// calls counts those of handlers; the first is slow.
var calls atomic.Int64

func work(ctx context.Context) {
	if calls.Add(1) == 1 {
		select {
		case <-time.After(slow):
		case <-ctx.Done():
		}
	}
}

func protocols(http2 bool) *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(!http2)
	p.SetUnencryptedHTTP2(http2)
	return p
}

func main() {
	mux := http.NewServeMux()
	mux.Handle(path, connect.NewUnaryHandler(path, func(ctx context.Context, r *connect.Request[number]) (*connect.Response[number], error) {
		work(ctx)
		return connect.NewResponse(wrapperspb.Int64(r.Msg.Value)), nil
	}))
	mux.HandleFunc("GET /plain", func(_ http.ResponseWriter, r *http.Request) { work(r.Context()) })
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	both := protocols(true)
	both.SetHTTP1(true)
	go (&http.Server{Handler: mux, Protocols: both}).Serve(l)
	url := "http://" + l.Addr().String()
	var seen []string
	for _, http2 := range []bool{false, true} {
		transport := func() http.RoundTripper { return &http.Transport{Protocols: protocols(http2)} }
		for _, library := range []string{"hedgedhttp", "failsafe"} {
			for _, protocol := range []string{"GET", "Connect", "gRPC"} {
				if protocol == "gRPC" && !http2 {
					continue
				}
				client := &http.Client{}
				switch library {
				case "hedgedhttp":
					client.Transport = must(hedgedhttp.NewRoundTripper(delay, 2, transport()))
				case "failsafe":
					client.Transport = failsafehttp.NewRoundTripper(transport(), hedgepolicy.NewWithDelay[*http.Response](delay))
				}
				calls.Store(0)
				begin := time.Now()
				var err error
				switch protocol {
				case "GET":
					var r *http.Response
					if r, err = client.Get(url + "/plain"); err == nil {
						r.Body.Close()
					}
				default:
					var options []connect.ClientOption
					if protocol == "gRPC" {
						options = append(options, connect.WithGRPC())
					}
					var r *connect.Response[number]
					r, err = connect.NewClient[number, number](client, url+path, options...).CallUnary(context.Background(), connect.NewRequest(wrapperspb.Int64(7)))
					if err == nil && r.Msg.Value != 7 {
						err = fmt.Errorf("another answer: %d", r.Msg.Value)
					}
				}
				outcome := "answered"
				if err != nil {
					fmt.Println(err)
					outcome = connect.CodeOf(err).String()
					if strings.Contains(err.Error(), "only wrote 0 bytes") {
						outcome += ", no message"
					}
				}
				line := fmt.Sprintf("HTTP/2 %t, %s, %s: %s, handlers %d, waited for the first %t", http2, library, protocol, outcome, calls.Load(), time.Since(begin) >= slow)
				fmt.Println(line)
				seen = append(seen, line)
			}
		}
	}
	if !slices.Equal(seen, []string{
		"HTTP/2 false, hedgedhttp, GET: answered, handlers 2, waited for the first false",
		"HTTP/2 false, hedgedhttp, Connect: answered, handlers 1, waited for the first true",
		"HTTP/2 false, failsafe, GET: answered, handlers 2, waited for the first false",
		"HTTP/2 false, failsafe, Connect: answered, handlers 2, waited for the first false",
		"HTTP/2 true, hedgedhttp, GET: answered, handlers 2, waited for the first false",
		"HTTP/2 true, hedgedhttp, Connect: unknown, no message, handlers 1, waited for the first false",
		"HTTP/2 true, hedgedhttp, gRPC: internal, no message, handlers 1, waited for the first false",
		"HTTP/2 true, failsafe, GET: answered, handlers 2, waited for the first false",
		"HTTP/2 true, failsafe, Connect: answered, handlers 2, waited for the first false",
		"HTTP/2 true, failsafe, gRPC: answered, handlers 2, waited for the first false",
	}) {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/cristalhq/hedgedhttp github.com/failsafe-go/failsafe-go connectrpc.com/connect
GOTOOLCHAIN=local go build -o finding .
timeout 120 ./finding
