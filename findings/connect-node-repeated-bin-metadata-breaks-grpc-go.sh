#!/usr/bin/env bash
# Guess: two values of one binary metadata key arrive as two values, in whatever way they were written: the gRPC protocol
# ("PROTOCOL-HTTP2", Custom-Metadata) lets a sender join them with a comma, and has whoever reads split there first.
# Seen: connect-node 2.3.0 keeps metadata in a fetch Headers object, which joins what was appended with ", ", and sends one
# field. gRPC-Go 1.85.0 as the server decodes the field as one value and answers the call with HTTP 400 (grpc-status 13,
# "malformed binary metadata"), before any handler runs. A handler of connect-go 1.21.1 gets the call, and one joined value
# that connect.DecodeBinaryHeader refuses. @grpc/grpc-js 1.14.7 as the server has both values.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @grpc/grpc-js@1.14.7 @connectrpc/connect@2.3.0 @connectrpc/connect-node@2.3.0 @bufbuild/protobuf@2.17.0 > /dev/null 2>&1
mkdir go
cat > go/go.mod <<'EOT'
module finding

go 1.26.0

require (
	connectrpc.com/connect v1.21.1
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)
EOT
cat > go/main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"
)

func main() {
	ofGRPC, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "e.Echo", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: "Unary",
		Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			got, _ := metadata.FromIncomingContext(ctx)
			fmt.Printf("handler of grpc-go: %q\n", got.Get("x-bin"))
			return &emptypb.Empty{}, decode(&emptypb.Empty{})
		},
	}}}, struct{}{})
	go server.Serve(ofGRPC)

	ofConnect, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	both := new(http.Protocols)
	both.SetUnencryptedHTTP2(true)
	go (&http.Server{Protocols: both, Handler: connect.NewUnaryHandler("/e.Echo/Unary",
		func(_ context.Context, r *connect.Request[emptypb.Empty]) (*connect.Response[emptypb.Empty], error) {
			got := r.Header().Values("x-bin")
			_, err := connect.DecodeBinaryHeader(got[0])
			fmt.Printf("handler of connect-go: %q, %v\n", got, err)
			return connect.NewResponse(&emptypb.Empty{}), nil
		})}).Serve(ofConnect)

	cmd := exec.Command("node", "main.mjs", ofGRPC.Addr().String(), ofConnect.Addr().String())
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		panic(err)
	}
}
EOT
(cd go && GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1 && GOTOOLCHAIN=local go build -o ../servers .)
cat > main.mjs <<'EOT'
import grpc from '@grpc/grpc-js';
import { create, createFileRegistry } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema, FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { createClient, encodeBinaryHeader } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';

const Echo = createFileRegistry(create(FileDescriptorSetSchema, { file: [create(FileDescriptorProtoSchema, {
  name: 'e.proto', package: 'e', syntax: 'proto3', messageType: [{ name: 'Nothing' }],
  service: [{ name: 'Echo', method: [{ name: 'Unary', inputType: '.e.Nothing', outputType: '.e.Nothing' }] }],
})] })).getService('e.Echo');
const raw = (b) => b;
const server = new grpc.Server();
server.addService({
  Unary: { path: '/e.Echo/Unary', requestStream: false, responseStream: false, requestSerialize: raw, requestDeserialize: raw, responseSerialize: raw, responseDeserialize: raw },
}, {
  Unary(call, answer) {
    console.log('handler of grpc-js:', call.metadata.get('x-bin').map(String).join(' and '));
    answer(null, Buffer.alloc(0));
  },
});
const ofJS = await new Promise((ok, no) => server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (err, port) => (err ? no(err) : ok('127.0.0.1:' + port))));
const [ofGo, ofConnect] = process.argv.slice(2);
for (const [name, address, values] of [['grpc-js', ofJS, 2], ['grpc-go', ofGo, 1], ['grpc-go', ofGo, 2], ['connect-go', ofConnect, 2]]) {
  const headers = new Headers();
  for (const value of ['one', 'two'].slice(0, values)) headers.append('x-bin', encodeBinaryHeader(Buffer.from(value)));
  try {
    await createClient(Echo, createGrpcTransport({ baseUrl: 'http://' + address })).unary({}, { headers });
    console.log(name, values, 'ok');
  } catch (err) {
    console.log(name, values, err.message);
  }
}
process.exit(0);
EOT
echo "node $(node --version)"
seen=$(./servers)
echo "$seen"
want='handler of grpc-js: one and two
grpc-js 2 ok
handler of grpc-go: ["one"]
grpc-go 1 ok
grpc-go 2 [internal] HTTP 400
handler of connect-go: ["b25l, dHdv"], illegal base64 data at input byte 4
connect-go 2 ok'
[ "$seen" = "$want" ] || { echo CHANGED; exit 1; }
