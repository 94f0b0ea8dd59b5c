#!/usr/bin/env bash
# Guess: an error of a DRPC service reaches callers in gRPC-Web, which drpchttp speaks beside its own protocols, with the code and the text that
# it was made with, whatever the text says; gRPC's protocol has a caller keep a text that it cannot decode as it is.
# Seen: storj.io/drpc v1.0.0 (drpchttp) writes grpc-message as it is, where the protocol asks for percent-encoding. With "disk is 100 % full"
# a caller of connectrpc.com/connect v1.21.1 or connectrpc.com/connect/v2 v2.0.2 loses the code, too: aborted arrives as internal,
# "protocol error: invalid error message". @connectrpc/connect-node 2.3.0 makes unknown of it, "URI malformed". "disk is 90%25 full"
# arrives as "90% full" at all three. A text without a percent sign arrives with its code.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @connectrpc/connect@2.3.0 @connectrpc/connect-node@2.3.0 @bufbuild/protobuf@2.17.0 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	connectrpc.com/connect v1.21.1
	connectrpc.com/connect/v2 v2.0.2
	google.golang.org/protobuf v1.36.12
	storj.io/drpc v1.0.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"

	"connectrpc.com/connect"
	connect2 "connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"storj.io/drpc"
	"storj.io/drpc/drpcerr"
	"storj.io/drpc/drpchttp"
	"storj.io/drpc/drpcmux"
)

type text = wrapperspb.StringValue

const method = "/e.E/Fail"

// failer answers with an error of the text that it gets.
type failer struct{}

func (failer) Fail(_ context.Context, in *text) (*text, error) {
	return nil, drpcerr.WithCode(errors.New(in.GetValue()), uint64(connect.CodeAborted))
}

// description is what protoc-gen-go-drpc would generate.
type description struct{}

func (description) NumMethods() int { return 1 }

func (description) Method(int) (string, drpc.Encoding, drpc.Receiver, any, bool) {
	return method, encoding{}, func(server any, ctx context.Context, in, _ any) (drpc.Message, error) {
		return server.(failer).Fail(ctx, in.(*text))
	}, failer.Fail, true
}

type encoding struct{}

func (encoding) Marshal(m drpc.Message) ([]byte, error)       { return proto.Marshal(m.(proto.Message)) }
func (encoding) Unmarshal(b []byte, m drpc.Message) error     { return proto.Unmarshal(b, m.(proto.Message)) }
func (encoding) JSONMarshal(m drpc.Message) ([]byte, error)   { return protojson.Marshal(m.(proto.Message)) }
func (encoding) JSONUnmarshal(b []byte, m drpc.Message) error { return protojson.Unmarshal(b, m.(proto.Message)) }

func v1(s *httptest.Server, said string) string {
	_, err := connect.NewClient[text, text](s.Client(), s.URL+method, connect.WithGRPCWeb()).CallUnary(context.Background(), connect.NewRequest(wrapperspb.String(said)))
	return fmt.Sprint(err)
}

func v2(s *httptest.Server, said string) string {
	client := connect2.NewClient(connecthttp.NewTransport(s.Client(), s.URL, connecthttp.WithGRPCWeb()))
	return fmt.Sprint(client.CallUnary(context.Background(), connect2.Spec{Procedure: method}, wrapperspb.String(said), new(text)))
}

func node(s *httptest.Server, said string) string {
	out, err := exec.Command("node", "main.js", s.URL, said).CombinedOutput()
	if err != nil {
		return string(out) + err.Error()
	}
	return strings.TrimSpace(string(out))
}

func main() {
	mux := drpcmux.New()
	if err := mux.Register(failer{}, description{}); err != nil {
		panic(err)
	}
	s := httptest.NewServer(drpchttp.New(mux))
	defer s.Close()
	var seen []string
	for _, said := range []string{"disk is full", "disk is 100 % full", "disk is 90%25 full"} {
		seen = append(seen, said+":", "v1: "+v1(s, said), "v2: "+v2(s, said), "node: "+node(s, said))
	}
	fmt.Println(strings.Join(seen, "\n"))
	want, _ := os.ReadFile("want")
	if strings.Join(seen, "\n")+"\n" != string(want) {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
cat > main.js <<'EOT'
'use strict';
const { createGrpcWebTransport } = require('@connectrpc/connect-node');
const { Code, createClient } = require('@connectrpc/connect');
const { create, createFileRegistry } = require('@bufbuild/protobuf');
const { FileDescriptorProtoSchema, FileDescriptorSetSchema, file_google_protobuf_wrappers } = require('@bufbuild/protobuf/wkt');

const type = '.google.protobuf.StringValue';
const file = create(FileDescriptorProtoSchema, {
  name: 'e.proto', package: 'e', syntax: 'proto3', dependency: ['google/protobuf/wrappers.proto'],
  service: [{ name: 'E', method: [{ name: 'Fail', inputType: type, outputType: type }] }],
});
const service = createFileRegistry(create(FileDescriptorSetSchema, { file: [file_google_protobuf_wrappers.proto, file] })).getService('e.E');
const [baseUrl, value] = process.argv.slice(2);
createClient(service, createGrpcWebTransport({ baseUrl, httpVersion: '1.1' })).fail({ value })
  .then(() => console.log('no error'), (e) => console.log(`${Code[e.code]}: ${e.rawMessage}`));
EOT
cat > want <<'EOT'
disk is full:
v1: aborted: disk is full
v2: aborted: disk is full
node: Aborted: disk is full
disk is 100 % full:
v1: internal: protocol error: invalid error message ""
v2: internal: protocol error: invalid error message ""
node: Unknown: URI malformed
disk is 90%25 full:
v1: aborted: disk is 90% full
v2: aborted: disk is 90% full
node: Aborted: disk is 90% full
EOT
export GOTOOLCHAIN=local GOFLAGS=-mod=mod
go mod tidy > /dev/null 2>&1
go list -m connectrpc.com/connect connectrpc.com/connect/v2 storj.io/drpc
echo "node $(node --version) connect-node $(sed -n 's/.*"version": "\(.*\)".*/\1/p' node_modules/@connectrpc/connect-node/package.json)"
NODE_NO_WARNINGS=1 timeout 120 go run .
