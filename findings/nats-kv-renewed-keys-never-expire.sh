#!/usr/bin/env bash
# Guess: a bucket of NATS's key-value store serves as a registry of who is alive: what was registered with a time to live goes when it is no longer renewed,
# however it is renewed, and whoever watches is told that it went, as of a key that was deleted.
# Seen: with github.com/nats-io/nats.go v1.55.0 (jetstream) and github.com/nats-io/nats-server/v2 v2.15.3: (1) where the time stands in the bucket's TTL, a
# key goes and no watcher is told, so that a list that is kept by watching keeps the dead. With LimitMarkerTTL set as well watchers are
# told. (2) Where each key has a time of its own (Create with KeyTTL), the first Put or Update takes it away: no error, and the key that was
# renewed once stays for good, while one that was never renewed goes. Neither of the two has an option for the time; it takes both the bucket's TTL and
# LimitMarkerTTL.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/nats-io/nats-server/v2 v2.15.3
	github.com/nats-io/nats.go v1.55.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// life is what became of three keys of a bucket: one that is not renewed, and two that are renewed each second, three times.
func life(js jetstream.JetStream, config jetstream.KeyValueConfig, own ...jetstream.KVCreateOpt) string {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	kv := must(js.CreateKeyValue(ctx, config))
	var mu sync.Mutex
	told := map[string]bool{}
	watcher := must(kv.WatchAll(ctx))
	go func() {
		for entry := range watcher.Updates() {
			if entry != nil && entry.Operation() != jetstream.KeyValuePut {
				mu.Lock()
				told[entry.Key()] = true
				mu.Unlock()
			}
		}
	}()
	for _, key := range []string{"left", "put"} {
		must(kv.Create(ctx, key, []byte("address"), own...))
	}
	revision := must(kv.Create(ctx, "update", []byte("address"), own...))
	for range 3 {
		time.Sleep(time.Second)
		must(kv.Put(ctx, "put", []byte("address")))
		revision = must(kv.Update(ctx, "update", []byte("address"), revision))
	}
	listed := func() []string {
		keys, err := kv.Keys(ctx)
		if err != nil && err != jetstream.ErrNoKeysFound {
			panic(err)
		}
		slices.Sort(keys)
		return keys
	}
	time.Sleep(500 * time.Millisecond)
	renewed := listed()
	time.Sleep(8 * time.Second)
	mu.Lock()
	defer mu.Unlock()
	var names []string
	for name := range told {
		names = append(names, name)
	}
	slices.Sort(names)
	return fmt.Sprintf("%s: while renewed %v, long after %v, told of %v", strings.ReplaceAll(config.Bucket, "_", " "), renewed, listed(), names)
}

func main() {
	s := must(server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: must(os.MkdirTemp(".", "store")), NoSigs: true}))
	go s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		panic("not ready")
	}
	conn := must(nats.Connect(s.ClientURL()))
	js := must(jetstream.New(conn))
	two, minute := 2*time.Second, time.Minute
	seen := make([]string, 3)
	var all sync.WaitGroup
	all.Go(func() { seen[0] = life(js, jetstream.KeyValueConfig{Bucket: "of_the_bucket", TTL: two}) })
	all.Go(func() { seen[1] = life(js, jetstream.KeyValueConfig{Bucket: "of_the_bucket_with_markers", TTL: two, LimitMarkerTTL: minute}) })
	all.Go(func() { seen[2] = life(js, jetstream.KeyValueConfig{Bucket: "of_the_key", LimitMarkerTTL: minute}, jetstream.KeyTTL(two)) })
	all.Wait()
	want := []string{
		"of the bucket: while renewed [put update], long after [], told of []",
		"of the bucket with markers: while renewed [put update], long after [], told of [left put update]",
		"of the key: while renewed [put update], long after [put update], told of [left]",
	}
	for _, line := range seen {
		fmt.Println(line)
	}
	conn.Close()
	s.Shutdown()
	if !slices.Equal(seen, want) {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/nats-io/nats.go github.com/nats-io/nats-server/v2
GOTOOLCHAIN=local go build -o finding .
timeout 120 ./finding
