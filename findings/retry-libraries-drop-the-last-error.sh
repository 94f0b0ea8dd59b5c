#!/usr/bin/env bash
# Guess: a call that is tried again until its context's deadline passes fails with the deadline and with what the last attempt said: errors.Is finds
# both, or connect.CodeOf at least one of them, unavailable or deadline_exceeded.
# Seen: where the deadline ends the pause between two attempts, github.com/cenkalti/backoff/v5 v5.0.3, github.com/sethvargo/go-retry v0.5.0 and
# github.com/avast/retry-go/v5 v5.1.1 with Attempts(0), which is without a limit, return the context's error alone. What the attempts said is gone,
# and connect.CodeOf of connectrpc.com/connect v1.21.1 has neither code: it is unknown, as of every error that is not connect's. retry-go with a
# limit of attempts joins all errors, so that the same deadline is unavailable. backoff.WithMaxElapsedTime in place of the context keeps the last error.
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
	github.com/avast/retry-go/v5 v5.1.1
	github.com/cenkalti/backoff/v5 v5.0.3
	github.com/sethvargo/go-retry v0.5.0
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
	"time"

	"connectrpc.com/connect"
	"github.com/avast/retry-go/v5"
	"github.com/cenkalti/backoff/v5"
	goretry "github.com/sethvargo/go-retry"
	"google.golang.org/protobuf/types/known/emptypb"
)

// pause is so long that the deadline, a second away, is in it and not in an attempt.
const pause = time.Hour

func main() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	const call = "/e.E/Call"
	http.Handle(call, connect.NewUnaryHandler(call, func(context.Context, *connect.Request[emptypb.Empty]) (*connect.Response[emptypb.Empty], error) {
		return nil, connect.NewError(connect.CodeUnavailable, errors.New("the disk is full"))
	}))
	go http.Serve(ln, nil)
	client := connect.NewClient[emptypb.Empty, emptypb.Empty](http.DefaultClient, "http://"+ln.Addr().String()+call)
	attempt := func(ctx context.Context) error {
		_, err := client.CallUnary(ctx, connect.NewRequest(&emptypb.Empty{}))
		return err
	}
	constant := backoff.WithBackOff(backoff.NewConstantBackOff(pause))
	show("backoff", func(ctx context.Context) error {
		_, err := backoff.Retry(ctx, func() (int, error) { return 0, attempt(ctx) }, constant, backoff.WithMaxElapsedTime(0))
		return err
	})
	show("backoff, WithMaxElapsedTime", func(ctx context.Context) error {
		_, err := backoff.Retry(context.Background(), func() (int, error) { return 0, attempt(ctx) }, constant, backoff.WithMaxElapsedTime(time.Second))
		return err
	})
	show("go-retry", func(ctx context.Context) error {
		return goretry.Do(ctx, goretry.NewConstant(pause), func(ctx context.Context) error { return goretry.RetryableError(attempt(ctx)) })
	})
	show("retry-go, Attempts(0)", func(ctx context.Context) error {
		return retry.New(retry.Context(ctx), retry.Delay(pause), retry.Attempts(0)).Do(func() error { return attempt(ctx) })
	})
	show("retry-go, Attempts(10)", func(ctx context.Context) error {
		return retry.New(retry.Context(ctx), retry.Delay(pause), retry.Attempts(10)).Do(func() error { return attempt(ctx) })
	})
}

func show(name string, f func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := f(ctx)
	var last *connect.Error
	fmt.Printf("%s: CodeOf %v, deadline %t, last error %t\n", name, connect.CodeOf(err), errors.Is(err, context.DeadlineExceeded), errors.As(err, &last))
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
grep -E 'avast|cenkalti|sethvargo|connectrpc' go.mod
GOTOOLCHAIN=local timeout 120 go run . | tee seen
cat > want <<'EOT'
backoff: CodeOf unknown, deadline true, last error false
backoff, WithMaxElapsedTime: CodeOf unavailable, deadline false, last error true
go-retry: CodeOf unknown, deadline true, last error false
retry-go, Attempts(0): CodeOf unknown, deadline true, last error false
retry-go, Attempts(10): CodeOf unavailable, deadline true, last error true
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
