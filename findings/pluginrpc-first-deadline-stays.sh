#!/usr/bin/env bash
# Guess: a call of pluginrpc whose context ends says deadline_exceeded, with pluginrpc's code or at least as errors.Is finds it, and has no
# consequences: the client's next call, with time enough, starts the plugin anew and succeeds.
# Seen: with pluginrpc.com/pluginrpc v0.6.0 a call whose deadline passes while the plugin runs fails with "Exited with code -1: signal: killed", which
# has no code and is not context.DeadlineExceeded: it looks like a plugin that somebody killed, and says the same as one that was. Where the context
# of a client's first call ends before the plugin has told what it offers, that error is kept in place of the answer, and every later call of the
# client fails with "context deadline exceeded" at once, whatever time it has. A second client of the same plugin works.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	google.golang.org/protobuf v1.36.12
	pluginrpc.com/pluginrpc v0.6.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"
	"pluginrpc.com/pluginrpc"
)

type text = wrapperspb.StringValue

const say = "/e.Echo/Say"

// handle is what the plugin does.
func handle(_ context.Context, request any) (any, error) {
	switch request.(*text).GetValue() {
	case "slow":
		time.Sleep(30 * time.Second)
	case "killed":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "fails":
		return nil, pluginrpc.NewError(pluginrpc.CodeAborted, errors.New("too much"))
	}
	return request, nil
}

func newServer() (pluginrpc.Server, error) {
	procedure, err := pluginrpc.NewProcedure(say)
	if err != nil {
		return nil, err
	}
	spec, err := pluginrpc.NewSpec(procedure)
	if err != nil {
		return nil, err
	}
	registrar, handler := pluginrpc.NewServerRegistrar(), pluginrpc.NewHandler(spec)
	registrar.Register(say, func(ctx context.Context, env pluginrpc.HandleEnv, options ...pluginrpc.HandleOption) error {
		return handler.Handle(ctx, env, new(text), handle, options...)
	})
	return pluginrpc.NewServer(spec, registrar)
}

// call says how a call went.
func call(c pluginrpc.Client, what string, d time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var (
		answer text
		coded  *pluginrpc.Error
	)
	err := c.Call(ctx, say, wrapperspb.String(what), &answer)
	fmt.Printf("%s: %v; a code %v, a deadline %v\n", what, err, errors.As(err, &coded), errors.Is(err, context.DeadlineExceeded))
}

func main() {
	if len(os.Args) > 1 { // a host gives its plugins arguments
		pluginrpc.Main(newServer)
		return
	}
	plugin := pluginrpc.NewExecRunner(os.Getenv("PLUGIN"))
	first := pluginrpc.NewClient(plugin)
	for _, what := range []string{"fine", "fails", "killed", "slow", "fine"} {
		call(first, what, 2*time.Second)
	}
	second := pluginrpc.NewClient(plugin)
	call(second, "hurried", time.Nanosecond)
	call(second, "fine", 30*time.Second)
	call(second, "fine", 30*time.Second)
	call(first, "fine", 30*time.Second)
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
GOTOOLCHAIN=local go build -o finding .
go version
grep pluginrpc.com/pluginrpc go.mod
PLUGIN=$dir/finding timeout 120 ./finding | tee seen
cat > want <<'EOT'
fine: <nil>; a code false, a deadline false
fails: Failed with code aborted: too much; a code true, a deadline false
killed: Exited with code -1: signal: killed; a code false, a deadline false
slow: Exited with code -1: signal: killed; a code false, a deadline false
fine: <nil>; a code false, a deadline false
hurried: context deadline exceeded; a code false, a deadline true
fine: context deadline exceeded; a code false, a deadline true
fine: context deadline exceeded; a code false, a deadline true
fine: <nil>; a code false, a deadline false
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
