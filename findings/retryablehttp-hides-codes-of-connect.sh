#!/usr/bin/env bash
# Guess: go-retryablehttp's StandardClient as the HTTP client of connect-go tries again what did not reach a service, such as a refused connection
# or a proxy's 502; what a handler of Connect answered arrives as it was made, in each protocol; streams work as with http.Client.
# Seen: with github.com/hashicorp/go-retryablehttp v0.7.8 and connectrpc.com/connect v1.21.1 a handler that ends a unary call of Connect with unknown,
# deadline_exceeded, resource_exhausted, internal, unavailable or data_loss runs five times, and its caller gets unavailable, "giving up after 5
# attempt(s)", without the details, so that whoever goes by codes tries the whole again. The same calls in gRPC run once and keep their code: their
# HTTP status is 200. A bidirectional stream fails by its deadline in both: the client reads a request to its end before it sends any of it.
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
	github.com/hashicorp/go-retryablehttp v0.7.8
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/hashicorp/go-retryablehttp"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type number = wrapperspb.Int64Value

const fail, chat = "/e.E/Fail", "/e.E/Chat"

func main() {
	var runs atomic.Int64
	mux := http.NewServeMux()
	mux.Handle(fail, connect.NewUnaryHandler(fail, func(_ context.Context, r *connect.Request[number]) (*connect.Response[number], error) {
		runs.Add(1)
		err := connect.NewError(connect.Code(r.Msg.GetValue()), errors.New("as the handler says"))
		detail, failed := connect.NewErrorDetail(wrapperspb.String("detail"))
		if failed != nil {
			panic(failed)
		}
		err.AddDetail(detail)
		return nil, err
	}))
	mux.Handle(chat, connect.NewBidiStreamHandler(chat, func(_ context.Context, s *connect.BidiStream[number, number]) error {
		m, err := s.Receive()
		if err != nil {
			return err
		}
		return s.Send(m)
	}))
	web := httptest.NewUnstartedServer(mux)
	web.EnableHTTP2 = true
	web.StartTLS()
	defer web.Close()
	again := retryablehttp.NewClient()
	again.HTTPClient, again.Logger = web.Client(), nil
	again.RetryWaitMin, again.RetryWaitMax = time.Millisecond, time.Millisecond
	for _, way := range []struct {
		name     string
		client   connect.HTTPClient
		protocol connect.ClientOption
	}{
		{"net/http, Connect", web.Client(), connect.WithClientOptions()},
		{"net/http, gRPC", web.Client(), connect.WithGRPC()},
		{"retryablehttp, Connect", again.StandardClient(), connect.WithClientOptions()},
		{"retryablehttp, gRPC", again.StandardClient(), connect.WithGRPC()},
	} {
		same := 0
		c := connect.NewClient[number, number](way.client, web.URL+fail, way.protocol)
		for code := connect.CodeCanceled; code <= connect.CodeUnauthenticated; code++ {
			runs.Store(0)
			_, err := c.CallUnary(context.Background(), connect.NewRequest(wrapperspb.Int64(int64(code))))
			var coded *connect.Error
			if !errors.As(err, &coded) {
				panic(err)
			}
			if coded.Code() == code && len(coded.Details()) == 1 && runs.Load() == 1 {
				same++
				continue
			}
			fmt.Printf("%s: %v becomes %v after %d runs, %d details\n", way.name, code, coded.Code(), runs.Load(), len(coded.Details()))
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		s := connect.NewClient[number, number](way.client, web.URL+chat, way.protocol).CallBidiStream(ctx)
		if err := s.Send(wrapperspb.Int64(1)); err != nil {
			panic(err)
		}
		said := "answers"
		if _, err := s.Receive(); err != nil {
			said = connect.CodeOf(err).String()
		}
		cancel()
		fmt.Printf("%s: %d codes as they were, a bidirectional stream: %s\n", way.name, same, said)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go version
grep -E '^	(connectrpc.com/connect|github.com/hashicorp/go-retryablehttp) ' go.mod
GOTOOLCHAIN=local timeout 120 go run . | tee seen
cat > want <<'EOT'
net/http, Connect: 16 codes as they were, a bidirectional stream: answers
net/http, gRPC: 16 codes as they were, a bidirectional stream: answers
retryablehttp, Connect: unknown becomes unavailable after 5 runs, 0 details
retryablehttp, Connect: deadline_exceeded becomes unavailable after 5 runs, 0 details
retryablehttp, Connect: resource_exhausted becomes unavailable after 5 runs, 0 details
retryablehttp, Connect: internal becomes unavailable after 5 runs, 0 details
retryablehttp, Connect: unavailable becomes unavailable after 5 runs, 0 details
retryablehttp, Connect: data_loss becomes unavailable after 5 runs, 0 details
retryablehttp, Connect: 10 codes as they were, a bidirectional stream: deadline_exceeded
retryablehttp, gRPC: 16 codes as they were, a bidirectional stream: deadline_exceeded
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
