#!/usr/bin/env bash
# Guess: a caller with a deadline that is far away gets its answer, from a server of connect-node as from others.
# Seen: @connectrpc/connect-node 2.3.0 gives what is left of the deadline to setTimeout as it is. Beyond 2^31-1 ms, 24.8 days,
# Node makes 1 ms of it: the handler's signal is aborted at once and the caller (connect-go 1.21.1, all three protocols)
# gets deadline_exceeded. The client has the same: timeoutMs of 25 days fails at once. 24 days work.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @connectrpc/connect@2.3.0 @connectrpc/connect-node@2.3.0 @bufbuild/protobuf@2.17.0 > /dev/null 2>&1
mkdir go
cat > go/go.mod <<'EOT'
module finding

go 1.26.0

require (
	connectrpc.com/connect v1.21.1
	google.golang.org/protobuf v1.36.12
)
EOT
cat > go/main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func main() {
	var only http.Protocols
	only.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: &only}}
	protocols := map[string][]connect.ClientOption{"connect": nil, "grpc": {connect.WithGRPC()}, "grpcweb": {connect.WithGRPCWeb()}}
	for _, name := range []string{"connect", "grpc", "grpcweb"} {
		echo := connect.NewClient[wrapperspb.StringValue, wrapperspb.StringValue](client, os.Args[1]+"/e.Echo/Unary", protocols[name]...)
		for _, days := range []int{24, 25} {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(days)*24*time.Hour)
			_, err := echo.CallUnary(ctx, connect.NewRequest(wrapperspb.String("x")))
			cancel()
			code := "ok"
			if err != nil {
				code = connect.CodeOf(err).String()
			}
			fmt.Printf("%s %d %s\n", name, days, code)
		}
	}
}
EOT
(cd go && GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1 && GOTOOLCHAIN=local go build -o ../caller .)
cat > main.js <<'EOT'
'use strict';
const http2 = require('node:http2');
const { execFile } = require('node:child_process');
const { connectNodeAdapter, createConnectTransport } = require('@connectrpc/connect-node');
const { createClient, Code } = require('@connectrpc/connect');
const { create, createFileRegistry } = require('@bufbuild/protobuf');
const { FileDescriptorProtoSchema, FileDescriptorSetSchema, file_google_protobuf_wrappers } = require('@bufbuild/protobuf/wkt');
console.log('node', process.version, 'connect-node', JSON.parse(require('node:fs').readFileSync('node_modules/@connectrpc/connect-node/package.json')).version);

const type = '.google.protobuf.StringValue';
const file = create(FileDescriptorProtoSchema, {
  name: 'e.proto', package: 'e', syntax: 'proto3', dependency: ['google/protobuf/wrappers.proto'],
  service: [{ name: 'Echo', method: [{ name: 'Unary', inputType: type, outputType: type }] }],
});
const echo = createFileRegistry(create(FileDescriptorSetSchema, { file: [file_google_protobuf_wrappers.proto, file] })).getService('e.Echo');
const pause = () => new Promise((done) => setTimeout(done, 100));
const routes = (router) => router.service(echo, {
  async unary(request, context) {
    await pause();
    context.signal.throwIfAborted();
    return request;
  },
});
const server = http2.createServer(connectNodeAdapter({ routes }));
server.listen(0, '127.0.0.1', async () => {
  const url = 'http://127.0.0.1:' + server.address().port;
  const go = await new Promise((done) => execFile('./caller', [url], (err, out) => done(err ? String(err) : out.trim())));
  const client = createClient(echo, createConnectTransport({ baseUrl: url, httpVersion: '2' }));
  const seen = [go];
  for (const days of [24, 25]) {
    const code = await client.unary({ value: 'x' }, { timeoutMs: days * 24 * 3600 * 1000 }).then(() => 'ok', (err) => Code[err.code]);
    seen.push(`own ${days} ${code}`);
  }
  console.log(seen.join('\n'));
  const want = ['connect', 'grpc', 'grpcweb'].flatMap((p) => [`${p} 24 ok`, `${p} 25 deadline_exceeded`]).concat('own 24 ok', 'own 25 DeadlineExceeded').join('\n');
  if (seen.join('\n') !== want) console.log('CHANGED');
  process.exit(seen.join('\n') === want ? 0 : 1);
});
EOT
NODE_NO_WARNINGS=1 timeout 60 node main.js
