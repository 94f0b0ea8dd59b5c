#!/usr/bin/env bash
# Guess: a call without a deadline waits as long as its server works: a watch that has nothing to tell for some minutes stays open, and a unary call that
# takes long is answered in the end. For the transports that are built on fetch this holds in Node, where they run as well, as for the others.
# Seen: with @connectrpc/connect-web 2.3.0 on the fetch of Node 22.23.3, in Connect and in gRPC-Web, a stream ends after 300 s without a byte with unknown,
# "terminated", and a unary call with unknown, "fetch failed". That fetch has two limits of time, for the headers and between two pieces of the body.
# The code by which a caller decides whether to try again does not show them: they stand in the cause of the error's cause.
# @connectrpc/connect-node 2.3.0 over HTTP/1.1 and HTTP/2, and the fetch of Deno 2.9.6, wait. This takes six minutes.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
case "$(uname -m)" in aarch64) platform=linux-arm64 ;; *) platform=linux-x64 ;; esac
echo '{}' > package.json
npm install --silent --no-audit --no-fund --save-exact @connectrpc/{connect,connect-node,connect-web}@2.3.0 @bufbuild/protobuf@2.17.0 \
  "node-$platform@22.23.3" deno@2.9.6 > /dev/null 2>&1
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
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"
)

type empty = emptypb.Empty

// silent is ten seconds longer than fetch waits.
const silent = 310 * time.Second

func pause(ctx context.Context) error {
	select {
	case <-time.After(silent):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func main() {
	const one, watch = "/e.E/One", "/e.E/Watch"
	mux := http.NewServeMux()
	mux.Handle(one, connect.NewUnaryHandler(one, func(ctx context.Context, _ *connect.Request[empty]) (*connect.Response[empty], error) {
		return connect.NewResponse(&empty{}), pause(ctx)
	}))
	mux.Handle(watch, connect.NewServerStreamHandler(watch, func(ctx context.Context, _ *connect.Request[empty], s *connect.ServerStream[empty]) error {
		if err := s.Send(&empty{}); err != nil {
			return err
		}
		if err := pause(ctx); err != nil {
			return err
		}
		return s.Send(&empty{})
	}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	var both http.Protocols
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	fmt.Println(l.Addr())
	panic((&http.Server{Handler: mux, Protocols: &both}).Serve(l))
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
GOTOOLCHAIN=local go build -o serve .
./serve > address &
server=$!
until [ -s address ]; do sleep 0.1; done
cat > main.mjs <<'EOT'
import { createClient, Code } from '@connectrpc/connect';
import * as node from '@connectrpc/connect-node';
import * as web from '@connectrpc/connect-web';
import { create, createFileRegistry } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema, FileDescriptorSetSchema, file_google_protobuf_empty } from '@bufbuild/protobuf/wkt';
import { readFileSync } from 'node:fs';
import process from 'node:process';

const type = '.google.protobuf.Empty', baseUrl = 'http://' + readFileSync('address', 'utf8').trim();
const file = create(FileDescriptorProtoSchema, {
  name: 'e.proto', package: 'e', syntax: 'proto3', dependency: ['google/protobuf/empty.proto'],
  service: [{ name: 'E', method: [{ name: 'One', inputType: type, outputType: type }, { name: 'Watch', inputType: type, outputType: type, serverStreaming: true }] }],
});
const service = createFileRegistry(create(FileDescriptorSetSchema, { file: [file_google_protobuf_empty.proto, file] })).getService('e.E');
const why = (err) => [Code[err.code], err.rawMessage, err.cause?.cause?.name].filter(Boolean).join(', ');
async function watch(client) {
  let messages = 0;
  try {
    for await (const _ of client.watch({})) messages++;
  } catch (err) {
    return `${messages} message, ${why(err)}`;
  }
  return `${messages} messages`;
}

const deno = process.versions.deno !== undefined, runtime = deno ? 'Deno ' + process.versions.deno : 'Node ' + process.version;
const transports = { 'connect-web, Connect': web.createConnectTransport({ baseUrl }), 'connect-web, gRPC-Web': web.createGrpcWebTransport({ baseUrl }) };
if (!deno) {
  transports['connect-node, HTTP/1.1'] = node.createConnectTransport({ baseUrl, httpVersion: '1.1' });
  transports['connect-node, HTTP/2'] = node.createConnectTransport({ baseUrl, httpVersion: '2' });
}
const lines = await Promise.all(Object.entries(transports).map(async ([name, transport]) => {
  const client = createClient(service, transport);
  const [stream, unary] = await Promise.all([watch(client), client.one({}).then(() => 'answered', why)]);
  return `${runtime}, ${name}: stream ${stream}; unary ${unary}`;
}));
console.log(lines.join('\n'));
process.exit();
EOT
export DENO_DIR="$dir/deno" DENO_NO_UPDATE_CHECK=1 NODE_NO_WARNINGS=1
timeout 400 node_modules/.bin/deno run --allow-all main.mjs > deno.txt &
waiting=$!
timeout 400 "node_modules/node-$platform/bin/node" main.mjs > seen
wait "$waiting"
cat deno.txt >> seen
cat seen
cat > want <<'EOT'
Node v22.23.3, connect-web, Connect: stream 1 message, Unknown, terminated, BodyTimeoutError; unary Unknown, fetch failed, HeadersTimeoutError
Node v22.23.3, connect-web, gRPC-Web: stream 1 message, Unknown, terminated, BodyTimeoutError; unary Unknown, fetch failed, HeadersTimeoutError
Node v22.23.3, connect-node, HTTP/1.1: stream 2 messages; unary answered
Node v22.23.3, connect-node, HTTP/2: stream 2 messages; unary answered
Deno 2.9.6, connect-web, Connect: stream 2 messages; unary answered
Deno 2.9.6, connect-web, gRPC-Web: stream 2 messages; unary answered
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
