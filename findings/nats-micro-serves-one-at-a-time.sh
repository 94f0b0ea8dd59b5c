#!/usr/bin/env bash
# Guess: an endpoint of a NATS service (micro) serves requests at the same time, as handlers of net/http and gRPC do; one of two instances that is busy
# leaves requests to the other; an answer that is an error is an error for the caller, and is counted; Stop is done when what came before it is.
# Seen: with github.com/nats-io/nats.go v1.55.0 (micro) and github.com/nats-io/nats-server/v2 v2.15.3 an endpoint handles one request after the other: four
# that take 300 ms take 1.2 s, while another endpoint of the service answers. The server deals requests out by chance, busy or not, so that some of 20
# wait for each other at a slow instance while a fast one is idle. A handler that goes on in a goroutine, which mends that, falls out of the statistics:
# no error of it is counted, and no time. Request returns no error for an answer that is one; it stands in a header. Stop returns at once, and
# where the connection is closed behind it, requests that had come get no answer, only their callers' timeout; with Drain in place of Close they do.
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
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

const slow = 300 * time.Millisecond

var (
	url    string
	caller *nats.Conn
	holds  = true
)

// service returns an instance with one endpoint for each handler.
func service(handlers map[string]micro.HandlerFunc) (micro.Service, *nats.Conn) {
	conn := must(nats.Connect(url))
	s := must(micro.AddService(conn, micro.Config{Name: "plugin", Version: "1.0.0"}))
	for name, handle := range handlers {
		if err := s.AddEndpoint(name, handle); err != nil {
			panic(err)
		}
	}
	return s, conn
}

// requests makes n at once, and returns how many were answered, and how long each took.
func requests(name string, n int, timeout time.Duration) (answered int64, took []time.Duration) {
	took = make([]time.Duration, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			begin := time.Now()
			if _, err := caller.Request(name, nil, timeout); err == nil {
				atomic.AddInt64(&answered, 1)
			}
			took[i] = time.Since(begin)
		})
	}
	all.Wait()
	return answered, took
}

func say(as bool, format string, args ...any) {
	fmt.Printf(format+"\n", args...)
	holds = holds && as
}

func main() {
	s := must(server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true}))
	go s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		panic("no server")
	}
	url = s.ClientURL()
	caller = must(nats.Connect(url))
	respond := func(r micro.Request) { r.Respond(nil) }
	respondLate := func(r micro.Request) { time.Sleep(slow); r.Respond(nil) }
	fail := func(r micro.Request) { time.Sleep(slow); r.Error("500", "no room", nil) }
	one, _ := service(map[string]micro.HandlerFunc{
		"late": respondLate, "other": respond, "fail": fail, "failLater": func(r micro.Request) { go fail(r) },
	})

	begin := time.Now()
	done := make(chan bool)
	go func() { requests("late", 4, 10*time.Second); close(done) }()
	time.Sleep(50 * time.Millisecond)
	other := time.Now()
	must(caller.Request("other", nil, 10*time.Second))
	otherTook := time.Since(other)
	<-done
	say(time.Since(begin) >= 4*slow && otherTook < slow, "four at once: %v, another endpoint meanwhile: %v", time.Since(begin).Round(slow), otherTook.Round(slow))

	for _, name := range []string{"fail", "failLater"} {
		answer, err := caller.Request(name, nil, 10*time.Second)
		say(err == nil && answer.Header.Get(micro.ErrorCodeHeader) == "500", "%s: error %v, header %q", name, err, answer.Header.Get(micro.ErrorCodeHeader))
	}
	time.Sleep(100 * time.Millisecond)
	for _, e := range one.Stats().Endpoints {
		switch e.Name {
		case "fail":
			say(e.NumRequests == 1 && e.NumErrors == 1 && e.ProcessingTime >= slow, "%s: %d request, %d error, %v", e.Name, e.NumRequests, e.NumErrors, e.ProcessingTime.Round(slow))
		case "failLater":
			say(e.NumRequests == 1 && e.NumErrors == 0 && e.ProcessingTime < slow/3, "%s: %d request, %d error, %v", e.Name, e.NumRequests, e.NumErrors, e.ProcessingTime.Round(slow))
		}
	}

	var fast atomic.Int64
	service(map[string]micro.HandlerFunc{"shared": func(r micro.Request) { fast.Add(1); r.Respond(nil) }})
	service(map[string]micro.HandlerFunc{"shared": respondLate})
	time.Sleep(100 * time.Millisecond)
	_, took := requests("shared", 20, 20*time.Second)
	var longest time.Duration
	for _, t := range took {
		longest = max(longest, t)
	}
	say(fast.Load() < 20 && longest >= 2*slow, "20 at once, the fast instance had some: %t, the last of the others waited more than 600 ms: %t", fast.Load() > 0, longest >= 2*slow)

	for _, end := range []string{"Close", "Drain"} {
		instance, conn := service(map[string]micro.HandlerFunc{end: respondLate})
		time.Sleep(100 * time.Millisecond)
		result := make(chan int64)
		go func() { n, _ := requests(end, 5, 4*time.Second); result <- n }()
		time.Sleep(slow / 3)
		begin := time.Now()
		err := instance.Stop()
		stop := time.Since(begin)
		if end == "Close" {
			conn.Close()
		} else if err := conn.Drain(); err != nil {
			panic(err)
		}
		answered := <-result
		say(err == nil && stop < slow/3 && (answered == 5) == (end == "Drain"), "Stop and %s: %v, at once %t, answered %d of 5", end, err, stop < slow/3, answered)
	}
	if !holds {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/nats-io/nats.go github.com/nats-io/nats-server/v2
GOTOOLCHAIN=local timeout 120 go run .
