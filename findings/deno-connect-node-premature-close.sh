#!/usr/bin/env bash
# Guess: @connectrpc/connect-node, which is built on node:http2 alone, calls services on Deno as on Node: node:http2 is among what Deno
# supports, and grpc-js works there.
# Seen: with connect-node 2.3.0 on Deno 2.9.6 as the caller over HTTP/2, all messages of a server stream arrive, and
# then many of the streams, often most, end with unknown, "Premature close", in Connect, gRPC and gRPC-Web alike, though the server, a handler of
# connect-go 1.21.1, ended them well. In gRPC that also takes the place of an error of the handler, so that its code is lost. Unary calls of
# gRPC-Web fail so, too; those of Connect and of gRPC end well. On Node and on Bun 1.4.5 every call ends as the server ended it.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
echo '{}' > package.json # where Deno looks for what a program may import
npm install --silent --no-audit --no-fund --save-exact @connectrpc/connect@2.3.0 @connectrpc/connect-node@2.3.0 @bufbuild/protobuf@2.17.0 deno@2.9.6 bun@1.4.5 > /dev/null 2>&1
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
	"errors"
	"fmt"
	"net"
	"net/http"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type text = wrapperspb.StringValue

func main() {
	mux := http.NewServeMux()
	mux.Handle("/e.Echo/One", connect.NewUnaryHandler("/e.Echo/One", func(_ context.Context, r *connect.Request[text]) (*connect.Response[text], error) {
		return connect.NewResponse(r.Msg), nil
	}))
	mux.Handle("/e.Echo/Many", connect.NewServerStreamHandler("/e.Echo/Many", func(_ context.Context, r *connect.Request[text], s *connect.ServerStream[text]) error {
		for range 10 {
			if err := s.Send(r.Msg); err != nil {
				return err
			}
		}
		if r.Msg.GetValue() == "fail" {
			return connect.NewError(connect.CodeFailedPrecondition, errors.New("as asked"))
		}
		return nil
	}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	var only http.Protocols
	only.SetUnencryptedHTTP2(true)
	fmt.Println(l.Addr())
	panic((&http.Server{Handler: mux, Protocols: &only}).Serve(l))
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
GOTOOLCHAIN=local go build -o echo .
./echo > address &
server=$!
until [ -s address ]; do sleep 0.1; done
cat > main.mjs <<'EOT'
import { readFileSync } from 'node:fs';
import process from 'node:process';
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from '@connectrpc/connect-node';
import { createClient, Code } from '@connectrpc/connect';
import { create, createFileRegistry } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema, FileDescriptorSetSchema, file_google_protobuf_wrappers } from '@bufbuild/protobuf/wkt';

const type = '.google.protobuf.StringValue';
const file = create(FileDescriptorProtoSchema, {
  name: 'e.proto', package: 'e', syntax: 'proto3', dependency: ['google/protobuf/wrappers.proto'],
  service: [{ name: 'Echo', method: [{ name: 'One', inputType: type, outputType: type }, { name: 'Many', inputType: type, outputType: type, serverStreaming: true }] }],
});
const echo = createFileRegistry(create(FileDescriptorSetSchema, { file: [file_google_protobuf_wrappers.proto, file] })).getService('e.Echo');
const name = (err) => `${Code[err.code]}: ${err.rawMessage}`;
const rounds = 40;

// most sums up how the calls ended, and how many did so.
async function outcomes(call) {
  const counts = {};
  for (let i = 0; i < rounds; i++) {
    const outcome = await call();
    counts[outcome] = (counts[outcome] ?? 0) + 1;
  }
  return counts;
}

async function many(client, value) {
  let got = 0;
  try {
    for await (const _ of client.many({ value })) got++;
  } catch (err) {
    return `${got} messages, ${name(err)}`;
  }
  return `${got} messages, ok`;
}

const deno = process.versions.deno !== undefined, runtime = deno ? 'deno ' + process.versions.deno : process.versions.bun ? 'bun ' + process.versions.bun : 'node ' + process.version;
const closed = 'Unknown: Premature close', refused = 'FailedPrecondition: as asked';
let same = true;
// expect compares: where it is struck, some calls at least have the other end, and none has a third.
function expect(what, counts, good, bad, struck) {
  console.log(`${runtime}, ${what}:`, Object.entries(counts).map(([outcome, n]) => `${n} × ${outcome}`).join('; '));
  same &&= (counts[good] ?? 0) + (struck ? counts[bad] ?? 0 : 0) === rounds && (!struck || counts[bad] > 0);
}
const baseUrl = 'http://' + readFileSync('address', 'utf8').trim();
for (const [protocol, transport] of Object.entries({ connect: createConnectTransport, grpc: createGrpcTransport, grpcweb: createGrpcWebTransport })) {
  const client = createClient(echo, transport({ baseUrl, httpVersion: '2' }));
  expect(`${protocol}, unary`, await outcomes(() => client.one({ value: 'x' }).then(() => 'ok', name)), 'ok', closed, deno && protocol === 'grpcweb');
  expect(`${protocol}, stream`, await outcomes(() => many(client, 'x')), '10 messages, ok', '10 messages, ' + closed, deno);
  expect(`${protocol}, stream with an error`, await outcomes(() => many(client, 'fail')), '10 messages, ' + refused, '10 messages, ' + closed, deno && protocol === 'grpc');
}
if (!same) console.log('CHANGED');
process.exit(same ? 0 : 1);
EOT
echo "connect-node $(node -p 'JSON.parse(require("fs").readFileSync("node_modules/@connectrpc/connect-node/package.json")).version')"
export DENO_DIR="$dir/deno" DENO_NO_UPDATE_CHECK=1 NODE_NO_WARNINGS=1
timeout 60 node main.mjs
timeout 60 node_modules/.bin/bun main.mjs
timeout 60 node_modules/.bin/deno run --allow-all main.mjs
