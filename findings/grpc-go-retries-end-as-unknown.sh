#!/usr/bin/env bash
# Guess: a call of gRPC-Go whose retryPolicy has run out fails with the code of its last attempt, as it would have without a policy.
# Seen: google.golang.org/grpc v1.85.0 as caller and server, a policy for UNAVAILABLE, a server that answers UNAVAILABLE. Where it answers before
# it has read the message, as servers and proxies do that shed load, the caller gets Unknown, "max retries exhausted: failed after 3 attempts: EOF",
# without the server's text or details. It depends on who is faster; here a stats handler of the caller's takes 200 ms between the headers and the
# message, as a busy machine may, so that it is always so. Where the server reads the message first, or the caller has no policy, it is Unavailable.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
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
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const policy = `{"methodConfig": [{"name": [{}], "retryPolicy": {
	"maxAttempts": 3, "initialBackoff": "0.01s", "maxBackoff": "0.01s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]
}}]}`

type bytes = wrapperspb.BytesValue

// slow has the caller do something else between the headers and the message.
type slow struct{}

func (slow) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (slow) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (slow) HandleConn(context.Context, stats.ConnStats)                       {}
func (slow) HandleRPC(_ context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.OutHeader); ok {
		time.Sleep(200 * time.Millisecond)
	}
}

func main() {
	var runs atomic.Int64
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		runs.Add(1)
		if method, _ := grpc.MethodFromServerStream(s); method == "/e.E/Reads" {
			if err := s.RecvMsg(new(bytes)); err != nil {
				return err
			}
		}
		return status.Error(codes.Unavailable, "not now")
	}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go server.Serve(l)
	as := true
	for _, c := range []struct {
		name   string
		config string
		want   codes.Code
		runs   int64
	}{
		{"without a policy", "{}", codes.Unavailable, 1},
		{"with a policy", policy, codes.Unknown, 3},
	} {
		cc, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultServiceConfig(c.config),
			grpc.WithStatsHandler(slow{}))
		if err != nil {
			panic(err)
		}
		for _, method := range []string{"/e.E/Reads", "/e.E/ReadsNothing"} {
			want := c.want
			if method == "/e.E/Reads" {
				want = codes.Unavailable
			}
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			runs.Store(0)
			err := cc.Invoke(ctx, method, wrapperspb.Bytes(nil), new(bytes))
			cancel()
			fmt.Printf("%s, %s: %v after %d runs: %v\n", c.name, method, status.Code(err), runs.Load(), err)
			as = as && status.Code(err) == want && runs.Load() == c.runs
		}
		cc.Close()
	}
	server.Stop()
	if !as {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go version
grep 'google.golang.org/grpc ' go.mod
GOTOOLCHAIN=local timeout 120 go run .
