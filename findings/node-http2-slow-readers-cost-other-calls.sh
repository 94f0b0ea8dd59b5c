#!/usr/bin/env bash
# Guess: what a service has ready for callers that read slowly holds up those calls and no other: it waits in the service until HTTP/2's windows let it go, and a
# small call beside it on the same connection is served.
# Seen: node:http2 (Node 22.23.3) has 10 MB for all that waits on one connection (maxSessionMemory), and refuses each new call on it while more waits, with
# ENHANCE_YOUR_CALM. With a service of @connectrpc/connect-node 2.3.0 on http2.createServer() and 30 streams of messages of 1 MB of which the caller, google.golang.org/grpc v1.85.0, has
# read the first, the next unary call of a few bytes fails with ResourceExhausted, and is served again once the streams are read or left. connect-node
# waits with each stream until its message has gone, so that one message each is enough. With maxSessionMemory: 1000 it is served, and so it is by a service of
# @grpc/grpc-js 1.14.7, which sets no bound, and of connectrpc.com/connect v1.21.1 on net/http (Go 1.26).
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; wait; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save node@22.23.3 @grpc/grpc-js@1.14.7 @connectrpc/connect@2.3.0 @connectrpc/connect-node@2.3.0 @bufbuild/protobuf@2.17.0 > /dev/null 2>&1
cat > go.mod <<'EOM'
module finding

go 1.26.0

require (
	connectrpc.com/connect v1.21.1
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)
EOM
cat > main.go <<'EOM'
package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type blob = wrapperspb.BytesValue

func main() {
	if len(os.Args) > 1 {
		for i := 1; i+1 < len(os.Args); i += 2 {
			call(os.Args[i], os.Args[i+1])
		}
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	mux := http.NewServeMux()
	mux.Handle("/e.S/One", connect.NewUnaryHandler("/e.S/One", func(_ context.Context, r *connect.Request[blob]) (*connect.Response[blob], error) {
		return connect.NewResponse(r.Msg), nil
	}))
	large := wrapperspb.Bytes(bytes.Repeat([]byte{'x'}, 1<<20))
	mux.Handle("/e.S/Many", connect.NewServerStreamHandler("/e.S/Many", func(_ context.Context, _ *connect.Request[blob], s *connect.ServerStream[blob]) error {
		for range 20 {
			if err := s.Send(large); err != nil {
				return err
			}
		}
		return nil
	}))
	var only http.Protocols
	only.SetUnencryptedHTTP2(true)
	panic((&http.Server{Handler: mux, Protocols: &only}).Serve(l))
}

// call opens streams that it does not read on, makes a small call, leaves the streams, and makes it again.
func call(name, at string) {
	cc, err := grpc.NewClient(at, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		panic(err)
	}
	defer cc.Close()
	ctx, stop := context.WithTimeout(context.Background(), 100*time.Second)
	defer stop()
	small := func() string {
		err := cc.Invoke(ctx, "/e.S/One", &blob{}, &blob{})
		if err != nil {
			return fmt.Sprintf("%v (%s)", status.Code(err), status.Convert(err).Message())
		}
		return "served"
	}
	before := small()
	slow, leave := context.WithCancel(ctx)
	defer leave()
	for range 30 {
		s, err := cc.NewStream(slow, &grpc.StreamDesc{ServerStreams: true}, "/e.S/Many")
		if err != nil {
			panic(err)
		}
		if err := s.SendMsg(&blob{}); err != nil {
			panic(err)
		}
		s.CloseSend()
		if err := s.RecvMsg(&blob{}); err != nil && status.Code(err).String() != "ResourceExhausted" {
			panic(err)
		}
	}
	time.Sleep(time.Second) // for what fills the windows
	during := small()
	leave()
	after := ""
	for range 100 {
		if after = small(); after == "served" {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	fmt.Printf("%s: before: %s | beside streams that wait: %s | after: %s\n", name, before, during, after)
}
EOM
cat > main.cjs <<'EOM'
'use strict';
const http2 = require('node:http2');
const grpc = require('@grpc/grpc-js');
const { connectNodeAdapter } = require('@connectrpc/connect-node');
const { create, createFileRegistry, toBinary } = require('@bufbuild/protobuf');
const { FileDescriptorProtoSchema, FileDescriptorSetSchema, BytesValueSchema, file_google_protobuf_wrappers } = require('@bufbuild/protobuf/wkt');
const type = '.google.protobuf.BytesValue';
const file = create(FileDescriptorProtoSchema, {
  name: 'e.proto', package: 'e', syntax: 'proto3', dependency: ['google/protobuf/wrappers.proto'],
  service: [{ name: 'S', method: [{ name: 'One', inputType: type, outputType: type }, { name: 'Many', inputType: type, outputType: type, serverStreaming: true }] }],
});
const service = createFileRegistry(create(FileDescriptorSetSchema, { file: [file_google_protobuf_wrappers.proto, file] })).getService('e.S');
const large = create(BytesValueSchema, { value: Buffer.alloc(1 << 20, 'x') });
const raw = (b) => Buffer.from(b);
const method = (name, responseStream) => ({ path: '/e.S/' + name, requestStream: false, responseStream, requestSerialize: raw, requestDeserialize: raw, responseSerialize: raw, responseDeserialize: raw });
console.error = () => {}; // connect-node prints the end of streams that were left
(async () => {
  const server = new grpc.Server();
  server.addService({ one: method('One', false), many: method('Many', true) }, {
    one: (call, done) => done(null, call.request),
    async many(call) {
      for (let i = 0; i < 20; i++) if (!call.write(toBinary(BytesValueSchema, large))) await new Promise((done) => call.once('drain', done));
      call.end();
    },
  });
  const ports = [await new Promise((done, failed) => server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (e, port) => (e ? failed(e) : done(port))))];
  for (const options of [{}, { maxSessionMemory: 1000 }]) {
    const handler = connectNodeAdapter({ routes: (r) => r.service(service, {
      one: (message) => message,
      async *many() { for (let i = 0; i < 20; i++) yield large; },
    }) });
    const s = http2.createServer(options, handler);
    await new Promise((done) => s.listen(0, '127.0.0.1', done));
    ports.push(s.address().port);
  }
  console.log(ports.map((port) => '127.0.0.1:' + port).join(' '));
})();
EOM
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m connectrpc.com/connect google.golang.org/grpc
node_modules/.bin/node -p '"node " + process.version'
for package in @grpc/grpc-js @connectrpc/connect-node; do node -p "'$package ' + JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version"; done
GOTOOLCHAIN=local go build -o finding .
./finding > go.address &
node_modules/.bin/node main.cjs > node.addresses &
until [ -s go.address ] && [ -s node.addresses ]; do sleep 0.1; done
read -r grpc_js connect_node roomy < node.addresses
timeout 120 ./finding connect-go "$(cat go.address)" grpc-js "$grpc_js" 'connect-node, maxSessionMemory 1000' "$roomy" connect-node "$connect_node" | tee seen
cat > want <<'EOM'
connect-go: before: served | beside streams that wait: served | after: served
grpc-js: before: served | beside streams that wait: served | after: served
connect-node, maxSessionMemory 1000: before: served | beside streams that wait: served | after: served
connect-node: before: served | beside streams that wait: ResourceExhausted (stream terminated by RST_STREAM with error code: ENHANCE_YOUR_CALM) | after: served
EOM
cmp -s seen want || { echo CHANGED; exit 1; }
