#!/usr/bin/env bash
# Guess: a server stream that breaks off is tried again only while nothing of it has come, as with gRPC's own retry policies, for which a call is committed
# once it has an answer: what has been received is not received again.
# Seen: with github.com/grpc-ecosystem/go-grpc-middleware/v2 v2.3.4 (interceptors/retry) and google.golang.org/grpc v1.85.0 a watch that ends with UNAVAILABLE after two
# messages is called again from its beginning, and the caller reads on: 0 1 0 1 2, then the end, as if that had been one stream. The handler has run
# twice, and nothing in the stream tells, except for a callback (WithOnRetryCallback). WithPerRetryTimeout does not hold for the first attempt
# of a stream, so that it does not end a stream that hangs. gRPC's own policy gives 0 1 and the error.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/grpc-ecosystem/go-grpc-middleware/v2 v2.3.4
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/retry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var started atomic.Int32

// serve is a watch that gives three numbers. The first time that it is called it breaks off after two of them, or hangs there, as it is asked to.
func serve(_ any, s grpc.ServerStream) error {
	var how wrapperspb.StringValue
	if err := s.RecvMsg(&how); err != nil {
		return err
	}
	first := started.Add(1) == 1
	for i := range int32(3) {
		if first && i == 2 && how.Value == "breaks off" {
			return status.Error(codes.Unavailable, "restarting")
		}
		if first && i == 2 && how.Value == "hangs" {
			<-s.Context().Done()
			return s.Context().Err()
		}
		if err := s.SendMsg(wrapperspb.Int32(i)); err != nil {
			return err
		}
	}
	return nil
}

const policy = `{"methodConfig":[{"name":[{}],"retryPolicy":{"maxAttempts":3,"initialBackoff":"0.01s","maxBackoff":"0.1s","backoffMultiplier":2,
	"retryableStatusCodes":["UNAVAILABLE"]}}]}`

func main() {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	go grpc.NewServer(grpc.UnknownServiceHandler(serve)).Serve(l)
	interceptor := grpc.WithStreamInterceptor(retry.StreamClientInterceptor(retry.WithMax(3), retry.WithCodes(codes.Unavailable),
		retry.WithPerRetryTimeout(500*time.Millisecond)))
	holds := true
	for _, c := range []struct {
		who    string
		option grpc.DialOption
		how    string
		want   string
	}{
		{"no retries", grpc.WithDisableRetry(), "breaks off", "0 1 Unavailable, handler started 1 times"},
		{"gRPC's policy", grpc.WithDefaultServiceConfig(policy), "breaks off", "0 1 Unavailable, handler started 1 times"},
		{"middleware", interceptor, "breaks off", "0 1 0 1 2 EOF, handler started 2 times"},
		{"middleware", interceptor, "hangs", "0 1 DeadlineExceeded, handler started 1 times"},
	} {
		conn := must(grpc.NewClient(l.Addr().String(), c.option, grpc.WithTransportCredentials(insecure.NewCredentials())))
		started.Store(0)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		s := must(conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/e.E/Watch"))
		err := s.SendMsg(wrapperspb.String(c.how))
		s.CloseSend()
		var got []string
		for err == nil {
			var n wrapperspb.Int32Value
			if err = s.RecvMsg(&n); err == nil {
				got = append(got, fmt.Sprint(n.Value))
			}
		}
		end := err.Error()
		if s, ok := status.FromError(err); ok {
			end = s.Code().String()
		}
		cancel()
		seen := fmt.Sprintf("%s, handler started %d times", strings.Join(append(got, end), " "), started.Load())
		fmt.Printf("%s, a watch that %s: %s\n", c.who, c.how, seen)
		holds = holds && seen == c.want
	}
	if !holds {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/grpc-ecosystem/go-grpc-middleware/v2 google.golang.org/grpc
GOTOOLCHAIN=local go build -o finding .
timeout 120 ./finding
