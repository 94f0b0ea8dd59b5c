#!/usr/bin/env bash
# Guess: two encodings of a message, one behind the other, are read as the message that both make together, as defaults and what overrides them: protobuf's encoding
# guide ("Last One Wins") promises that for each parser, and says that embedded messages are merged field by field.
# Seen: of the libraries for Node ts-proto 2.18.0, pbf 5.1.2, protons 9.0.2 and google-protobuf 4.0.3, which is Google's own, keep the last embedded message and drop the one before
# it, without a word: limits {memory: 64} and then limits {files: 9} is {files: 9} with them, and has memory 0. So it is in a oneof. Repeated fields and maps do come
# from both. google.golang.org/protobuf v1.36.12, @bufbuild/protobuf 2.17.0, protobufjs 8.8.1 and @protobuf-ts/runtime 2.11.1 merge as promised.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
echo '{"type": "module"}' > package.json
npm install --silent --no-audit --no-fund --no-save node@22.23.3 @bufbuild/buf@1.75.0 @bufbuild/protobuf@2.17.0 protobufjs@8.8.1 @protobuf-ts/plugin@2.11.1 @protobuf-ts/runtime@2.11.1 ts-proto@2.18.0 pbf@5.1.2 protons@9.0.2 protons-runtime@8.0.1 google-protobuf@4.0.3 > /dev/null 2>&1
PATH=$dir/node_modules/.bin:$PATH
mkdir proto protons
cat > proto/t.proto <<'EOM'
syntax = "proto3";
package t;
message Plugin {
  string name = 1;
  repeated string tags = 2;
  Limits limits = 3;
  map<string, int32> ports = 4;
  oneof source {
    Path path = 5;
    string url = 6;
  }
}
message Limits {
  int32 memory = 1;
  int32 files = 2;
}
message Path {
  string dir = 1;
  string file = 2;
}
EOM
cat > buf.gen.yaml <<'EOM'
version: v2
plugins:
  - local: protoc-gen-ts_proto
    out: ts-proto
    opt: [outputServices=none, importSuffix=.js]
  - local: protoc-gen-ts
    out: protobuf-ts
EOM
buf build proto -o t.binpb
buf generate proto
pbf proto/t.proto > pbf.mjs
protons proto/t.proto --output protons > /dev/null
cat > go.mod <<'EOM'
module finding

go 1.26.0

require google.golang.org/protobuf v1.36.12
EOM
cat > main.go <<'EOM'
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func main() {
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(must(os.ReadFile("t.binpb")), &set); err != nil {
		panic(err)
	}
	plugin := must(must(protodesc.NewFiles(&set)).FindDescriptorByName("t.Plugin")).(protoreflect.MessageDescriptor)
	var both []byte
	for _, text := range []string{
		`{"name": "greeter", "tags": ["a"], "limits": {"memory": 64}, "ports": {"http": 80}, "path": {"dir": "/opt"}}`,
		`{"tags": ["b"], "limits": {"files": 9}, "ports": {"admin": 81}, "path": {"file": "x.wasm"}}`,
	} {
		m := dynamicpb.NewMessage(plugin)
		if err := protojson.Unmarshal([]byte(text), m); err != nil {
			panic(err)
		}
		both = append(both, must(proto.Marshal(m))...)
	}
	if err := os.WriteFile("both", both, 0o600); err != nil {
		panic(err)
	}
	m := dynamicpb.NewMessage(plugin)
	if err := proto.Unmarshal(both, m); err != nil {
		panic(err)
	}
	var read struct {
		Tags         []string
		Limits, Path map[string]any
		Ports        map[string]int
	}
	if err := json.Unmarshal(must(protojson.Marshal(m)), &read); err != nil {
		panic(err)
	}
	fmt.Printf("google.golang.org/protobuf: tags %d, ports %d, memory %v, files %v, dir %q, file %q\n", len(read.Tags), len(read.Ports), read.Limits["memory"], read.Limits["files"], read.Path["dir"], read.Path["file"])
}
EOM
cat > main.mjs <<'EOM'
import { readFileSync } from 'node:fs';
import { createFileRegistry, fromBinary, toJson } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import protobufjs from 'protobufjs';
import { PbfReader } from 'pbf';
import descriptor from 'google-protobuf/google/protobuf/descriptor_pb.js';
import { Plugin as TsProto } from './ts-proto/t.ts';
import { Plugin as ProtobufTs } from './protobuf-ts/t.ts';
import { t as Protons } from './protons/t.ts';
import { readPlugin } from './pbf.mjs';

const both = readFileSync('both');
function say(name, m) {
  const path = m.path ?? m.source.path;
  const ports = m.ports instanceof Map ? m.ports.size : Object.keys(m.ports).length;
  console.log(`${name}: tags ${m.tags.length}, ports ${ports}, memory ${m.limits.memory ?? 0}, files ${m.limits.files}, dir "${path.dir ?? ''}", file "${path.file}"`);
}
const schema = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync('t.binpb'))).getMessage('t.Plugin');
say('@bufbuild/protobuf', toJson(schema, fromBinary(schema, both)));
say('protobufjs', protobufjs.loadSync('proto/t.proto').lookupType('t.Plugin').decode(both));
say('protobuf-ts', ProtobufTs.fromBinary(both));
say('ts-proto', TsProto.decode(both));
say('pbf', readPlugin(new PbfReader(both)));
say('protons', Protons.Plugin.decode(both));
// Of google-protobuf there is a generated message in the package itself.
const part = (set, value) => {
  const options = new descriptor.FileOptions();
  options[set](value);
  const file = new descriptor.FileDescriptorProto();
  file.setOptions(options);
  file.addDependency('x.proto');
  return file.serializeBinary();
};
const file = descriptor.FileDescriptorProto.deserializeBinary(Buffer.concat([part('setJavaPackage', 'first'), part('setGoPackage', 'second')]));
console.log(`google-protobuf: dependencies ${file.getDependencyList().length}, java_package "${file.getOptions().getJavaPackage() ?? ''}", go_package "${file.getOptions().getGoPackage()}"`);
EOM
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m google.golang.org/protobuf
for package in @bufbuild/protobuf protobufjs @protobuf-ts/runtime ts-proto pbf protons google-protobuf; do node -p "'$package ' + JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version" --input-type=commonjs; done
GOTOOLCHAIN=local timeout 120 go run . | tee seen
node_modules/.bin/node --no-warnings --experimental-transform-types main.mjs | tee -a seen
cat > want <<'EOM'
google.golang.org/protobuf: tags 2, ports 2, memory 64, files 9, dir "/opt", file "x.wasm"
@bufbuild/protobuf: tags 2, ports 2, memory 64, files 9, dir "/opt", file "x.wasm"
protobufjs: tags 2, ports 2, memory 64, files 9, dir "/opt", file "x.wasm"
protobuf-ts: tags 2, ports 2, memory 64, files 9, dir "/opt", file "x.wasm"
ts-proto: tags 2, ports 2, memory 0, files 9, dir "", file "x.wasm"
pbf: tags 2, ports 2, memory 0, files 9, dir "", file "x.wasm"
protons: tags 2, ports 2, memory 0, files 9, dir "", file "x.wasm"
google-protobuf: dependencies 2, java_package "", go_package "second"
EOM
cmp -s seen want || { echo CHANGED; exit 1; }
