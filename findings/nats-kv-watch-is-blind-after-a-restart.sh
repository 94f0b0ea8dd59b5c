#!/usr/bin/env bash
# Guess: a watcher of a bucket of NATS's key-value store, as of a registry, goes on when the server was restarted and the client has its connection again,
# as a plain subscription does, and is told of all that was written meanwhile.
# Seen: with github.com/nats-io/nats.go v1.55.0 (jetstream) and github.com/nats-io/nats-server/v2 v2.15.3 a watcher is told nothing for more than ten
# seconds, here 20, after a restart that took less than one, though Put is answered at once, and a plain subscription to the bucket's subjects is told at
# once. The server has forgotten the watcher's consumer, and the client finds out by missed heartbeats; neither the watcher nor the connection's
# ErrorHandler says so. Then it is told of all. Where the bucket was in memory and is made again, the watcher asks for what comes after the revision that
# it had seen: having seen three it is never told of the first three values of the new bucket, and does not hear that others are gone.
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

func start(store string, port int) *server.Server {
	s := must(server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: store, NoSigs: true, NoLog: true}))
	go s.Start()
	if !s.ReadyForConnections(30 * time.Second) {
		panic("not ready")
	}
	return s
}

// seen is when a key was first told of, by a watcher and by a plain subscription.
type seen struct {
	how, key string
	at       time.Time
}

func watch(storage jetstream.StorageType) string {
	ctx := context.Background()
	store := must(os.MkdirTemp(".", "store"))
	s := start(store, server.RANDOM_PORT)
	var port int
	must(fmt.Sscanf(s.Addr().String(), "127.0.0.1:%d", &port))
	told := make(chan seen, 1000)
	conn := must(nats.Connect(s.ClientURL(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { told <- seen{"error", err.Error(), time.Now()} })))
	js := must(jetstream.New(conn))
	config := jetstream.KeyValueConfig{Bucket: "plugins", Storage: storage}
	bucket := must(js.CreateKeyValue(ctx, config))
	for _, key := range []string{"a", "b", "c"} {
		must(bucket.PutString(ctx, key, "before"))
	}
	watcher := must(bucket.WatchAll(ctx))
	for range 4 { // the three keys, and nil for their end
		<-watcher.Updates()
	}
	go func() {
		for update := range watcher.Updates() {
			told <- seen{"watcher", update.Key(), time.Now()}
		}
	}()
	must(conn.Subscribe("$KV.plugins.>", func(m *nats.Msg) {
		told <- seen{"subscription", strings.TrimPrefix(m.Subject, "$KV.plugins."), time.Now()}
	}))

	s.Shutdown()
	s.WaitForShutdown()
	s = start(store, port)
	defer s.Shutdown()
	for !conn.IsConnected() {
		time.Sleep(time.Millisecond)
	}
	begin := time.Now()
	bucket = must(js.CreateOrUpdateKeyValue(ctx, config))
	for _, key := range []string{"p", "q", "r", "s", "t"} {
		must(bucket.PutString(ctx, key, "after"))
	}
	written := time.Since(begin)

	keys := map[string][]string{}
	first := map[string]time.Duration{}
	for end := time.After(45 * time.Second); ; {
		select {
		case t := <-told:
			if len(keys[t.how]) == 0 {
				first[t.how] = t.at.Sub(begin)
			}
			keys[t.how] = append(keys[t.how], t.key)
			continue
		case <-end:
		}
		break
	}
	conn.Close()
	line := fmt.Sprintf("%v: written within five seconds: %v, errors: %d", storage, written < 5*time.Second, len(keys["error"]))
	for _, how := range []string{"subscription", "watcher"} {
		when := first[how].String()
		switch {
		case first[how] < 5*time.Second:
			when = "within five seconds"
		case first[how] > 10*time.Second:
			when = "after more than ten seconds"
		}
		line += fmt.Sprintf(", %s told of %s %s", how, strings.Join(keys[how], " "), when)
	}
	fmt.Fprintf(os.Stderr, "%v: first told after %v, the subscription after %v\n", storage, first["watcher"].Round(time.Second), first["subscription"].Round(time.Second))
	return line
}

func main() {
	lines := make(chan string)
	for _, storage := range []jetstream.StorageType{jetstream.FileStorage, jetstream.MemoryStorage} {
		go func() { lines <- watch(storage) }()
	}
	all := []string{<-lines, <-lines}
	slices.Sort(all)
	fmt.Println(strings.Join(all, "\n"))
	if !slices.Equal(all, []string{
		"File: written within five seconds: true, errors: 0, subscription told of p q r s t within five seconds, watcher told of p q r s t after more than ten seconds",
		"Memory: written within five seconds: true, errors: 0, subscription told of p q r s t within five seconds, watcher told of s t after more than ten seconds",
	}) {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/nats-io/nats.go github.com/nats-io/nats-server/v2
GOTOOLCHAIN=local timeout 180 go run .
