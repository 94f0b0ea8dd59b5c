#!/usr/bin/env bash
# Guess: a caller in gRPC whose service config has a retryPolicy tries again what a handler of connect-go ended at once with a code of that
# policy, as it does with a handler of gRPC-Go: the code is what the policy goes by, and gRPC-Go retries by itself whatever it is told to.
# Seen: of connectrpc.com/connect v1.21.1 on net/http (Go 1.26) neither gRPC-Go v1.85.0 nor @grpc/grpc-js 1.14.7 tries anything again, unary or
# server stream: the handler runs once and the caller gets unavailable. Of a server of gRPC-Go both try three times and succeed. A call may
# only be tried again as long as no headers came, and an error that shall be tried again has to come as one block, "Trailers-Only". connect-go
# cannot write that in gRPC, as net/http has no way to, and sends headers first. Interceptors that retry, which see the code alone, do.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @grpc/grpc-js@1.14.7 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	connectrpc.com/connect v1.21.1
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)
EOT
cat > policy.json <<'EOT'
{"methodConfig": [{"name": [{}], "retryPolicy": {
  "maxAttempts": 4, "initialBackoff": "0.01s", "maxBackoff": "0.01s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]
}}]}
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

type nothing = emptypb.Empty

const unary, stream = "/e.E/Unary", "/e.E/Stream"

//go:embed policy.json
var policy string

// ready fails twice, and then does not.
func ready(calls *atomic.Int64) bool { return calls.Add(1) > 2 }

func listen() net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	return l
}

// serve serves with connect-go, and with gRPC-Go. GET /runs tells on both how often a handler ran.
func serve() {
	var calls atomic.Int64
	refused := connect.NewError(connect.CodeUnavailable, errors.New("not yet"))
	mux := http.NewServeMux()
	mux.Handle(unary, connect.NewUnaryHandler(unary, func(context.Context, *connect.Request[nothing]) (*connect.Response[nothing], error) {
		if !ready(&calls) {
			return nil, refused
		}
		return connect.NewResponse(new(nothing)), nil
	}))
	mux.Handle(stream, connect.NewServerStreamHandler(stream, func(_ context.Context, _ *connect.Request[nothing], s *connect.ServerStream[nothing]) error {
		if !ready(&calls) {
			return refused
		}
		return s.Send(new(nothing))
	}))
	mux.HandleFunc("/runs", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, calls.Swap(0)) })
	both := new(http.Protocols)
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	c, g := listen(), listen()
	go (&http.Server{Handler: mux, Protocols: both}).Serve(c)
	fmt.Println(c.Addr(), g.Addr())
	panic(grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		if err := s.RecvMsg(new(nothing)); err != nil {
			return err
		}
		if !ready(&calls) {
			return status.Error(codes.Unavailable, "not yet")
		}
		return s.SendMsg(new(nothing))
	})).Serve(g))
}

func main() {
	if len(os.Args) == 1 {
		serve()
	}
	for i, name := range []string{"connect-go", "grpc-go"} {
		cc, err := grpc.NewClient("passthrough:///"+os.Args[i+1], grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultServiceConfig(policy))
		if err != nil {
			panic(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		fmt.Printf("grpc-go, unary at %s: %v", name, status.Code(cc.Invoke(ctx, unary, new(nothing), new(nothing))))
		fmt.Printf(", runs %s\n", runs())
		fmt.Printf("grpc-go, stream at %s: %v", name, status.Code(receive(ctx, cc)))
		fmt.Printf(", runs %s\n", runs())
		cancel()
	}
}

func receive(ctx context.Context, cc *grpc.ClientConn) error {
	s, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, stream)
	if err != nil {
		return err
	}
	if err := s.SendMsg(new(nothing)); err != nil {
		return err
	}
	s.CloseSend()
	return s.RecvMsg(new(nothing))
}

func runs() string {
	res, err := http.Get("http://" + os.Args[1] + "/runs")
	if err != nil {
		panic(err)
	}
	defer res.Body.Close()
	n, _ := io.ReadAll(res.Body)
	return string(n)
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
GOTOOLCHAIN=local go build -o finding .
cat > main.mjs <<'EOT'
import grpc from '@grpc/grpc-js';
import { readFileSync } from 'node:fs';

const same = (bytes) => bytes;
const options = () => ({ deadline: Date.now() + 10_000 });
const name = (code) => grpc.status[code];
const runs = async () => (await fetch(`http://${process.argv[2]}/runs`)).text();
for (const [server, address] of [['connect-go', process.argv[2]], ['grpc-go', process.argv[3]]]) {
  const client = new grpc.Client(address, grpc.credentials.createInsecure(), { 'grpc.service_config': readFileSync('policy.json', 'utf8') });
  const unary = await new Promise((done) =>
    client.makeUnaryRequest('/e.E/Unary', same, same, Buffer.alloc(0), new grpc.Metadata(), options(), (e) => done(e ? name(e.code) : 'OK')));
  console.log(`grpc-js, unary at ${server}: ${unary}, runs ${await runs()}`);
  const stream = await new Promise((done) =>
    client.makeServerStreamRequest('/e.E/Stream', same, same, Buffer.alloc(0), new grpc.Metadata(), options())
      .on('data', () => {}).on('error', () => {}).on('status', (s) => done(name(s.code))));
  console.log(`grpc-js, stream at ${server}: ${stream}, runs ${await runs()}`);
  client.close();
}
EOT
mkfifo addresses
./finding > addresses &
server=$!
read -r connect grpc < addresses
go version
grep -E '^	(connectrpc.com/connect|google.golang.org/grpc) ' go.mod
echo "node $(node --version), grpc-js $(node -p 'require("./node_modules/@grpc/grpc-js/package.json").version')"
timeout 60 ./finding "$connect" "$grpc" | tee seen
timeout 60 node main.mjs "$connect" "$grpc" | tee -a seen
cat > want <<'EOT'
grpc-go, unary at connect-go: Unavailable, runs 1
grpc-go, stream at connect-go: Unavailable, runs 1
grpc-go, unary at grpc-go: OK, runs 3
grpc-go, stream at grpc-go: OK, runs 3
grpc-js, unary at connect-go: UNAVAILABLE, runs 1
grpc-js, stream at connect-go: UNAVAILABLE, runs 1
grpc-js, unary at grpc-go: OK, runs 3
grpc-js, stream at grpc-go: OK, runs 3
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
