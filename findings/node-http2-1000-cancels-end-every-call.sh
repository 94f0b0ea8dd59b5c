#!/usr/bin/env bash
# Guess: a caller that cancels calls, or whose short deadlines pass, ends those calls and nothing else: each is a stream of its own, and a watch on the same connection goes on.
# Seen: node:http2 (Node 22.23.3) counts the streams that its peer reset: 1,000, and 33 more each second (streamResetBurst and streamResetRate). At the next one it ends the
# connection, with all calls on it. So of a service of @connectrpc/connect-node 2.3.0 or of @grpc/grpc-js 1.14.7 a watch ends that had been open all the time once a caller in
# Go has given up some 1,050 calls within a few seconds, as a cache or a hedging client does. connectrpc.com/connect v1.21.1 has internal for it, in
# Connect and in gRPC, so that it does not look like a connection that broke, and google.golang.org/grpc v1.85.0 internal or unavailable. Services of connect-go on
# net/http (Go 1.26) and of grpc-go let the watch go on after 3,000, and so does one of connect-node where both options of http2.createServer() are larger.
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
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type text = wrapperspb.StringValue

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func main() {
	var only http.Protocols
	only.SetUnencryptedHTTP2(true)
	if len(os.Args) > 1 {
		for i := 1; i+1 < len(os.Args); i += 2 {
			name, at := os.Args[i], os.Args[i+1]
			if name != "grpc-js" && name != "grpc-go" {
				connectGo(name, at, "Connect", &only)
			}
			connectGo(name, at, "gRPC", &only, connect.WithGRPC())
			grpcGo(name, at)
		}
		return
	}
	l, g := must(net.Listen("tcp", "127.0.0.1:0")), must(net.Listen("tcp", "127.0.0.1:0"))
	fmt.Println(l.Addr(), g.Addr())
	s := grpc.NewServer()
	s.RegisterService(&grpc.ServiceDesc{ServiceName: "e.S", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: "Wait", Handler: func(_ any, ctx context.Context, read func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var in text
			if err := read(&in); err != nil {
				return nil, err
			}
			<-ctx.Done()
			return nil, ctx.Err()
		},
	}}, Streams: []grpc.StreamDesc{{StreamName: "Watch", ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
		var in text
		if err := s.RecvMsg(&in); err != nil {
			return err
		}
		if err := s.SendMsg(&in); err != nil {
			return err
		}
		<-s.Context().Done()
		return nil
	}}}}, nil)
	go func() { panic(s.Serve(g)) }()
	mux := http.NewServeMux()
	mux.Handle("/e.S/Wait", connect.NewUnaryHandler("/e.S/Wait", func(ctx context.Context, _ *connect.Request[text]) (*connect.Response[text], error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}))
	mux.Handle("/e.S/Watch", connect.NewServerStreamHandler("/e.S/Watch", func(ctx context.Context, r *connect.Request[text], s *connect.ServerStream[text]) error {
		if err := s.Send(r.Msg); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	}))
	panic((&http.Server{Handler: mux, Protocols: &only}).Serve(l))
}

// giveUp makes calls that are given up until the watch ends, at most 3,000, and says when that was.
func giveUp(by, name string, call func(context.Context), ended <-chan string) {
	for made := 0; made < 3000; made += 50 {
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				ctx, stop := context.WithTimeout(context.Background(), 30*time.Millisecond)
				defer stop()
				call(ctx)
			})
		}
		wg.Wait()
		select {
		case said := <-ended:
			when := "behind the first 1000"
			if made < 1000 {
				when = "before"
			}
			fmt.Printf("%s of %s: the watch ends %s: %s\n", by, name, when, said)
			return
		default:
		}
	}
	select {
	case said := <-ended:
		fmt.Printf("%s of %s: the watch ends behind the first 1000: %s\n", by, name, said)
	case <-time.After(2 * time.Second):
		fmt.Printf("%s of %s: the watch goes on\n", by, name)
	}
}

func connectGo(name, at, protocol string, only *http.Protocols, options ...connect.ClientOption) {
	hc := &http.Client{Transport: &http.Transport{Protocols: only}}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	watch := must(connect.NewClient[text, text](hc, "http://"+at+"/e.S/Watch", options...).CallServerStream(ctx, connect.NewRequest(&text{})))
	if !watch.Receive() {
		panic(watch.Err())
	}
	ended := make(chan string, 1)
	go func() {
		watch.Receive()
		ended <- connect.CodeOf(watch.Err()).String()
	}()
	c := connect.NewClient[text, text](hc, "http://"+at+"/e.S/Wait", options...)
	giveUp("connect-go in "+protocol, name, func(ctx context.Context) { c.CallUnary(ctx, connect.NewRequest(&text{})) }, ended)
}

func grpcGo(name, at string) {
	if name == "connect-go" {
		return // as with the others of Go
	}
	cc := must(grpc.NewClient(at, grpc.WithTransportCredentials(insecure.NewCredentials())))
	defer cc.Close()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	watch := must(cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/e.S/Watch"))
	if err := watch.SendMsg(&text{}); err != nil {
		panic(err)
	}
	watch.CloseSend()
	if err := watch.RecvMsg(&text{}); err != nil {
		panic(err)
	}
	ended := make(chan string, 1)
	go func() { ended <- status.Code(watch.RecvMsg(&text{})).String() }()
	giveUp("grpc-go", name, func(ctx context.Context) { cc.Invoke(ctx, "/e.S/Wait", &text{}, &text{}) }, ended)
}
EOM
cat > main.cjs <<'EOM'
'use strict';
const http2 = require('node:http2');
const grpc = require('@grpc/grpc-js');
const { connectNodeAdapter } = require('@connectrpc/connect-node');
const { create, createFileRegistry } = require('@bufbuild/protobuf');
const { FileDescriptorProtoSchema, FileDescriptorSetSchema, file_google_protobuf_wrappers } = require('@bufbuild/protobuf/wkt');
const type = '.google.protobuf.StringValue';
const file = create(FileDescriptorProtoSchema, {
  name: 'e.proto', package: 'e', syntax: 'proto3', dependency: ['google/protobuf/wrappers.proto'],
  service: [{ name: 'S', method: [{ name: 'Wait', inputType: type, outputType: type }, { name: 'Watch', inputType: type, outputType: type, serverStreaming: true }] }],
});
const service = createFileRegistry(create(FileDescriptorSetSchema, { file: [file_google_protobuf_wrappers.proto, file] })).getService('e.S');
const raw = (b) => b;
const method = (name, responseStream) => ({ path: '/e.S/' + name, requestStream: false, responseStream, requestSerialize: raw, requestDeserialize: raw, responseSerialize: raw, responseDeserialize: raw });
const end = (signal) => new Promise((done) => signal.addEventListener('abort', done));
(async () => {
  const server = new grpc.Server();
  server.addService({ wait: method('Wait', false), watch: method('Watch', true) }, { wait() {}, watch: (call) => call.write(Buffer.alloc(0)) });
  const port = await new Promise((done, failed) => server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (e, port) => (e ? failed(e) : done(port))));
  const ports = [port];
  for (const options of [{}, { streamResetBurst: 100000, streamResetRate: 100000 }]) {
    const connect = http2.createServer(options, connectNodeAdapter({
      routes: (r) => r.service(service, {
        async wait(_, { signal }) { await end(signal); return {}; },
        async *watch(_, { signal }) { yield {}; await end(signal); },
      }),
    }));
    await new Promise((done) => connect.listen(0, '127.0.0.1', done));
    ports.push(connect.address().port);
  }
  console.log(ports.map((p) => '127.0.0.1:' + p).join(' '));
})();
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
read -r grpc_js connect_node patient < node.addresses
timeout 120 ./finding connect-go "$connect_go" grpc-go "$grpc_go" connect-node "$connect_node" grpc-js "$grpc_js" 'connect-node, told to bear more' "$patient" > seen
# Which of the two is a matter of whether the end of the stream or of the connection comes first.
sed -E -i "/^grpc-go of/s#: (Internal|Unavailable)\$#: Internal or Unavailable#" seen
cat seen
cat > want <<'EOM'
connect-go in Connect of connect-go: the watch goes on
connect-go in gRPC of connect-go: the watch goes on
connect-go in gRPC of grpc-go: the watch goes on
grpc-go of grpc-go: the watch goes on
connect-go in Connect of connect-node: the watch ends behind the first 1000: internal
connect-go in gRPC of connect-node: the watch ends behind the first 1000: internal
grpc-go of connect-node: the watch ends behind the first 1000: Internal or Unavailable
connect-go in gRPC of grpc-js: the watch ends behind the first 1000: internal
grpc-go of grpc-js: the watch ends behind the first 1000: Internal or Unavailable
connect-go in Connect of connect-node, told to bear more: the watch goes on
connect-go in gRPC of connect-node, told to bear more: the watch goes on
grpc-go of connect-node, told to bear more: the watch goes on
EOM
cmp -s seen want || { echo CHANGED; exit 1; }
