#!/usr/bin/env bash
# Guess: how many fields of metadata a call may have is a matter of their size: HTTP/2 tells the peer one bound, in bytes (SETTINGS_MAX_HEADER_LIST_SIZE), and gRPC's
# libraries have one of 8 KiB at least. 150 small fields, 3 KB together, go from any service to any caller and the other way.
# Seen: node:http2 (Node 22.23.3) takes 128 fields, the call's own among them (:status, content-type, grpc-status ...), of which it tells nobody, and ends a stream that
# has more with ENHANCE_YOUR_CALM. (1) Of a unary call that a handler of connectrpc.com/connect v1.21.1 or google.golang.org/grpc v1.85.0 answered with 150 fields of metadata
# @grpc/grpc-js 1.14.7 says resource_exhausted, "Bandwidth exhausted or memory limit exceeded", and @connectrpc/connect-node 2.3.0 internal, in each protocol. With 100 they are
# served. (2) A caller in Go that sends 150 has resource_exhausted of services of both, whose handlers are not called. Both codes are ones that a caller tries again later, or
# reports as a fault of the service. Among programs in Go 150 fields are nothing special. connect-node takes them where its nodeOptions have maxHeaderListPairs; grpc-js has
# no option for it.
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
	"context"
	"fmt"
	"net"
	"net/http"
	"os"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type number = wrapperspb.Int64Value

// fields returns n fields, about 20 bytes each.
func fields(n int64) metadata.MD {
	md := metadata.MD{}
	for i := range n {
		md.Set(fmt.Sprintf("x-label-%d", i), "value")
	}
	return md
}

func main() {
	var only http.Protocols
	only.SetUnencryptedHTTP2(true)
	if len(os.Args) > 1 {
		for i := 1; i+1 < len(os.Args); i += 2 {
			call(os.Args[i], os.Args[i+1], &http.Client{Transport: &http.Transport{Protocols: &only}})
		}
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	g, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr(), g.Addr())
	s := grpc.NewServer()
	s.RegisterService(&grpc.ServiceDesc{ServiceName: "e.S", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: "Label", Handler: func(_ any, ctx context.Context, read func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var in number
			if err := read(&in); err != nil {
				return nil, err
			}
			return &in, grpc.SetHeader(ctx, fields(in.GetValue()))
		},
	}}}, nil)
	go func() { panic(s.Serve(g)) }()
	panic((&http.Server{Protocols: &only, Handler: connect.NewUnaryHandler("/e.S/Label", func(_ context.Context, r *connect.Request[number]) (*connect.Response[number], error) {
		answer := connect.NewResponse(r.Msg)
		for k, v := range fields(r.Msg.GetValue()) {
			answer.Header().Set(k, v[0])
		}
		return answer, nil
	})}).Serve(l))
}

// call asks a service with many fields, and for as many.
func call(name, at string, hc *http.Client) {
	for _, n := range []int64{100, 150} {
		if name != "grpc-go" && name != "grpc-js" {
			r := connect.NewRequest(wrapperspb.Int64(0))
			for k, v := range fields(n) {
				r.Header().Set(k, v[0])
			}
			_, err := connect.NewClient[number, number](hc, "http://"+at+"/e.S/Label").CallUnary(context.Background(), r)
			fmt.Println(n, "from connect-go to", name+":", word(err, connect.CodeOf(err).String()))
		}
		cc, err := grpc.NewClient(at, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			panic(err)
		}
		var header metadata.MD
		err = cc.Invoke(metadata.NewOutgoingContext(context.Background(), fields(n)), "/e.S/Label", wrapperspb.Int64(0), &number{})
		fmt.Println(n, "from grpc-go to", name+":", word(err, status.Code(err).String()))
		if name == "grpc-go" || name == "connect-go" {
			err = cc.Invoke(context.Background(), "/e.S/Label", wrapperspb.Int64(n), &number{}, grpc.Header(&header))
			fmt.Println(n, "from", name, "to grpc-go:", word(err, status.Code(err).String()))
		}
	}
}

func word(err error, code string) string {
	if err == nil {
		return "served"
	}
	return code
}
EOM
cat > main.cjs <<'EOM'
'use strict';
const http2 = require('node:http2');
const grpc = require('@grpc/grpc-js');
const { createConnectTransport, createGrpcTransport, createGrpcWebTransport, connectNodeAdapter } = require('@connectrpc/connect-node');
const { createClient, Code } = require('@connectrpc/connect');
const { create, createFileRegistry, toBinary } = require('@bufbuild/protobuf');
const { FileDescriptorProtoSchema, FileDescriptorSetSchema, Int64ValueSchema, file_google_protobuf_wrappers } = require('@bufbuild/protobuf/wkt');
const type = '.google.protobuf.Int64Value';
const file = create(FileDescriptorProtoSchema, {
  name: 'e.proto', package: 'e', syntax: 'proto3', dependency: ['google/protobuf/wrappers.proto'],
  service: [{ name: 'S', method: [{ name: 'Label', inputType: type, outputType: type }] }],
});
const service = createFileRegistry(create(FileDescriptorSetSchema, { file: [file_google_protobuf_wrappers.proto, file] })).getService('e.S');
const raw = (b) => Buffer.from(b);

async function callers(atConnect, atGRPC) {
  for (const n of [100, 150]) {
    const transports = [['connect-go', atConnect, 'Connect', createConnectTransport], ['connect-go', atConnect, 'gRPC', createGrpcTransport], ['connect-go', atConnect, 'gRPC-Web', createGrpcWebTransport], ['grpc-go', atGRPC, 'gRPC', createGrpcTransport]];
    for (const [from, at, protocol, transport] of transports) {
      for (const nodeOptions of [undefined, { maxHeaderListPairs: 1000 }]) {
        const client = createClient(service, transport({ baseUrl: `http://${at}`, httpVersion: '2', nodeOptions }));
        const said = await client.label({ value: BigInt(n) }).then(() => 'served', (e) => Code[e.code]);
        console.log(`${n} from ${from} to connect-node in ${protocol}${nodeOptions ? ', told to take 1000' : ''}: ${said}`);
      }
    }
    for (const [from, at] of [['connect-go', atConnect], ['grpc-go', atGRPC]]) {
      const client = new grpc.Client(at, grpc.credentials.createInsecure());
      const message = toBinary(Int64ValueSchema, create(Int64ValueSchema, { value: BigInt(n) }));
      const said = await new Promise((done) => client.makeUnaryRequest('/e.S/Label', raw, raw, message, (e) => done(e ? `${grpc.status[e.code]}, ${JSON.stringify(e.details)}` : 'served')));
      console.log(`${n} from ${from} to grpc-js: ${said}`);
    }
  }
  process.exit();
}

async function serve() {
  const server = new grpc.Server();
  server.addService({ label: { path: '/e.S/Label', requestStream: false, responseStream: false, requestSerialize: raw, requestDeserialize: raw, responseSerialize: raw, responseDeserialize: raw } }, { label: (call, done) => done(null, Buffer.alloc(0)) });
  const grpcPort = await new Promise((done, failed) => server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (e, port) => (e ? failed(e) : done(port))));
  const connect = http2.createServer(connectNodeAdapter({ routes: (r) => r.service(service, { label: () => ({}) }) })).listen(0, '127.0.0.1', () => {
    console.log(`127.0.0.1:${connect.address().port} 127.0.0.1:${grpcPort}`);
  });
}
process.argv.length > 2 ? callers(...process.argv.slice(2)) : serve();
EOM
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m connectrpc.com/connect google.golang.org/grpc
node_modules/.bin/node -p '"node " + process.version'
for package in @grpc/grpc-js @connectrpc/connect-node; do node -p "'$package ' + JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version"; done
GOTOOLCHAIN=local go build -o finding .
./finding > go.addresses &
node_modules/.bin/node main.cjs > node.addresses &
until [ -s go.addresses ] && [ -s node.addresses ]; do sleep 0.1; done
read -r connect_go grpc_go < go.addresses
read -r connect_node grpc_js < node.addresses
timeout 60 ./finding connect-go "$connect_go" grpc-go "$grpc_go" connect-node "$connect_node" grpc-js "$grpc_js" > seen
timeout 60 node_modules/.bin/node main.cjs "$connect_go" "$grpc_go" >> seen
LC_ALL=C sort -o seen seen
cat seen
cat > want <<'EOM'
100 from connect-go to connect-go: served
100 from connect-go to connect-node in Connect, told to take 1000: served
100 from connect-go to connect-node in Connect: served
100 from connect-go to connect-node in gRPC, told to take 1000: served
100 from connect-go to connect-node in gRPC-Web, told to take 1000: served
100 from connect-go to connect-node in gRPC-Web: served
100 from connect-go to connect-node in gRPC: served
100 from connect-go to connect-node: served
100 from connect-go to grpc-go: served
100 from connect-go to grpc-js: served
100 from grpc-go to connect-go: served
100 from grpc-go to connect-node in gRPC, told to take 1000: served
100 from grpc-go to connect-node in gRPC: served
100 from grpc-go to connect-node: served
100 from grpc-go to grpc-go: served
100 from grpc-go to grpc-go: served
100 from grpc-go to grpc-js: served
100 from grpc-go to grpc-js: served
150 from connect-go to connect-go: served
150 from connect-go to connect-node in Connect, told to take 1000: served
150 from connect-go to connect-node in Connect: Internal
150 from connect-go to connect-node in gRPC, told to take 1000: served
150 from connect-go to connect-node in gRPC-Web, told to take 1000: served
150 from connect-go to connect-node in gRPC-Web: Internal
150 from connect-go to connect-node in gRPC: Internal
150 from connect-go to connect-node: resource_exhausted
150 from connect-go to grpc-go: served
150 from connect-go to grpc-js: RESOURCE_EXHAUSTED, "Bandwidth exhausted or memory limit exceeded"
150 from grpc-go to connect-go: served
150 from grpc-go to connect-node in gRPC, told to take 1000: served
150 from grpc-go to connect-node in gRPC: Internal
150 from grpc-go to connect-node: ResourceExhausted
150 from grpc-go to grpc-go: served
150 from grpc-go to grpc-go: served
150 from grpc-go to grpc-js: RESOURCE_EXHAUSTED, "Bandwidth exhausted or memory limit exceeded"
150 from grpc-go to grpc-js: ResourceExhausted
EOM
cmp -s seen want || { echo CHANGED; exit 1; }
