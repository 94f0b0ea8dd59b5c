#!/usr/bin/env bash
# Guess: what a server in Node tells by gRPC's reflection is the descriptor of its .proto file, with which a caller in Go, such as grpcurl, makes its calls.
# Seen: @grpc/reflection 1.0.4 with @grpc/proto-loader 0.8.1 and @grpc/grpc-js 1.14.7 tells it as it is for plain files. (1) The type of a file that is imported, such as
# google/protobuf/wrappers.proto, is told as if it stood in a file "google_protobuf.proto", which the file does not import: google.golang.org/protobuf v1.36.12
# makes no descriptor of that. (2) A file of edition 2023 is told as proto3, and so is none either, with a field that is delimited. (3) json_name is lost, and a field
# long_name is called longName, as by proto-loader's defaults. Only the wire form of the calls, which is the server's own, is right.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @bufbuild/buf@1.75.0 @grpc/{grpc-js@1.14.7,proto-loader@0.8.1,reflection@1.0.4} > /dev/null 2>&1
mkdir plain packed named wrapped optional edition
echo 'syntax = "proto3"; package e; message In { string name = 1; Sub sub = 2; message Sub {} Kind kind = 3; } enum Kind { NONE = 0; } service E { rpc Get(In) returns (In); }' > plain/e.proto
echo 'syntax = "proto3"; package e; message In { repeated int32 numbers = 1; repeated int32 loose = 2 [packed = false]; } service E { rpc Get(In) returns (In); }' > packed/e.proto
echo 'syntax = "proto3"; package e; message In { string name = 1 [json_name = "called"]; string long_name = 2; } service E { rpc Get(In) returns (In); }' > named/e.proto
echo 'syntax = "proto3"; package e; import "google/protobuf/wrappers.proto"; message In { google.protobuf.StringValue name = 1; } service E { rpc Get(In) returns (In); }' > wrapped/e.proto
echo 'syntax = "proto3"; package e; message In { optional string name = 1; string bare = 2; oneof one { string a = 3; } } service E { rpc Get(In) returns (In); }' > optional/e.proto
echo 'edition = "2023"; package e; message In { string name = 1; repeated int32 loose = 2 [features.repeated_field_encoding = EXPANDED]; In in = 3 [features.message_encoding = DELIMITED]; } service E { rpc Get(In) returns (In); }' > edition/e.proto
cat > server.cjs <<'EOT'
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');
const { ReflectionService } = require('@grpc/reflection');

const definition = loader.loadSync(`${process.argv[2]}/e.proto`);
const server = new grpc.Server();
new ReflectionService(definition).addToServer(server);
server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (_, port) => console.log(port));
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

func must[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// fields says of each field of In what a caller goes by.
func fields(set *descriptorpb.FileDescriptorSet) (out []string, err error) {
	files, err := protodesc.NewFiles(set)
	if err != nil {
		return nil, err
	}
	in, err := files.FindDescriptorByName("e.In")
	if err != nil {
		return nil, err
	}
	all := in.(protoreflect.MessageDescriptor).Fields()
	for i := range all.Len() {
		f := all.Get(i)
		out = append(out, fmt.Sprintf("%s is %q in JSON, %v, presence %t, packed %t", f.Name(), f.JSONName(), f.Kind(), f.HasPresence(), f.IsPacked()))
	}
	return out, nil
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, name := range []string{"plain", "packed", "named", "wrapped", "optional", "edition"} {
		var written descriptorpb.FileDescriptorSet
		check(proto.Unmarshal(must(os.ReadFile(name+".binpb")), &written))
		server := exec.Command("node", "server.cjs", name)
		out := must(server.StdoutPipe())
		check(server.Start())
		var port int
		must(fmt.Fscan(out, &port))
		conn := must(grpc.NewClient(fmt.Sprint("127.0.0.1:", port), grpc.WithTransportCredentials(insecure.NewCredentials())))
		s := must(reflection.NewServerReflectionClient(conn).ServerReflectionInfo(ctx))
		check(s.Send(&reflection.ServerReflectionRequest{MessageRequest: &reflection.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "e.E"}}))
		var told descriptorpb.FileDescriptorSet
		for _, file := range must(s.Recv()).GetFileDescriptorResponse().FileDescriptorProto {
			var f descriptorpb.FileDescriptorProto
			check(proto.Unmarshal(file, &f))
			told.File = append(told.File, &f)
		}
		server.Process.Kill()
		server.Wait()
		want := must(fields(&written))
		switch got, err := fields(&told); {
		case err != nil:
			// What stands behind "cannot resolve type" depends on the order of the files.
			why, _, _ := strings.Cut(strings.ReplaceAll(err.Error(), "\u00a0", " "), " type: ")
			fmt.Printf("%s: no descriptor: %s\n", name, why)
		case slices.Equal(got, want):
			fmt.Printf("%s: as it is written\n", name)
		default:
			for i := range want {
				if i >= len(got) || got[i] != want[i] {
					fmt.Printf("%s: %s; told: %s\n", name, want[i], got[i])
				}
			}
		}
	}
}
EOT
for name in plain packed named wrapped optional edition; do ./node_modules/.bin/buf build "$name" -o "$name.binpb"; done
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m google.golang.org/grpc
echo "@grpc/reflection $(node -p 'require("./node_modules/@grpc/reflection/package.json").version')"
GOTOOLCHAIN=local go build -o finding .
timeout 120 ./finding | tee seen
cat > want <<'EOT'
plain: as it is written
packed: as it is written
named: name is "called" in JSON, string, presence false, packed false; told: name is "name" in JSON, string, presence false, packed false
named: long_name is "longName" in JSON, string, presence false, packed false; told: longName is "longName" in JSON, string, presence false, packed false
wrapped: no descriptor: proto: message field "e.In.name" cannot resolve
optional: as it is written
edition: no descriptor: proto: message field "e.In.in" is an invalid group: invalid under proto3 semantics
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
