#!/usr/bin/env bash
# Guess: details of an error may be as large as messages. Where they are too large for a caller, it still learns the code; and a caller
# of gRPC-Web, whose trailers are part of the body, does not mind limits of headers.
# Seen: an error not_found with 20 KB of details from a unary handler of connect-go 1.21.1 reaches callers in Connect whole. In gRPC,
# grpcio 1.51.1 (Debian 12) makes resource_exhausted of it, which retry policies take for "later": more than 8 KiB of metadata are too
# many. In gRPC-Web over HTTP/1.1, @connectrpc/connect-node 2.3.0 makes internal of it, "Header overflow": without a message, the
# handler writes the end of the call into the headers, of which Node takes 16 KiB. Over HTTP/2 connect-node gets all.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
# With the libraries that it needs: not every machine has them.
apt-get download python3-grpcio=1.51.1-3+b1 libc-ares2 libre2-9 libabsl20220623 > /dev/null 2>&1
for package in *.deb; do dpkg-deb -x "$package" root; done
libraries=$(echo "$dir"/root/usr/lib/*-linux-gnu)
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
	"net"
	"net/http"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// find never does, and says so at length.
func find(_ context.Context, r *connect.Request[wrapperspb.Int32Value]) (*connect.Response[emptypb.Empty], error) {
	err := connect.NewError(connect.CodeNotFound, errors.New("no such thing"))
	detail, failed := connect.NewErrorDetail(wrapperspb.Bytes(make([]byte, r.Msg.GetValue())))
	if failed != nil {
		return nil, failed
	}
	err.AddDetail(detail)
	return nil, err
}

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	var both http.Protocols
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	panic((&http.Server{Handler: connect.NewUnaryHandler("/e.E/Find", find), Protocols: &both}).Serve(l))
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
GOTOOLCHAIN=local go build -o server .
./server > address &
server=$!
until [ -s address ]; do sleep 0.1; done
cat > caller.py <<'EOT'
import sys

import grpc

channel = grpc.insecure_channel(sys.argv[1])
# An Int32Value of 6,000 and of 20,000.
find = channel.unary_unary("/e.E/Find", lambda n: bytes([8, n & 127 | 128, n >> 7 & 127 | (128 if n > 16383 else 0)] + ([n >> 14] if n > 16383 else [])), bytes)
for size in 6000, 20000:
    try:
        find(size, timeout=10)
    except grpc.RpcError as e:
        whole = any(k == "grpc-status-details-bin" and len(v) > size for k, v in e.trailing_metadata() or ())
        print(f"grpcio {grpc.__version__}, gRPC, {size}: {e.code().name.lower()}, details {whole}")
EOT
cat > main.js <<'EOT'
'use strict';
const { readFileSync } = require('node:fs');
const { execFileSync } = require('node:child_process');
const { createConnectTransport, createGrpcTransport, createGrpcWebTransport } = require('@connectrpc/connect-node');
const { createClient, Code } = require('@connectrpc/connect');
const { create, createFileRegistry } = require('@bufbuild/protobuf');
const { FileDescriptorProtoSchema, FileDescriptorSetSchema, file_google_protobuf_wrappers, file_google_protobuf_empty } = require('@bufbuild/protobuf/wkt');
console.log('node', process.version, 'connect-node', JSON.parse(readFileSync('node_modules/@connectrpc/connect-node/package.json')).version);

const file = create(FileDescriptorProtoSchema, {
  name: 'e.proto', package: 'e', syntax: 'proto3', dependency: ['google/protobuf/wrappers.proto', 'google/protobuf/empty.proto'],
  service: [{ name: 'E', method: [{ name: 'Find', inputType: '.google.protobuf.Int32Value', outputType: '.google.protobuf.Empty' }] }],
});
const set = create(FileDescriptorSetSchema, { file: [file_google_protobuf_wrappers.proto, file_google_protobuf_empty.proto, file] });
const service = createFileRegistry(set).getService('e.E');
const address = process.argv[2];

(async () => {
  const seen = execFileSync('/usr/bin/python3', ['caller.py', address], { encoding: 'utf8', env: { ...process.env, LD_LIBRARY_PATH: process.env.LIBRARIES, PYTHONPATH: 'root/usr/lib/python3/dist-packages' } }).trim().split('\n');
  for (const [name, make, httpVersion] of [
    ['Connect, HTTP/1.1', createConnectTransport, '1.1'], ['Connect, HTTP/2', createConnectTransport, '2'], ['gRPC, HTTP/2', createGrpcTransport, '2'],
    ['gRPC-Web, HTTP/2', createGrpcWebTransport, '2'], ['gRPC-Web, HTTP/1.1', createGrpcWebTransport, '1.1'],
  ]) {
    const client = createClient(service, make({ baseUrl: 'http://' + address, httpVersion }));
    for (const value of [6000, 20000]) {
      const err = await client.find({ value }).catch((e) => e);
      seen.push(`connect-node, ${name}, ${value}: ${Code[err.code]}, details ${err.details.length === 1}${err.code === Code.NotFound ? '' : ' ' + err.rawMessage}`);
    }
  }
  console.log(seen.join('\n'));
  const want = [
    'grpcio 1.51.1, gRPC, 6000: not_found, details True', 'grpcio 1.51.1, gRPC, 20000: resource_exhausted, details False',
    ...['Connect, HTTP/1.1', 'Connect, HTTP/2', 'gRPC, HTTP/2', 'gRPC-Web, HTTP/2'].flatMap((n) => [6000, 20000].map((s) => `connect-node, ${n}, ${s}: NotFound, details true`)),
    'connect-node, gRPC-Web, HTTP/1.1, 6000: NotFound, details true', 'connect-node, gRPC-Web, HTTP/1.1, 20000: Internal, details false Parse Error: Header overflow',
  ];
  const as = seen.join('\n') === want.join('\n');
  if (!as) console.log('CHANGED');
  process.exit(as ? 0 : 1);
})();
EOT
LIBRARIES="$libraries" NODE_NO_WARNINGS=1 timeout 60 node main.js "$(cat address)"
