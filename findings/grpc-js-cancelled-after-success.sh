#!/usr/bin/env bash
# Guess: a handler of @grpc/grpc-js gets the event 'cancelled', and finds call.cancelled set, when its caller
# has cancelled the call, or its deadline has passed; not when the call ended well.
# Seen: 1.14.7 emits 'cancelled', and has set call.cancelled, for every call that ended well too, in all four
# kinds, after the caller got status 0. A handler that rolls something back there, or
# counts, does so for each success. It has to remember by itself that it has answered.
# Callers here: grpc-js, and gRPC-Go 1.85.0 for the unary kind.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @grpc/grpc-js@1.14.7 > /dev/null 2>&1
mkdir go
cat > go/go.mod <<'EOF'
module finding

go 1.26.0

require (
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)
EOF
cat > go/main.go <<'EOF'
package main

import (
	"context"
	"fmt"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

func main() {
	conn, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	err = conn.Invoke(context.Background(), "/e.Echo/Unary", &emptypb.Empty{}, &emptypb.Empty{})
	fmt.Println("gRPC-Go", grpc.Version, "status", int(status.Code(err)))
}
EOF
(cd go && GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1 && GOTOOLCHAIN=local go build -o ../caller .)
cat > main.js <<'EOF'
'use strict';
const { execFile } = require('node:child_process');
const grpc = require('@grpc/grpc-js');
console.log('node', process.version, 'grpc-js', require('@grpc/grpc-js/package.json').version);

const raw = (b) => b;
const method = (name, requestStream, responseStream) => ({
  path: '/e.Echo/' + name, requestStream, responseStream,
  requestSerialize: raw, requestDeserialize: raw, responseSerialize: raw, responseDeserialize: raw,
});
const cancelled = [];
const watch = (call, kind) => call.on('cancelled', () => cancelled.push(`${kind} ${call.cancelled}`));
const server = new grpc.Server();
server.addService({
  Unary: method('Unary', false, false), Server: method('Server', false, true),
  Client: method('Client', true, false), Bidi: method('Bidi', true, true),
}, {
  Unary(call, answer) { watch(call, 'unary'); answer(null, Buffer.alloc(0)); },
  Server(call) { watch(call, 'server'); call.write(Buffer.alloc(0)); call.end(); },
  Client(call, answer) { watch(call, 'client'); call.on('data', () => {}).on('end', () => answer(null, Buffer.alloc(0))); },
  Bidi(call) { watch(call, 'bidi'); call.on('data', (m) => call.write(m)).on('end', () => call.end()); },
});

server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), async (_, port) => {
  const client = new grpc.Client('127.0.0.1:' + port, grpc.credentials.createInsecure());
  const ended = (call) => new Promise((done) => call.on('data', () => {}).on('status', (s) => done(s.code)));
  const statuses = [];
  statuses.push(await new Promise((done) => client.makeUnaryRequest('/e.Echo/Unary', raw, raw, Buffer.alloc(0), () => {})
    .on('status', (s) => done(s.code))));
  statuses.push(await ended(client.makeServerStreamRequest('/e.Echo/Server', raw, raw, Buffer.alloc(0))));
  const up = client.makeClientStreamRequest('/e.Echo/Client', raw, raw, () => {});
  up.write(Buffer.alloc(0));
  up.end();
  statuses.push(await new Promise((done) => up.on('status', (s) => done(s.code))));
  const both = client.makeBidiStreamRequest('/e.Echo/Bidi', raw, raw);
  both.write(Buffer.alloc(0));
  both.end();
  statuses.push(await ended(both));
  const go = await new Promise((done) => execFile('./caller', ['127.0.0.1:' + port], (err, out) => done(err ? String(err) : out.trim())));
  await new Promise((done) => setTimeout(done, 300));
  console.log('statuses at the callers:', statuses.join(' '), '|', go);
  console.log("events 'cancelled' at the server, with call.cancelled:", cancelled.join(', '));
  const want = 'unary true, server true, client true, bidi true, unary true';
  const same = cancelled.join(', ') === want && statuses.every((s) => s === 0) && go.endsWith('status 0');
  if (!same) console.log('CHANGED, was:', want);
  process.exit(same ? 0 : 1);
});
EOF
timeout 60 node main.js
