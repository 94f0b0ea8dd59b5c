#!/usr/bin/env bash
# Guess: a server stream that HAProxy ends because nothing came for "timeout server" fails for its caller with unavailable or
# deadline_exceeded, as a unary call does, which HAProxy answers with 504; the caller can tell it from an error of its own request, and retry.
# Seen: HAProxy 2.6.12 (Debian 12) ends the stream as if it were complete, in HTTP/2 with END_STREAM, without trailers and without a reset.
# Before a server of connect-go 1.21.1, @connectrpc/connect-node 2.3.0 makes invalid_argument of it in Connect, "missing EndStreamResponse",
# and internal in gRPC and gRPC-Web. connect-go and @grpc/grpc-js 1.14.7 say internal. The unary call, as silent, is unavailable for all.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
apt-get download haproxy=2.6.12-1+deb12u4 liblua5.3-0 libopentracing-c-wrapper0 libopentracing1 > /dev/null 2>&1
for package in *.deb; do dpkg-deb -x "$package" root; done
export LD_LIBRARY_PATH="$(echo root/usr/lib/*-linux-gnu)"
npm install --silent --no-audit --no-fund --no-save @connectrpc/connect@2.3.0 @connectrpc/connect-node@2.3.0 @bufbuild/protobuf@2.17.0 @grpc/grpc-js@1.14.7 > /dev/null 2>&1
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

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type text = wrapperspb.StringValue

func main() {
	var only http.Protocols
	only.SetUnencryptedHTTP2(true)
	if len(os.Args) > 1 {
		client := &http.Client{Transport: &http.Transport{Protocols: &only}}
		call(client, os.Args[1], "Connect", connect.WithClientOptions())
		call(client, os.Args[1], "gRPC", connect.WithGRPC())
		call(client, os.Args[1], "gRPC-Web", connect.WithGRPCWeb())
		return
	}
	mux := http.NewServeMux()
	mux.Handle("/e.Wait/One", connect.NewUnaryHandler("/e.Wait/One", func(ctx context.Context, _ *connect.Request[text]) (*connect.Response[text], error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}))
	mux.Handle("/e.Wait/Many", connect.NewServerStreamHandler("/e.Wait/Many", func(ctx context.Context, _ *connect.Request[text], s *connect.ServerStream[text]) error {
		if err := s.Send(wrapperspb.String("first")); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	panic((&http.Server{Handler: mux, Protocols: &only}).Serve(l))
}

func call(client *http.Client, addr, name string, protocol connect.ClientOption) {
	_, one := connect.NewClient[text, text](client, "http://"+addr+"/e.Wait/One", protocol).CallUnary(context.Background(), connect.NewRequest(&text{}))
	s, err := connect.NewClient[text, text](client, "http://"+addr+"/e.Wait/Many", protocol).CallServerStream(context.Background(), connect.NewRequest(&text{}))
	if err != nil {
		panic(err)
	}
	n := 0
	for s.Receive() {
		n++
	}
	fmt.Printf("connect-go, %s: unary %v, stream of %d %v\n", name, connect.CodeOf(one), n, connect.CodeOf(s.Err()))
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
GOTOOLCHAIN=local go build -o wait .
cat > main.js <<'EOT'
'use strict';
const { createConnectTransport, createGrpcTransport, createGrpcWebTransport } = require('@connectrpc/connect-node');
const grpc = require('@grpc/grpc-js');
const { createClient, Code } = require('@connectrpc/connect');
const { create, createFileRegistry } = require('@bufbuild/protobuf');
const { FileDescriptorProtoSchema, FileDescriptorSetSchema, file_google_protobuf_wrappers } = require('@bufbuild/protobuf/wkt');

const type = '.google.protobuf.StringValue';
const file = create(FileDescriptorProtoSchema, {
  name: 'e.proto', package: 'e', syntax: 'proto3', dependency: ['google/protobuf/wrappers.proto'],
  service: [{ name: 'Wait', method: [{ name: 'One', inputType: type, outputType: type }, { name: 'Many', inputType: type, outputType: type, serverStreaming: true }] }],
});
const wait = createFileRegistry(create(FileDescriptorSetSchema, { file: [file_google_protobuf_wrappers.proto, file] })).getService('e.Wait');
const name = (err) => Code[err.code].replace(/[A-Z]/g, (c, i) => (i ? '_' : '') + c.toLowerCase());
const raw = (b) => b;

(async () => {
  const baseUrl = 'http://' + process.argv[2];
  for (const [protocol, transport] of [['Connect', createConnectTransport], ['gRPC', createGrpcTransport], ['gRPC-Web', createGrpcWebTransport]]) {
    const client = createClient(wait, transport({ baseUrl, httpVersion: '2' }));
    let n = 0;
    const many = async () => { for await (const _ of client.many({})) n++; };
    const one = await client.one({}).then(() => 'ok', name), stream = await many().then(() => 'ok', name);
    console.log(`connect-node, ${protocol}: unary ${one}, stream of ${n} ${stream}`);
  }
  const client = new grpc.Client(process.argv[2], grpc.credentials.createInsecure());
  const code = (err) => grpc.status[err ? err.code : 0].toLowerCase();
  const one = await new Promise((done) => client.makeUnaryRequest('/e.Wait/One', raw, raw, Buffer.alloc(0), (err) => done(code(err))));
  let n = 0;
  const stream = await new Promise((done) => client.makeServerStreamRequest('/e.Wait/Many', raw, raw, Buffer.alloc(0)).on('data', () => n++).on('error', (err) => done(code(err))).on('end', () => done('ok')));
  console.log(`grpc-js, gRPC: unary ${one}, stream of ${n} ${stream}`);
  process.exit(0);
})();
EOT
./wait > address &
until [ -s address ]; do sleep 0.1; done
# A port that was free a moment ago, and again where another took it meanwhile.
for _ in 1 2 3 4 5; do
  port=$(node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close(); })')
  cat > haproxy.cfg <<EOT
defaults
  mode http
  timeout connect 5s
  timeout client 1m
  timeout server 1s
frontend front
  bind 127.0.0.1:$port proto h2
  default_backend back
backend back
  server wait $(cat address) proto h2
EOT
  root/usr/sbin/haproxy -db -f haproxy.cfg > haproxy.log 2>&1 &
  haproxy=$!
  until curl -s -o /dev/null --http2-prior-knowledge "http://127.0.0.1:$port/"; do
    kill -0 "$haproxy" 2> /dev/null || continue 2
    sleep 0.1
  done
  break
done
version=$(root/usr/sbin/haproxy -v)
echo "${version%%$'\n'*}"
echo "connect $(awk '/connectrpc/ { print $2; exit }' go.mod), node $(node --version)"
{
  timeout 60 ./wait "127.0.0.1:$port"
  timeout 60 node main.js "127.0.0.1:$port"
} 2> errors | tee seen
cat > want <<'EOT'
connect-go, Connect: unary unavailable, stream of 1 internal
connect-go, gRPC: unary unavailable, stream of 1 internal
connect-go, gRPC-Web: unary unavailable, stream of 1 internal
connect-node, Connect: unary unavailable, stream of 1 invalid_argument
connect-node, gRPC: unary unavailable, stream of 1 internal
connect-node, gRPC-Web: unary unavailable, stream of 1 internal
grpc-js, gRPC: unary unavailable, stream of 1 internal
EOT
cmp -s seen want || { cat errors; echo CHANGED; exit 1; }
