#!/usr/bin/env bash
# Guess: a call of a plugin in extism's Go SDK that is given a context ends with it; one that fails fails alone, whether its time was up, it
# panicked or it ended itself, or the plugin is gone in each of these cases alike; a plugin that ended itself, or returned other than 0, is an error.
# Seen: with github.com/extism/go-sdk v1.7.1 (wazero v1.9.0) and a plugin in Go (GOOS=wasip1, github.com/extism/go-pdk v1.1.3) the context's deadline
# ends a call only where the manifest has a timeout, too; without one CallWithContext returns when the plugin does, and succeeds. A call that was
# ended is the plugin's last: each later one fails with "module is closed". os.Exit(0) ends it as well, but that call has no error, an empty output
# and the status of success. After a panic, which ends any other program in Go, the same instance goes on, with its variables as they were in
# the middle of the call: a mutex that was held stays so. A function that returns 7 and says no text is no error, either. And time.Now() is of the
# first of January 2022, and moves a little with each look at it, as the SDK leaves wazero's clock as it comes, which is none.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/extism/go-pdk v1.1.3
	github.com/extism/go-sdk v1.7.1
)
EOT
mkdir plugin
cat > plugin/main.go <<'EOT'
package main

import (
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/extism/go-pdk"
)

var (
	mu    sync.Mutex
	calls int
)

// busy is the host's: whether the call is to go on.
//
//go:wasmimport extism:host/user busy
func busy() int32

//go:wasmexport call
func call() int32 {
	if !mu.TryLock() {
		pdk.OutputString("locked since an earlier call")
		return 0
	}
	calls++
	switch pdk.InputString() {
	case "spin":
		for busy() != 0 {
		}
	case "panic":
		panic("oh")
	case "exit":
		os.Exit(0)
	case "today":
		mu.Unlock()
		pdk.OutputString(time.Now().UTC().Format(time.DateOnly))
		return 0
	case "seven":
		mu.Unlock()
		return 7
	case "error":
		mu.Unlock()
		pdk.SetErrorString("too much")
		return 1
	}
	mu.Unlock()
	pdk.OutputString("call " + strconv.Itoa(calls))
	return 0
}

func main() {}
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	extism "github.com/extism/go-sdk"
)

func main() {
	for _, c := range []struct {
		what     string
		timeout  uint64 // of the manifest, in milliseconds
		deadline time.Duration
	}{
		{"fine", 0, time.Minute},
		{"error", 0, time.Minute},
		{"seven", 0, time.Minute},
		{"panic", 0, time.Minute},
		{"exit", 0, time.Minute},
		{"today", 0, time.Minute},
		{"spin", 0, 500 * time.Millisecond},
		{"spin", 60_000, 500 * time.Millisecond},
		{"spin", 500, time.Minute},
	} {
		m := extism.Manifest{Wasm: []extism.Wasm{extism.WasmFile{Path: "plugin.wasm"}}, Timeout: c.timeout}
		p, err := extism.NewPlugin(context.Background(), m, extism.PluginConfig{EnableWasi: true}, []extism.HostFunction{busyFor(3 * time.Second)})
		if err != nil {
			panic(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), c.deadline)
		status, out, err := p.CallWithContext(ctx, "call", []byte(c.what))
		fmt.Printf("%s, timeout %d ms, deadline %v: %d %q %s\n", c.what, c.timeout, c.deadline, status, out, first(err))
		cancel()
		status, out, err = p.Call("call", []byte("fine"))
		fmt.Printf("  the next call: %d %q %s\n", status, out, first(err))
		p.Close(context.Background())
	}
}

// busyFor is a function of the host's that is not 0 until a time after it was asked first.
func busyFor(d time.Duration) extism.HostFunction {
	var first time.Time
	f := extism.NewHostFunctionWithStack("busy", func(_ context.Context, _ *extism.CurrentPlugin, stack []uint64) {
		if first.IsZero() {
			first = time.Now()
		}
		stack[0] = 0
		if time.Since(first) < d {
			stack[0] = 1
		}
	}, nil, []extism.ValueType{extism.ValueTypeI32})
	f.SetNamespace("extism:host/user")
	return f
}

// first is the first line of what an error says: those below are of the plugin's stack.
func first(err error) string {
	if err == nil {
		return "no error"
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
GOTOOLCHAIN=local GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o plugin.wasm ./plugin
go version
grep -E 'extism/go-|wazero' go.mod
GOTOOLCHAIN=local go build -o finding .
timeout 60 ./finding | tee seen
cat > want <<'EOT'
fine, timeout 0 ms, deadline 1m0s: 0 "call 1" no error
  the next call: 0 "call 2" no error
error, timeout 0 ms, deadline 1m0s: 1 "" too much
  the next call: 0 "call 2" no error
seven, timeout 0 ms, deadline 1m0s: 7 "" no error
  the next call: 0 "call 2" no error
panic, timeout 0 ms, deadline 1m0s: 1 "" wasm error: unreachable
  the next call: 0 "locked since an earlier call" no error
exit, timeout 0 ms, deadline 1m0s: 0 "" no error
  the next call: 0 "" module is closed
today, timeout 0 ms, deadline 1m0s: 0 "2022-01-01" no error
  the next call: 0 "call 2" no error
spin, timeout 0 ms, deadline 500ms: 0 "call 1" no error
  the next call: 0 "call 2" no error
spin, timeout 60000 ms, deadline 500ms: 4026531839 "" module closed with context deadline exceeded
  the next call: 0 "" module is closed
spin, timeout 500 ms, deadline 1m0s: 4026531839 "" module closed with context deadline exceeded
  the next call: 0 "" module is closed
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
