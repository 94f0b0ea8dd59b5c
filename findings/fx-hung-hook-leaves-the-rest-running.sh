#!/usr/bin/env bash
# Guess: an OnStop hook of fx that does not end in time costs the application that hook: when the stop timeout has passed, or when the hook, whose context
# ended, has returned an error, the hooks of what was started before it run: "all those hooks are executed, even if some fail", says the documentation of
# Stop.
# Seen: with go.uber.org/fx v1.24.0 the hooks behind it are not called at all, whether it returns when its context ends or later. Stop returns "context
# deadline exceeded" as soon as the time is up, which is one time for all hooks together, and says of no hook that it was left out. So where a database that
# cannot be reached is closed first, a server or a host that was started before it is neither drained nor told. A hook that returns an error in time, or keeps
# to a shorter time of its own, leaves the others theirs.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require go.uber.org/fx v1.24.0
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/fx"
)

// stop starts three, of which the middle one stops as it is told to, and says what was stopped.
func stop(how string, middle func(context.Context) error) string {
	var mu sync.Mutex
	var stopped []string
	hook := func(name string, onStop func(context.Context) error) fx.Option {
		return fx.Invoke(func(l fx.Lifecycle) {
			l.Append(fx.Hook{OnStop: func(ctx context.Context) error {
				mu.Lock()
				stopped = append(stopped, name)
				mu.Unlock()
				return onStop(ctx)
			}})
		})
	}
	at := func(context.Context) error { return nil }
	app := fx.New(fx.NopLogger, hook("server", at), hook("database", middle), hook("client", at))
	if err := app.Start(context.Background()); err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := app.Stop(ctx)
	time.Sleep(2 * time.Second) // until the slowest has returned, and longer
	mu.Lock()
	defer mu.Unlock()
	return fmt.Sprintf("the database %s: stopped [%s], Stop: %v", how, strings.Join(stopped, " "), err)
}

func main() {
	seen := []string{
		stop("fails", func(context.Context) error { return errors.New("no connection") }),
		stop("returns when its context ends", func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}),
		stop("returns later", func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(time.Second)
			return nil
		}),
		stop("has a shorter time of its own", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
			defer cancel()
			<-ctx.Done()
			return ctx.Err()
		}),
	}
	want := []string{
		"the database fails: stopped [client database server], Stop: no connection",
		"the database returns when its context ends: stopped [client database], Stop: context deadline exceeded",
		"the database returns later: stopped [client database], Stop: context deadline exceeded",
		"the database has a shorter time of its own: stopped [client database server], Stop: context deadline exceeded",
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
go list -m go.uber.org/fx
GOTOOLCHAIN=local timeout 120 go run .
