#!/usr/bin/env bash
# Guess: a client that holds many watches, which are streams that stay open, can still make calls: beyond what one connection to the server takes,
# its library opens another one, or the call fails at once with unavailable or resource_exhausted.
# Seen: a server of net/http (Go 1.26), such as one of connectrpc.com/connect v1.21.1, takes 250 streams of a connection unless HTTP2Config says
# otherwise. With 250 watches open, the next call, here a unary one, of gRPC-Go v1.85.0, of @grpc/grpc-js 1.14.7 and of @connectrpc/connect-node
# 2.3.0 over HTTP/2 is not sent: it waits until a watch ends, or fails as deadline_exceeded where it has a deadline, so that a slow server seems to be
# the reason. A caller of connect-go has a second connection by then and is answered. A server of gRPC-Go sets no bound, and all are answered.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @connectrpc/connect@2.3.0 @connectrpc/connect-node@2.3.0 @bufbuild/protobuf@2.17.0 @grpc/grpc-js@1.14.7 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	connectrpc.com/connect v1.21.1
	google.golang.org/grpc v1.85.0
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
	"os"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
)

type empty = emptypb.Empty

const one, watch = "/e.E/One", "/e.E/Watch"

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func main() {
	if len(os.Args) == 1 {
		serve()
	}
	address := os.Args[1]
	conn := must(grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials())))
	report("gRPC-Go", func(ctx context.Context) {
		s := must(conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, watch))
		if s.SendMsg(&empty{}) != nil || s.CloseSend() != nil || s.RecvMsg(&empty{}) != nil {
			panic("no watch")
		}
	}, func(ctx context.Context) error { return conn.Invoke(ctx, one, &empty{}, &empty{}) })
	if os.Args[2] == "grpc" {
		return
	}
	var only http.Protocols
	only.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: &only}}
	report("connect-go", func(ctx context.Context) {
		must(connect.NewClient[empty, empty](client, "http://"+address+watch).CallServerStream(ctx, connect.NewRequest(&empty{}))).Receive()
	}, func(ctx context.Context) error {
		_, err := connect.NewClient[empty, empty](client, "http://"+address+one).CallUnary(ctx, connect.NewRequest(&empty{}))
		return err
	})
}

// report opens 250 watches, and calls: once with all open, once after one has ended.
func report(name string, open func(context.Context), call func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	first, end := context.WithCancel(ctx)
	open(first)
	for range 249 {
		open(ctx)
	}
	full := answered(call)
	end()
	fmt.Printf("%s: with 250 watches %s, with 249 %s\n", name, full, answered(call))
}

func answered(call func(context.Context) error) string {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	switch err := call(ctx); {
	case err == nil:
		return "answered"
	case ctx.Err() != nil:
		return "waits"
	default:
		return err.Error()
	}
}

// serve is both servers; their first message tells that a watch is open.
func serve() {
	mux := http.NewServeMux()
	mux.Handle(one, connect.NewUnaryHandler(one, func(context.Context, *connect.Request[empty]) (*connect.Response[empty], error) {
		return connect.NewResponse(&empty{}), nil
	}))
	mux.Handle(watch, connect.NewServerStreamHandler(watch, func(ctx context.Context, _ *connect.Request[empty], s *connect.ServerStream[empty]) error {
		if err := s.Send(&empty{}); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	}))
	var both http.Protocols
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	l, lg := must(net.Listen("tcp", "127.0.0.1:0")), must(net.Listen("tcp", "127.0.0.1:0"))
	s := grpc.NewServer()
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "e.E",
		Methods: []grpc.MethodDesc{{MethodName: "One", Handler: func(any, context.Context, func(any) error, grpc.UnaryServerInterceptor) (any, error) {
			return &empty{}, nil
		}}},
		Streams: []grpc.StreamDesc{{StreamName: "Watch", ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			if err := s.SendMsg(&empty{}); err != nil {
				return err
			}
			<-s.Context().Done()
			return nil
		}}},
	}, nil)
	go s.Serve(lg)
	fmt.Println(l.Addr(), lg.Addr())
	panic((&http.Server{Handler: mux, Protocols: &both}).Serve(l))
}
EOT
cat > main.mjs <<'EOT'
import { createClient } from '@connectrpc/connect';
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from '@connectrpc/connect-node';
import { create, createFileRegistry } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema, FileDescriptorSetSchema, file_google_protobuf_empty } from '@bufbuild/protobuf/wkt';
import grpc from '@grpc/grpc-js';
import { setMaxListeners } from 'node:events';

const type = '.google.protobuf.Empty', address = process.argv[2];
const file = create(FileDescriptorProtoSchema, {
  name: 'e.proto', package: 'e', syntax: 'proto3', dependency: ['google/protobuf/empty.proto'],
  service: [{ name: 'E', method: [{ name: 'One', inputType: type, outputType: type }, { name: 'Watch', inputType: type, outputType: type, serverStreaming: true }] }],
});
const service = createFileRegistry(create(FileDescriptorSetSchema, { file: [file_google_protobuf_empty.proto, file] })).getService('e.E');

// report opens 250 watches, each with the signal that it is given, and calls: once with all open, once after one has ended.
async function report(name, open, call) {
  const first = new AbortController(), rest = new AbortController();
  setMaxListeners(0, rest.signal);
  await open(first.signal);
  for (let i = 0; i < 249; i++) await open(rest.signal);
  const full = await call();
  first.abort();
  console.log(`${name}: with 250 watches ${full}, with 249 ${await call()}`);
  rest.abort();
}

const transports = { Connect: createConnectTransport, gRPC: createGrpcTransport, 'gRPC-Web': createGrpcWebTransport };
if (process.argv[3] !== 'grpc') for (const [name, transport] of Object.entries(transports)) {
  const client = createClient(service, transport({ baseUrl: `http://${address}`, httpVersion: '2' }));
  await report(`connect-node, ${name}`, (signal) => client.watch({}, { signal })[Symbol.asyncIterator]().next(),
    () => client.one({}, { timeoutMs: 3000 }).then(() => 'answered', (err) => (err.code === 4 ? 'waits' : String(err))));
}
const client = new grpc.Client(address, grpc.credentials.createInsecure()), same = (bytes) => bytes, nothing = Buffer.alloc(0);
await report('grpc-js', (signal) => new Promise((done) => {
  const watch = client.makeServerStreamRequest('/e.E/Watch', same, same, nothing);
  watch.once('data', done).on('error', () => {});
  signal.addEventListener('abort', () => watch.cancel());
}), () => new Promise((done) => client.makeUnaryRequest('/e.E/One', same, same, nothing, { deadline: Date.now() + 3000 },
  (err) => done(!err ? 'answered' : err.code === 4 ? 'waits' : String(err)))));
process.exit();
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
GOTOOLCHAIN=local go build -o finding .
go list -m connectrpc.com/connect google.golang.org/grpc
go env GOVERSION
./finding > addresses &
until [ -s addresses ]; do sleep 0.1; done
read -r nethttp grpcgo < addresses
export NODE_NO_WARNINGS=1
{
  echo "net/http:"
  timeout 60 ./finding "$nethttp" all
  timeout 60 node main.mjs "$nethttp" all
  echo "gRPC-Go as the server:"
  timeout 60 ./finding "$grpcgo" grpc
  timeout 60 node main.mjs "$grpcgo" grpc
} | tee seen
cat > want <<'EOT'
net/http:
gRPC-Go: with 250 watches waits, with 249 answered
connect-go: with 250 watches answered, with 249 answered
connect-node, Connect: with 250 watches waits, with 249 answered
connect-node, gRPC: with 250 watches waits, with 249 answered
connect-node, gRPC-Web: with 250 watches waits, with 249 answered
grpc-js: with 250 watches waits, with 249 answered
gRPC-Go as the server:
gRPC-Go: with 250 watches answered, with 249 answered
grpc-js: with 250 watches answered, with 249 answered
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
