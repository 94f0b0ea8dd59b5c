#!/usr/bin/env bash
# Guess: a call whose metadata are larger than a Go server takes (http.Server.MaxHeaderBytes) fails alone, with status 431 or in gRPC with
# resource_exhausted, as one whose message is too large does; calls beside it on the connection go on.
# Seen: with the HTTP/2 server of net/http (its golang.org/x/net/http2, Go 1.26) and the caller @grpc/grpc-js 1.14.7, which sends what it is told
# to, that holds for one field more than is taken: it is alone, and its code is unknown. With a quarter more, or with one field that is longer than
# all may be together, the server ends the connection (PROTOCOL_ERROR, COMPRESSION_ERROR), and every call on it, such as a watch
# that has been open for long, fails as internal, "Received RST_STREAM with code 1" or 9. connectrpc.com/connect v1.21.1 as the caller keeps what
# the server says of its bound: the call fails alone, as unavailable, so that callers that try again do so for nothing.
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
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type text = wrapperspb.StringValue

const say, watch = "/test.Test/Say", "/test.Test/Watch"

// cases are fields of metadata: how many, and how many bytes each.
var cases = [][2]int{{15, 1000}, {16, 1000}, {20, 1000}, {1, 20000}}

func main() {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	if len(os.Args) > 1 {
		call(&http.Client{Transport: &http.Transport{Protocols: protocols}}, "http://127.0.0.1:"+os.Args[1])
		return
	}
	mux := http.NewServeMux()
	mux.Handle(say, connect.NewUnaryHandler(say, func(context.Context, *connect.Request[text]) (*connect.Response[text], error) {
		return connect.NewResponse(wrapperspb.String("said")), nil
	}))
	mux.Handle(watch, connect.NewServerStreamHandler(watch, func(ctx context.Context, _ *connect.Request[text], s *connect.ServerStream[text]) error {
		if err := s.Send(wrapperspb.String("watching")); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	s := http.Server{Handler: mux, MaxHeaderBytes: 16 << 10, Protocols: protocols}
	panic(s.Serve(l))
}

// call calls with metadata of each size, beside a watch.
func call(client connect.HTTPClient, base string) {
	for _, c := range cases {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		w, err := connect.NewClient[text, text](client, base+watch, connect.WithGRPC()).CallServerStream(ctx, connect.NewRequest(new(text)))
		if err != nil || !w.Receive() {
			panic(fmt.Sprint(err, w))
		}
		ended := make(chan error, 1)
		go func() { w.Receive(); ended <- w.Err() }()
		req := connect.NewRequest(new(text))
		for i := range c[0] {
			req.Header().Set(fmt.Sprintf("X-Field-%d", i), strings.Repeat("x", c[1]))
		}
		code := "ok"
		if _, err := connect.NewClient[text, text](client, base+say, connect.WithGRPC()).CallUnary(ctx, req); err != nil {
			code = connect.CodeOf(err).String()
		}
		beside := "goes on"
		select {
		case err := <-ended:
			beside = connect.CodeOf(err).String()
		case <-time.After(500 * time.Millisecond):
		}
		fmt.Printf("connect-go, %d of %d bytes: %s; a watch beside it: %s\n", c[0], c[1], code, beside)
		cancel()
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
GOTOOLCHAIN=local go build -o finding .
cat > main.mjs <<'EOT'
import grpc from '@grpc/grpc-js';

const client = new grpc.Client(`127.0.0.1:${process.argv[2]}`, grpc.credentials.createInsecure());
const same = (bytes) => bytes;
const nothing = Buffer.alloc(0);
const code = (e) => grpc.status[e.code].toLowerCase();
for (const [fields, size] of [[15, 1000], [16, 1000], [20, 1000], [1, 20000]]) {
  const watch = client.makeServerStreamRequest('/test.Test/Watch', same, same, nothing, new grpc.Metadata());
  let beside = 'goes on';
  watch.on('error', (e) => (beside = code(e)));
  await new Promise((done) => watch.on('data', done));
  const metadata = new grpc.Metadata();
  for (let i = 0; i < fields; i++) metadata.set(`x-field-${i}`, 'x'.repeat(size));
  const said = await new Promise((done) =>
    client.makeUnaryRequest('/test.Test/Say', same, same, nothing, metadata, { deadline: Date.now() + 10_000 }, (e) => done(e ? code(e) : 'ok')));
  await new Promise((done) => setTimeout(done, 500));
  console.log(`grpc-js, ${fields} of ${size} bytes: ${said}; a watch beside it: ${beside}`);
  watch.cancel();
}
client.close();
EOT
mkfifo port
./finding > port 2> log &
server=$!
read -r port < port
go version
grep -E 'connectrpc.com/connect ' go.mod
echo "node $(node --version), grpc-js $(node -p 'require("./node_modules/@grpc/grpc-js/package.json").version')"
node main.mjs "$port" | tee seen
./finding "$port" | tee -a seen
sed 's/.*connection error: /the server: /' log | tee -a seen
cat > want <<'EOT'
grpc-js, 15 of 1000 bytes: ok; a watch beside it: goes on
grpc-js, 16 of 1000 bytes: unknown; a watch beside it: goes on
grpc-js, 20 of 1000 bytes: internal; a watch beside it: internal
grpc-js, 1 of 20000 bytes: internal; a watch beside it: internal
connect-go, 15 of 1000 bytes: ok; a watch beside it: goes on
connect-go, 16 of 1000 bytes: unavailable; a watch beside it: goes on
connect-go, 20 of 1000 bytes: unavailable; a watch beside it: goes on
connect-go, 1 of 20000 bytes: unavailable; a watch beside it: goes on
the server: PROTOCOL_ERROR
the server: COMPRESSION_ERROR
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
