#!/usr/bin/env bash
# Guess: a supervisor of suture that looks after many plugins restarts each of them for itself: one that fails at once and always, as without its
# configuration, is tried less and less often, and another that fails once is restarted at once.
# Seen: with github.com/thejerf/suture/v4 v4.0.6 failures count for the supervisor: after six of one service, which took a moment, it starts none of its
# services again until about 15 s have passed (FailureBackoff, with a random part). A service that panics once in that time waits with the failing one,
# though it never failed before. Then all are started, and it begins anew. What is added meanwhile is started at once. Where each service has a supervisor
# of its own below the first one, the second is restarted at once.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/thejerf/suture/v4 v4.0.6
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thejerf/suture/v4"
)

type service func(context.Context) error

func (s service) Serve(ctx context.Context) error { return s(ctx) }

// backoff is suture's own, FailureBackoff as it comes.
const backoff = 15 * time.Second

var mu sync.Mutex

// restart says after how long a service that panics once runs again beside one that always fails, how often that one ran, and whether one that is added
// meanwhile was started at once.
func restart(each bool) (again time.Duration, failed int64, added bool) {
	quiet := suture.Spec{EventHook: func(suture.Event) {}}
	top := suture.New("plugins", quiet)
	add := func(s service) {
		if !each {
			top.Add(s)
			return
		}
		own := suture.New("plugin", quiet)
		own.Add(s)
		top.Add(own)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*backoff)
	defer cancel()
	var fails, runs atomic.Int64
	var ended time.Time
	back := make(chan time.Duration, 1)
	add(func(context.Context) error { fails.Add(1); return errors.New("no configuration") })
	add(func(ctx context.Context) error {
		if runs.Add(1) == 1 {
			time.Sleep(time.Second)
			mu.Lock()
			ended = time.Now()
			mu.Unlock()
			panic("once")
		}
		mu.Lock()
		back <- time.Since(ended)
		mu.Unlock()
		<-ctx.Done()
		return ctx.Err()
	})
	done := top.ServeBackground(ctx)
	time.Sleep(2 * time.Second)
	late := make(chan bool)
	add(func(ctx context.Context) error { close(late); <-ctx.Done(); return ctx.Err() })
	select {
	case <-late:
		added = true
	case <-time.After(5 * time.Second):
	}
	select {
	case again = <-back:
	case <-ctx.Done():
		again = 2 * backoff
	}
	failed = fails.Load()
	cancel()
	<-done
	return again, failed, added
}

func main() {
	holds := true
	for _, each := range []bool{false, true} {
		again, failed, added := restart(each)
		waits := again > backoff/2
		fmt.Printf("a supervisor for each %t: the one that panicked once waits with the other %t, which ran %d times; one that is added is started at once %t\n", each, waits, failed, added)
		holds = holds && waits == !each && added && failed >= 6
	}
	if !holds {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/thejerf/suture/v4
GOTOOLCHAIN=local go build -o finding .
timeout 120 ./finding
