#!/usr/bin/env bash
# Guess: a caller whose server's process is killed in the middle of a call gets unavailable, as gRPC says for a connection that broke,
# whichever transport of Connect for TypeScript it has; canceled stands for a call that the caller itself gave up.
# Seen: @connectrpc/connect-node 2.3.0 over HTTP/2 says canceled, "http/2 stream closed with error code CANCEL (0x8)", in Connect, gRPC and
# gRPC-Web; over HTTP/1.1 it says aborted. @connectrpc/connect-web 2.3.0 on Node's fetch says unknown. It is so for a
# unary call and for a server stream that gave its first message, from a server of connect-go 1.21.1. A policy that retries what is
# unavailable takes none of the three. @grpc/grpc-js 1.14.7 says UNAVAILABLE.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @connectrpc/connect@2.3.0 @connectrpc/connect-node@2.3.0 @connectrpc/connect-web@2.3.0 @bufbuild/protobuf@2.17.0 @grpc/grpc-js@1.14.7 > /dev/null 2>&1
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

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type text = wrapperspb.StringValue

func main() {
	var both http.Protocols
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	mux := http.NewServeMux()
	mux.Handle("/e.Wait/One", connect.NewUnaryHandler("/e.Wait/One", func(ctx context.Context, _ *connect.Request[text]) (*connect.Response[text], error) {
		fmt.Println("waiting")
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
	panic((&http.Server{Handler: mux, Protocols: &both}).Serve(l))
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
GOTOOLCHAIN=local go build -o server .
cat > main.mjs <<'EOT'
import { readFileSync } from 'node:fs';
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import * as node from '@connectrpc/connect-node';
import * as web from '@connectrpc/connect-web';
import grpc from '@grpc/grpc-js';
import { createClient, Code } from '@connectrpc/connect';
import { create, createFileRegistry } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema, FileDescriptorSetSchema, file_google_protobuf_wrappers } from '@bufbuild/protobuf/wkt';

const version = (name) => JSON.parse(readFileSync(`node_modules/${name}/package.json`)).version;
console.log('node', process.version, ...['@connectrpc/connect-node', '@connectrpc/connect-web', '@grpc/grpc-js'].flatMap((n) => [n, version(n)]));
const type = '.google.protobuf.StringValue';
const file = create(FileDescriptorProtoSchema, {
  name: 'e.proto', package: 'e', syntax: 'proto3', dependency: ['google/protobuf/wrappers.proto'],
  service: [{ name: 'Wait', method: [{ name: 'One', inputType: type, outputType: type }, { name: 'Many', inputType: type, outputType: type, serverStreaming: true }] }],
});
const wait = createFileRegistry(create(FileDescriptorSetSchema, { file: [file_google_protobuf_wrappers.proto, file] })).getService('e.Wait');
const name = (err) => Code[err.code].replace(/[A-Z]/g, (c, i) => (i ? '_' : '') + c.toLowerCase());

// Each starts a unary call and a stream, says when the stream's first message is there, and gives the codes of both.
const connect = (transport) => (url, first) => {
  const client = createClient(wait, transport(url));
  const many = async () => { for await (const _ of client.many({})) first(); };
  return Promise.all([client.one({}).then(() => 'ok', name), many().then(() => 'ok', name)]);
};
const raw = (b) => b;
const callers = {
  'connect-node, HTTP/2, Connect': connect((baseUrl) => node.createConnectTransport({ baseUrl, httpVersion: '2' })),
  'connect-node, HTTP/2, gRPC': connect((baseUrl) => node.createGrpcTransport({ baseUrl })),
  'connect-node, HTTP/2, gRPC-Web': connect((baseUrl) => node.createGrpcWebTransport({ baseUrl, httpVersion: '2' })),
  'connect-node, HTTP/1.1, Connect': connect((baseUrl) => node.createConnectTransport({ baseUrl, httpVersion: '1.1' })),
  'connect-node, HTTP/1.1, gRPC-Web': connect((baseUrl) => node.createGrpcWebTransport({ baseUrl, httpVersion: '1.1' })),
  'connect-web, Connect': connect((baseUrl) => web.createConnectTransport({ baseUrl })),
  'connect-web, gRPC-Web': connect((baseUrl) => web.createGrpcWebTransport({ baseUrl })),
  'grpc-js': (url, first) => {
    const client = new grpc.Client(url.slice('http://'.length), grpc.credentials.createInsecure());
    const code = (err) => (err ? grpc.status[err.code].toLowerCase() : 'ok');
    return Promise.all([
      new Promise((done) => client.makeUnaryRequest('/e.Wait/One', raw, raw, Buffer.alloc(0), (err) => done(code(err)))),
      new Promise((done) => client.makeServerStreamRequest('/e.Wait/Many', raw, raw, Buffer.alloc(0)).on('data', first).on('error', (err) => done(code(err)))),
    ]);
  },
};
const want = { 'connect-node, HTTP/2': 'canceled', 'connect-node, HTTP/1.1': 'aborted', 'connect-web': 'unknown', 'grpc-js': 'unavailable' };
let same = true;
for (const [caller, call] of Object.entries(callers)) {
  const server = spawn('./server', { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines = createInterface({ input: server.stdout })[Symbol.asyncIterator]();
  const url = 'http://' + (await lines.next()).value;
  let first;
  const answered = new Promise((done) => { first = done; });
  const codes = call(url, first);
  await lines.next(); // the unary call is at the server
  await answered;
  server.kill('SIGKILL');
  const [unary, stream] = await codes;
  console.log(`${caller}: unary ${unary}, stream ${stream}`);
  const expected = Object.entries(want).find(([prefix]) => caller.startsWith(prefix))[1];
  same &&= unary === expected && stream === expected;
}
if (!same) console.log('CHANGED');
process.exit(same ? 0 : 1);
EOT
NODE_NO_WARNINGS=1 timeout 100 node main.mjs
