#!/usr/bin/env bash
# Guess: one service config of gRPC, which a name's TXT record or a program's options give to clients, means the same in each language: timeouts, hedging,
# waiting and bounds are part of its schema, and a client that has not one of them says so.
# Seen: (1) a timeout of a method is cut to whole seconds in @grpc/grpc-js 1.14.7 (npm): with "0.9s" each call fails at once with DEADLINE_EXCEEDED, "after
# 0.00Xs", and is not sent, and with "1.9s" a call that takes 1.4 s fails after one; google.golang.org/grpc v1.85.0 does what it says. (2) waitForReady and
# maxRequestMessageBytes count in Go alone: where nobody listens grpc-js fails at once, and what is too large is sent. (3) A hedgingPolicy counts in
# grpc-js alone: of one call that takes 0.8 s the server has three there, and one of Go's. Neither says a word of what it does not do. A retryPolicy is
# obeyed by both, with five attempts where seven are asked for.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @grpc/grpc-js@1.14.7 > /dev/null 2>&1
cat > config.json <<'EOT'
{"methodConfig": [
  {"name": [{"service": "e.E", "method": "Short"}], "timeout": "0.9s"},
  {"name": [{"service": "e.E", "method": "Half"}], "timeout": "1.9s"},
  {"name": [{"service": "e.E", "method": "Whole"}], "timeout": "2s"},
  {"name": [{"service": "e.E", "method": "Wait"}], "waitForReady": true},
  {"name": [{"service": "e.E", "method": "Large"}], "maxRequestMessageBytes": 100},
  {"name": [{"service": "e.E", "method": "Hedge"}],
   "hedgingPolicy": {"maxAttempts": 3, "hedgingDelay": "0.1s", "nonFatalStatusCodes": ["UNAVAILABLE"]}},
  {"name": [{"service": "e.E", "method": "Retry"}],
   "retryPolicy": {"maxAttempts": 7, "initialBackoff": "0.01s", "maxBackoff": "0.1s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}
]}
EOT
cat > main.js <<'EOT'
'use strict';
const grpc = require('@grpc/grpc-js');
const config = require('node:fs').readFileSync('config.json', 'utf8');
const [live, dead, ...methods] = process.argv.slice(2);
const same = (bytes) => bytes;
const dial = (address) => new grpc.Client(address, grpc.credentials.createInsecure(), { 'grpc.service_config': config });
const conn = dial(live), none = dial(dead);
const message = Buffer.concat([Buffer.from([0x0a, 0xc8, 0x01]), Buffer.alloc(200)]);
(async () => {
  for (const method of methods) {
    await new Promise((done) => {
      (method === 'Wait' ? none : conn).makeUnaryRequest('/e.E/' + method, same, same, message, { deadline: Date.now() + 4000 }, (error) => {
        console.log(method, error ? grpc.status[error.code] : 'OK', error?.details ?? '');
        done();
      });
    });
  }
  conn.close();
  none.close();
})();
EOT
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
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

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

// takes is how long the server works at a method's call.
var takes = map[string]time.Duration{"Short": 100 * time.Millisecond, "Half": 1400 * time.Millisecond, "Whole": 1200 * time.Millisecond, "Hedge": 800 * time.Millisecond}

// want has the code and how many calls the server had, by method: Go's, Node's.
var want = [][3]string{
	{"Short", "OK 1", "DEADLINE_EXCEEDED 0"},
	{"Half", "OK 1", "DEADLINE_EXCEEDED 1"},
	{"Whole", "OK 1", "OK 1"},
	{"Wait", "DEADLINE_EXCEEDED 0", "UNAVAILABLE 0"},
	{"Large", "RESOURCE_EXHAUSTED 0", "OK 1"},
	{"Hedge", "OK 1", "OK 3"},
	{"Retry", "UNAVAILABLE 5", "UNAVAILABLE 5"},
}

func main() {
	var mu sync.Mutex
	calls := map[string]int{}
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		path, _ := grpc.MethodFromServerStream(s)
		method := strings.TrimPrefix(path, "/e.E/")
		var in wrapperspb.BytesValue
		if err := s.RecvMsg(&in); err != nil {
			return err
		}
		mu.Lock()
		calls[method]++
		mu.Unlock()
		if method == "Retry" {
			return status.Error(codes.Unavailable, "not yet")
		}
		select {
		case <-time.After(takes[method]):
			return s.SendMsg(&in)
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}))
	l, dead := must(net.Listen("tcp", "127.0.0.1:0")), must(net.Listen("tcp", "127.0.0.1:0"))
	dead.Close()
	go server.Serve(l)
	had := func(method string) int {
		mu.Lock()
		defer mu.Unlock()
		n := calls[method]
		delete(calls, method)
		return n
	}
	config := string(must(os.ReadFile("config.json")))
	seen := map[string]string{}
	names := []string{}
	for _, w := range want {
		address := l.Addr().String()
		if w[0] == "Wait" {
			address = dead.Addr().String()
		}
		conn := must(grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultServiceConfig(config)))
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		err := conn.Invoke(ctx, "/e.E/"+w[0], wrapperspb.Bytes(make([]byte, 200)), &wrapperspb.BytesValue{})
		cancel()
		conn.Close()
		code := map[codes.Code]string{codes.OK: "OK", codes.DeadlineExceeded: "DEADLINE_EXCEEDED", codes.ResourceExhausted: "RESOURCE_EXHAUSTED", codes.Unavailable: "UNAVAILABLE"}[status.Code(err)]
		seen["Go "+w[0]] = fmt.Sprint(code, " ", had(w[0]))
		fmt.Printf("Go, %s: %s %v\n", w[0], seen["Go "+w[0]], err)
		names = append(names, w[0])
	}
	cmd := exec.Command("node", append([]string{"main.js", l.Addr().String(), dead.Addr().String()}, names...)...)
	cmd.Stderr = os.Stderr
	out := must(cmd.StdoutPipe())
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		method, rest, _ := strings.Cut(lines.Text(), " ")
		code, details, _ := strings.Cut(rest, " ")
		if code == "CANCELLED" { // the server was told the deadline, and may be the first to end the call
			code = "DEADLINE_EXCEEDED"
		}
		seen["Node "+method] = fmt.Sprint(code, " ", had(method))
		fmt.Printf("Node, %s: %s %s\n", method, seen["Node "+method], details)
	}
	for _, w := range want {
		if seen["Go "+w[0]] != w[1] || seen["Node "+w[0]] != w[2] {
			fmt.Println("CHANGED:", w[0])
			os.Exit(1)
		}
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m google.golang.org/grpc
node -p "'grpc-js ' + require('@grpc/grpc-js/package.json').version"
GOTOOLCHAIN=local go build -o finding .
timeout 120 ./finding
