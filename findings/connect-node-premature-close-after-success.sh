#!/usr/bin/env bash
# Guess: a call in which both sides stream and that the server ends well, while the client would still have something to say, ends well
# for the client, in whichever protocol: the iteration gives the answers and stops.
# Seen: @connectrpc/connect-node 2.3.0 against a handler of connect-go 1.21.1 over HTTP/2, which answers once and returns: in gRPC the
# iteration stops, in Connect and in gRPC-Web it gives the answer and then throws, code unknown, "Premature close", though the
# end of stream says success: the reset with NO_ERROR by which the server tells that it reads no more comes between. An error that
# the handler returns arrives with its code. A client of connect-go gets the success in all three.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @connectrpc/connect@2.3.0 @connectrpc/connect-node@2.3.0 @bufbuild/protobuf@2.17.0 > /dev/null 2>&1
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
	"io"
	"net"
	"net/http"
	"os"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type text = wrapperspb.StringValue

// answer answers the first message, or refuses it, and does not wait for more.
func answer(_ context.Context, s *connect.BidiStream[text, text]) error {
	m, err := s.Receive()
	if err != nil {
		return err
	}
	if m.GetValue() == "fail" {
		return connect.NewError(connect.CodeFailedPrecondition, errors.New("as asked"))
	}
	return s.Send(m)
}

func main() {
	var only http.Protocols
	only.SetUnencryptedHTTP2(true)
	if len(os.Args) > 1 {
		call(os.Args[1], &http.Client{Transport: &http.Transport{Protocols: &only}})
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	panic((&http.Server{Handler: connect.NewBidiStreamHandler("/e.Echo/Both", answer), Protocols: &only}).Serve(l))
}

// call is the same caller in Go.
func call(addr string, client *http.Client) {
	for name, o := range map[string][]connect.ClientOption{"connect": nil, "grpc": {connect.WithGRPC()}, "grpcweb": {connect.WithGRPCWeb()}} {
		s := connect.NewClient[text, text](client, "http://"+addr+"/e.Echo/Both", o...).CallBidiStream(context.Background())
		if err := s.Send(wrapperspb.String("ok")); err != nil {
			panic(err)
		}
		_, err := s.Receive()
		_, end := s.Receive()
		fmt.Println("connect-go", name, err == nil && errors.Is(end, io.EOF))
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
GOTOOLCHAIN=local go build -o echo .
./echo > address &
server=$!
cat > main.js <<'EOT'
'use strict';
const { readFileSync } = require('node:fs');
const { execFileSync } = require('node:child_process');
const { createConnectTransport, createGrpcTransport, createGrpcWebTransport } = require('@connectrpc/connect-node');
const { createClient, Code } = require('@connectrpc/connect');
const { create, createFileRegistry } = require('@bufbuild/protobuf');
const { FileDescriptorProtoSchema, FileDescriptorSetSchema, file_google_protobuf_wrappers } = require('@bufbuild/protobuf/wkt');
console.log('node', process.version, 'connect-node', JSON.parse(readFileSync('node_modules/@connectrpc/connect-node/package.json')).version);

const type = '.google.protobuf.StringValue';
const file = create(FileDescriptorProtoSchema, {
  name: 'e.proto', package: 'e', syntax: 'proto3', dependency: ['google/protobuf/wrappers.proto'],
  service: [{ name: 'Echo', method: [{ name: 'Both', inputType: type, outputType: type, clientStreaming: true, serverStreaming: true }] }],
});
const echo = createFileRegistry(create(FileDescriptorSetSchema, { file: [file_google_protobuf_wrappers.proto, file] })).getService('e.Echo');

// says one word and keeps the next for later.
async function* talk(first) {
  yield { value: first };
  await new Promise(() => {});
}

async function outcome(client, first) {
  const got = [];
  try {
    for await (const m of client.both(talk(first))) got.push(m.value);
  } catch (err) {
    got.push(`${Code[err.code]}: ${err.rawMessage}`);
  }
  return got.join(', ');
}

(async () => {
  while (readFileSync('address').length === 0) await new Promise((done) => setTimeout(done, 50));
  const address = readFileSync('address', 'utf8').trim();
  const go = execFileSync('./echo', [address], { encoding: 'utf8' }).trim().split('\n').sort();
  const seen = [...go];
  for (const [name, transport] of Object.entries({ connect: createConnectTransport, grpc: createGrpcTransport, grpcweb: createGrpcWebTransport })) {
    const client = createClient(echo, transport({ baseUrl: 'http://' + address, httpVersion: '2' }));
    for (const first of ['ok', 'fail']) {
      const all = new Set();
      for (let i = 0; i < 10; i++) all.add(await outcome(client, first));
      seen.push(`connect-node ${name} ${first}: ${[...all].join(' | ')}`);
    }
  }
  console.log(seen.join('\n'));
  const want = ['connect-go connect true', 'connect-go grpc true', 'connect-go grpcweb true'];
  for (const [name, ok] of [['connect', 'ok, Unknown: Premature close'], ['grpc', 'ok'], ['grpcweb', 'ok, Unknown: Premature close']]) {
    want.push(`connect-node ${name} ok: ${ok}`, `connect-node ${name} fail: FailedPrecondition: as asked`);
  }
  if (seen.join('\n') !== want.join('\n')) console.log('CHANGED');
  process.exit(seen.join('\n') === want.join('\n') ? 0 : 1);
})();
EOT
NODE_NO_WARNINGS=1 timeout 60 node main.js
