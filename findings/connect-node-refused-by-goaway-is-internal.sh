#!/usr/bin/env bash
# Guess: nginx, which tells a client of HTTP/2 to open another connection after so many requests (keepalive_requests, 1,000 by default;
# here 100) with a GOAWAY, costs clients no call: what it did not take goes to the new connection, or at least fails with unavailable, as gRPC
# maps REFUSED_STREAM, so that it is tried again.
# Seen: @connectrpc/connect-node 2.3.0 behind nginx 1.22.1 (Debian 12), 20 calls at a time, loses some calls at each GOAWAY, in all three
# protocols, with code internal, "Stream closed with error code NGHTTP2_REFUSED_STREAM". The service never saw them.
# @grpc/grpc-js 1.14.7 and connect-go 1.21.1 lose none of their unary calls.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; wait; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
apt-get download nginx=1.22.1-9+deb12u11 > /dev/null 2>&1
dpkg-deb -x nginx_*.deb root
npm install --silent --no-audit --no-fund --no-save @connectrpc/connect@2.3.0 @connectrpc/connect-node@2.3.0 @bufbuild/protobuf@2.17.0 @grpc/grpc-js@1.14.7 > /dev/null 2>&1
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
	"os"
	"sync"
	"sync/atomic"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type number = wrapperspb.Int64Value

var served atomic.Int64

// count counts calls; a call with another number than 0 asks how many there were.
func count(_ context.Context, r *connect.Request[number]) (*connect.Response[number], error) {
	if r.Msg.GetValue() != 0 {
		return connect.NewResponse(wrapperspb.Int64(served.Swap(0))), nil
	}
	served.Add(1)
	return connect.NewResponse(&number{}), nil
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
	free, err := net.Listen("tcp", "127.0.0.1:0") // for nginx
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr(), free.Addr())
	free.Close()
	panic((&http.Server{Handler: connect.NewUnaryHandler("/e.Count/Up", count), Protocols: &only}).Serve(l))
}

// call makes the calls of the test in Go.
func call(addr string, client *http.Client) {
	var failed atomic.Int64
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			c := connect.NewClient[number, number](client, "http://"+addr+"/e.Count/Up")
			for range 50 {
				if _, err := c.CallUnary(context.Background(), connect.NewRequest(&number{})); err != nil {
					failed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	fmt.Print(failed.Load())
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
GOTOOLCHAIN=local go build -o count .
./count > addresses &
until [ -s addresses ]; do sleep 0.1; done
read -r service proxy < addresses
cat > nginx.conf <<EOT
daemon off;
master_process off;
pid $dir/pid;
error_log $dir/error.log;
events {}
http {
  access_log off;
  client_body_temp_path $dir/body; proxy_temp_path $dir/proxy; fastcgi_temp_path $dir/f; uwsgi_temp_path $dir/u; scgi_temp_path $dir/s;
  server {
    listen $proxy http2;
    keepalive_requests 100;
    location / { grpc_pass grpc://$service; }
  }
}
EOT
root/usr/sbin/nginx -v
root/usr/sbin/nginx -c "$dir/nginx.conf" -p "$dir" 2> /dev/null &
cat > main.js <<'EOT'
'use strict';
const { readFileSync } = require('node:fs');
const net = require('node:net');
const { execFileSync } = require('node:child_process');
const grpc = require('@grpc/grpc-js');
const { createConnectTransport, createGrpcTransport, createGrpcWebTransport } = require('@connectrpc/connect-node');
const { createClient, Code } = require('@connectrpc/connect');
const { create, createFileRegistry } = require('@bufbuild/protobuf');
const { FileDescriptorProtoSchema, FileDescriptorSetSchema, file_google_protobuf_wrappers } = require('@bufbuild/protobuf/wkt');
const version = (name) => JSON.parse(readFileSync(`node_modules/${name}/package.json`)).version;
console.log('node', process.version, 'connect-node', version('@connectrpc/connect-node'), 'grpc-js', version('@grpc/grpc-js'));

const [service, proxy] = process.argv.slice(2);
const type = '.google.protobuf.Int64Value';
const file = create(FileDescriptorProtoSchema, {
  name: 'e.proto', package: 'e', syntax: 'proto3', dependency: ['google/protobuf/wrappers.proto'],
  service: [{ name: 'Count', method: [{ name: 'Up', inputType: type, outputType: type }] }],
});
const counter = createFileRegistry(create(FileDescriptorSetSchema, { file: [file_google_protobuf_wrappers.proto, file] })).getService('e.Count');
const total = 1000, atOnce = 20;

async function many(call) {
  let left = total;
  const failures = {};
  await Promise.all(Array.from({ length: atOnce }, async () => {
    while (left-- > 0) await call().catch((err) => { const said = `${err.code} ${err.rawMessage ?? err.details}`; failures[said] = (failures[said] ?? 0) + 1; });
  }));
  return failures;
}

async function up(port, host) {
  while (!(await new Promise((done) => net.connect(port, host).once('connect', function () { this.destroy(); done(true); }).once('error', () => setTimeout(done, 100, false)))));
}

(async () => {
  await up(Number(proxy.split(':')[1]), '127.0.0.1');
  const direct = createClient(counter, createGrpcTransport({ baseUrl: 'http://' + service }));
  const served = async () => Number((await direct.up({ value: 1n })).value);
  let as = true;
  for (const [name, transport] of Object.entries({ connect: createConnectTransport, grpc: createGrpcTransport, grpcweb: createGrpcWebTransport })) {
    const client = createClient(counter, transport({ baseUrl: 'http://' + proxy, httpVersion: '2' }));
    const failures = await many(() => client.up({}));
    const lost = Object.values(failures).reduce((a, b) => a + b, 0);
    const took = await served();
    console.log(`connect-node, ${name}: of ${total} calls ${lost} fail, ${took} were served:`, failures);
    as &&= lost > 0 && took === total - lost && Object.keys(failures).join() === `${Code.Internal} Stream closed with error code NGHTTP2_REFUSED_STREAM`;
  }
  const raw = (b) => b;
  const client = new grpc.Client(proxy, grpc.credentials.createInsecure());
  const failures = await many(() => new Promise((done, failed) => client.makeUnaryRequest('/e.Count/Up', raw, raw, Buffer.alloc(0), (err) => (err ? failed(err) : done()))));
  console.log('grpc-js:', failures);
  const go = execFileSync('./count', [proxy], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  console.log('connect-go:', go);
  as &&= Object.keys(failures).length === 0 && go === '0';
  if (!as) console.log('CHANGED');
  process.exit(as ? 0 : 1);
})();
EOT
NODE_NO_WARNINGS=1 timeout 300 node main.js "$service" "$proxy"
