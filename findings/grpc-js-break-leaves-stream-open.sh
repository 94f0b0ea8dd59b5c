#!/usr/bin/env bash
# Guess: whoever leaves a "for await" over a server stream, with break, return or throw, has ended the call: JavaScript tells the iterator so, and
# Node's streams are destroyed by it. The server's handler is told, as when the caller's context ends in Go.
# Seen: with @connectrpc/connect-node and connect-web 2.3.0 and nice-grpc 2.1.18 that is so, in every protocol. With @grpc/grpc-js 1.14.7 (whose call
# is such a stream), nice-grpc-web 3.3.11 and protobuf-ts 2.11.1 (grpc-transport and grpcweb-transport, `responses`) the loop ends and the call does
# not: the handler, here of connect-go 1.21.1 over HTTP/2 and HTTP/1.1, goes on and holds its stream. call.cancel() or the AbortSignal that the call
# was given ends it afterwards, but in nice-grpc-web, which has stopped to listen to the signal by then.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @connectrpc/{connect,connect-node,connect-web}@2.3.0 @bufbuild/protobuf@2.17.0 \
  @grpc/grpc-js@1.14.7 nice-grpc@2.1.18 nice-grpc-web@3.3.11 \
  @protobuf-ts/{runtime,runtime-rpc,grpc-transport,grpcweb-transport}@2.11.1 > /dev/null 2>&1
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
	"sync/atomic"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type number = wrapperspb.Int64Value

// main serves a stream that gives three numbers and then waits for its caller's end. GET /open tells how many wait.
func main() {
	var open atomic.Int64
	mux := http.NewServeMux()
	const watch = "/e.E/Watch"
	mux.Handle(watch, connect.NewServerStreamHandler(watch, func(ctx context.Context, _ *connect.Request[number], s *connect.ServerStream[number]) error {
		open.Add(1)
		defer open.Add(-1)
		for i := range 3 {
			if err := s.Send(wrapperspb.Int64(int64(i))); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return ctx.Err()
	}))
	mux.HandleFunc("/open", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, open.Load()) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	both := new(http.Protocols)
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	fmt.Println(l.Addr())
	panic((&http.Server{Handler: mux, Protocols: both}).Serve(l))
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
GOTOOLCHAIN=local go build -o finding .
cat > main.js <<'EOT'
'use strict';
const { createClient } = require('@connectrpc/connect');
const { createConnectTransport, createGrpcTransport, createGrpcWebTransport } = require('@connectrpc/connect-node');
const web = require('@connectrpc/connect-web');
const { create, createFileRegistry } = require('@bufbuild/protobuf');
const wkt = require('@bufbuild/protobuf/wkt');
const grpc = require('@grpc/grpc-js');
const nice = require('nice-grpc');
const niceWeb = require('nice-grpc-web');
const { MessageType } = require('@protobuf-ts/runtime');
const { ServiceType } = require('@protobuf-ts/runtime-rpc');
const { GrpcTransport } = require('@protobuf-ts/grpc-transport');
const { GrpcWebFetchTransport } = require('@protobuf-ts/grpcweb-transport');

const address = process.argv[2];
const baseUrl = 'http://' + address;

const type = '.google.protobuf.Int64Value';
const file = create(wkt.FileDescriptorProtoSchema, {
  name: 'e.proto', package: 'e', syntax: 'proto3', dependency: ['google/protobuf/wrappers.proto'],
  service: [{ name: 'E', method: [{ name: 'Watch', inputType: type, outputType: type, serverStreaming: true }] }],
});
const set = create(wkt.FileDescriptorSetSchema, { file: [wkt.file_google_protobuf_wrappers.proto, file] });
const service = createFileRegistry(set).getService('e.E');
const connect = (transport) => (signal) => createClient(service, transport).watch({}, { signal });

const same = (bytes) => Buffer.from(bytes);
const nothing = Buffer.alloc(0);
const serialize = { requestSerialize: same, requestDeserialize: same, responseSerialize: same, responseDeserialize: same };
const definition = { watch: { path: '/e.E/Watch', requestStream: false, responseStream: true, options: {}, ...serialize } };
const niceClient = nice.createClient(definition, nice.createChannel(address));
const niceWebClient = niceWeb.createClient(definition, niceWeb.createChannel(baseUrl));

const number = new MessageType('google.protobuf.Int64Value', [{ no: 1, name: 'value', kind: 'scalar', T: 3 }]);
const [watch] = new ServiceType('e.E', [{ name: 'Watch', serverStreaming: true, I: number, O: number }]).methods;
const protobufTs = (t) => (abort) => t.serverStreaming(watch, number.create(), t.mergeOptions({ abort })).responses;

const grpcJs = new grpc.Client(address, grpc.credentials.createInsecure());

const ways = {
  'connect-node, Connect, HTTP/2': connect(createConnectTransport({ baseUrl, httpVersion: '2' })),
  'connect-node, gRPC, HTTP/2': connect(createGrpcTransport({ baseUrl, httpVersion: '2' })),
  'connect-node, gRPC-Web, HTTP/1.1': connect(createGrpcWebTransport({ baseUrl, httpVersion: '1.1' })),
  'connect-web, Connect, fetch': connect(web.createConnectTransport({ baseUrl })),
  'connect-web, gRPC-Web, fetch': connect(web.createGrpcWebTransport({ baseUrl })),
  'nice-grpc': (signal) => niceClient.watch(nothing, { signal }),
  'grpc-js': (signal) => {
    const call = grpcJs.makeServerStreamRequest('/e.E/Watch', same, same, nothing);
    call.on('error', () => {});
    signal.addEventListener('abort', () => call.cancel());
    return call;
  },
  'nice-grpc-web, fetch': (signal) => niceWebClient.watch(nothing, { signal }),
  'protobuf-ts, grpc-transport': protobufTs(new GrpcTransport({ host: address, channelCredentials: grpc.credentials.createInsecure() })),
  'protobuf-ts, grpcweb-transport': protobufTs(new GrpcWebFetchTransport({ baseUrl, format: 'binary' })),
};

const moment = () => new Promise((done) => setTimeout(done, 500));
const open = async () => Number(await (await fetch(baseUrl + '/open')).text());

(async () => {
  for (const [name, way] of Object.entries(ways)) {
    const before = await open();
    const signal = new AbortController();
    for await (const _ of way(signal.signal)) break;
    await moment();
    const left = (await open()) > before;
    signal.abort();
    await moment();
    console.log(`${name}: ${left ? 'open' : 'ended'} after break, ${(await open()) > before ? 'open' : 'ended'} after abort`);
  }
  process.exit(0);
})();
EOT
mkfifo address
./finding > address &
server=$!
read -r address < address
go version
grep 'connectrpc.com/connect ' go.mod
echo "node $(node --version), grpc-js $(node -p 'require("./node_modules/@grpc/grpc-js/package.json").version')"
timeout 90 node main.js "$address" | tee seen
cat > want <<'EOT'
connect-node, Connect, HTTP/2: ended after break, ended after abort
connect-node, gRPC, HTTP/2: ended after break, ended after abort
connect-node, gRPC-Web, HTTP/1.1: ended after break, ended after abort
connect-web, Connect, fetch: ended after break, ended after abort
connect-web, gRPC-Web, fetch: ended after break, ended after abort
nice-grpc: ended after break, ended after abort
grpc-js: open after break, ended after abort
nice-grpc-web, fetch: open after break, open after abort
protobuf-ts, grpc-transport: open after break, ended after abort
protobuf-ts, grpcweb-transport: open after break, ended after abort
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
