#!/usr/bin/env bash
# Guess: the text of an error in gRPC arrives as the service wrote it, blanks included: grpc-message is percent-encoded, so that any text can be in it, and what of
# ASCII can be printed, the blank among it, stands for itself (PROTOCOL-HTTP2, "Percent-Encoded").
# Seen: a text that begins or ends with a blank, such as "reading config: " where what follows is empty, does not arrive on Node at all. google.golang.org/grpc v1.85.0
# and connectrpc.com/connect v1.21.1 write the blank as it is, which the protocol allows. HTTP/2 does not: no value may begin or end with a blank (RFC 9113, 8.2.1), and
# node:http2 (Node 22.23.3, as 20 does) drops the whole field without a word. @grpc/grpc-js 1.14.7 and @connectrpc/connect-node 2.3.0 in gRPC and in gRPC-Web have the code
# with an empty text. In Connect, where the text is in the body, it arrives, and so it does for callers in Go in each protocol.
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
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type text = wrapperspb.StringValue

func main() {
	var only http.Protocols
	only.SetUnencryptedHTTP2(true)
	if len(os.Args) == 3 {
		call(os.Args[1], os.Args[2], &http.Client{Transport: &http.Transport{Protocols: &only}})
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
		MethodName: "Fail", Handler: func(_ any, _ context.Context, read func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var in text
			if err := read(&in); err != nil {
				return nil, err
			}
			return nil, status.Error(codes.NotFound, in.GetValue())
		},
	}}}, nil)
	go func() { panic(s.Serve(g)) }()
	panic((&http.Server{Protocols: &only, Handler: connect.NewUnaryHandler("/e.S/Fail", func(_ context.Context, r *connect.Request[text]) (*connect.Response[text], error) {
		return nil, connect.NewError(connect.CodeNotFound, errors.New(r.Msg.GetValue()))
	})}).Serve(l))
}

// call makes the calls of the test in Go.
func call(atConnect, atGRPC string, hc *http.Client) {
	for _, said := range []string{"disk full", "reading config: ", " disk full"} {
		for _, o := range []struct {
			name   string
			option connect.ClientOption
		}{{"Connect", connect.WithClientOptions()}, {"gRPC", connect.WithGRPC()}, {"gRPC-Web", connect.WithGRPCWeb()}} {
			_, err := connect.NewClient[text, text](hc, "http://"+atConnect+"/e.S/Fail", o.option).CallUnary(context.Background(), connect.NewRequest(wrapperspb.String(said)))
			var e *connect.Error
			if !errors.As(err, &e) {
				panic(err)
			}
			fmt.Printf("%q from connect-go, connect-go in %s: %d %q\n", said, o.name, e.Code(), e.Message())
		}
		for at, name := range map[string]string{atConnect: "connect-go", atGRPC: "grpc-go"} {
			cc, err := grpc.NewClient(at, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				panic(err)
			}
			e := status.Convert(cc.Invoke(context.Background(), "/e.S/Fail", wrapperspb.String(said), &text{}))
			fmt.Printf("%q from %s, grpc-go: %d %q\n", said, name, e.Code(), e.Message())
		}
	}
}
EOM
cat > main.cjs <<'EOM'
'use strict';
const grpc = require('@grpc/grpc-js');
const { createConnectTransport, createGrpcTransport, createGrpcWebTransport } = require('@connectrpc/connect-node');
const { createClient } = require('@connectrpc/connect');
const { create, createFileRegistry, toBinary } = require('@bufbuild/protobuf');
const { FileDescriptorProtoSchema, FileDescriptorSetSchema, StringValueSchema, file_google_protobuf_wrappers } = require('@bufbuild/protobuf/wkt');
const [atConnect, atGRPC] = process.argv.slice(2);
const type = '.google.protobuf.StringValue';
const file = create(FileDescriptorProtoSchema, {
  name: 'e.proto', package: 'e', syntax: 'proto3', dependency: ['google/protobuf/wrappers.proto'],
  service: [{ name: 'S', method: [{ name: 'Fail', inputType: type, outputType: type }] }],
});
const service = createFileRegistry(create(FileDescriptorSetSchema, { file: [file_google_protobuf_wrappers.proto, file] })).getService('e.S');
const raw = (b) => Buffer.from(b);
(async () => {
  for (const value of ['disk full', 'reading config: ', ' disk full']) {
    const say = (from, by, code, text) => console.log(`${JSON.stringify(value)} from ${from}, ${by}: ${code} ${JSON.stringify(text)}`);
    const transports = [['Connect', createConnectTransport, 'connect-go', atConnect], ['gRPC', createGrpcTransport, 'connect-go', atConnect], ['gRPC-Web', createGrpcWebTransport, 'connect-go', atConnect], ['gRPC', createGrpcTransport, 'grpc-go', atGRPC]];
    for (const [protocol, transport, from, at] of transports) {
      await createClient(service, transport({ baseUrl: `http://${at}`, httpVersion: '2' })).fail({ value }).catch((e) => say(from, `connect-node in ${protocol}`, e.code, e.rawMessage));
    }
    for (const [from, at] of [['connect-go', atConnect], ['grpc-go', atGRPC]]) {
      const client = new grpc.Client(at, grpc.credentials.createInsecure());
      const e = await new Promise((done) => client.makeUnaryRequest('/e.S/Fail', raw, raw, toBinary(StringValueSchema, create(StringValueSchema, { value })), done));
      say(from, 'grpc-js', e.code, e.details);
    }
  }
  process.exit();
})();
EOM
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m connectrpc.com/connect google.golang.org/grpc
node_modules/.bin/node -p '"node " + process.version'
for package in @grpc/grpc-js @connectrpc/connect-node; do node -p "'$package ' + JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version"; done
GOTOOLCHAIN=local go build -o finding .
./finding > addresses &
until [ -s addresses ]; do sleep 0.1; done
read -r connect grpc < addresses
timeout 60 ./finding "$connect" "$grpc" > seen
timeout 60 node_modules/.bin/node main.cjs "$connect" "$grpc" >> seen
sort -o seen seen
cat seen
LC_ALL=C sort > want <<'EOM'
"disk full" from connect-go, connect-go in Connect: 5 "disk full"
"disk full" from connect-go, connect-go in gRPC: 5 "disk full"
"disk full" from connect-go, connect-go in gRPC-Web: 5 "disk full"
"disk full" from connect-go, connect-node in Connect: 5 "disk full"
"disk full" from connect-go, connect-node in gRPC: 5 "disk full"
"disk full" from connect-go, connect-node in gRPC-Web: 5 "disk full"
"disk full" from connect-go, grpc-go: 5 "disk full"
"disk full" from connect-go, grpc-js: 5 "disk full"
"disk full" from grpc-go, connect-node in gRPC: 5 "disk full"
"disk full" from grpc-go, grpc-go: 5 "disk full"
"disk full" from grpc-go, grpc-js: 5 "disk full"
"reading config: " from connect-go, connect-go in Connect: 5 "reading config: "
"reading config: " from connect-go, connect-go in gRPC: 5 "reading config: "
"reading config: " from connect-go, connect-go in gRPC-Web: 5 "reading config: "
"reading config: " from connect-go, connect-node in Connect: 5 "reading config: "
"reading config: " from connect-go, connect-node in gRPC: 5 ""
"reading config: " from connect-go, connect-node in gRPC-Web: 5 ""
"reading config: " from connect-go, grpc-go: 5 "reading config: "
"reading config: " from connect-go, grpc-js: 5 ""
"reading config: " from grpc-go, connect-node in gRPC: 5 ""
"reading config: " from grpc-go, grpc-go: 5 "reading config: "
"reading config: " from grpc-go, grpc-js: 5 ""
" disk full" from connect-go, connect-go in Connect: 5 " disk full"
" disk full" from connect-go, connect-go in gRPC: 5 " disk full"
" disk full" from connect-go, connect-go in gRPC-Web: 5 " disk full"
" disk full" from connect-go, connect-node in Connect: 5 " disk full"
" disk full" from connect-go, connect-node in gRPC: 5 ""
" disk full" from connect-go, connect-node in gRPC-Web: 5 ""
" disk full" from connect-go, grpc-go: 5 " disk full"
" disk full" from connect-go, grpc-js: 5 ""
" disk full" from grpc-go, connect-node in gRPC: 5 ""
" disk full" from grpc-go, grpc-go: 5 " disk full"
" disk full" from grpc-go, grpc-js: 5 ""
EOM
LC_ALL=C sort seen | cmp -s - want || { echo CHANGED; exit 1; }
