#!/usr/bin/env bash
# Guess: a .proto file that moves from proto2 to edition 2023, which keeps presence and defaults as they are, changes nothing for code that
# is generated from it, and a generator that tells its caller that it supports editions up to 2024 goes by their features.
# Seen: protoc-gen-ts_proto 2.18.0 says so to buf 1.75.0, and treats every edition as proto3. Of a field with the default 3, which TypeScript
# sets to 0, Go (google.golang.org/protobuf v1.36.12) has 0 in proto2 and 3 in edition 2023, as the 0 is not sent; what Go leaves unset
# is 3 in TypeScript in proto2 and 0 in edition 2023. @bufbuild/protobuf 2.17.0 alone, on whose wire functions ts-proto's code is built,
# sends the 0 and reads 3 in both.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @bufbuild/buf@1.75.0 @bufbuild/protobuf@2.17.0 ts-proto@2.18.0 typescript@5.9.3 > /dev/null 2>&1
mkdir protos go
cat > protos/two.proto <<'EOT'
syntax = "proto2";
package two;
message Limits {
  optional int32 retries = 1 [default = 3];
}
EOT
cat > protos/edition.proto <<'EOT'
edition = "2023";
package edition;
message Limits {
  int32 retries = 1 [default = 3];
}
EOT
echo 'version: v2' > protos/buf.yaml
cat > protos/buf.gen.yaml <<'EOT'
version: v2
plugins:
  - local: ../node_modules/.bin/protoc-gen-ts_proto
    out: ../generated
EOT
(cd protos && ../node_modules/.bin/buf generate && ../node_modules/.bin/buf build -o ../image.binpb)
cat > main.js <<'EOT'
'use strict';
const { execFileSync } = require('node:child_process');
const { readFileSync, writeFileSync } = require('node:fs');
const ts = require('typescript');
const { create, createFileRegistry, fromBinary, toBinary } = require('@bufbuild/protobuf');
const { FileDescriptorSetSchema } = require('@bufbuild/protobuf/wkt');
const version = (name) => JSON.parse(readFileSync(`node_modules/${name}/package.json`)).version;
console.log('node', process.version, 'ts-proto', version('ts-proto'), '@bufbuild/protobuf', version('@bufbuild/protobuf'));

const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync('image.binpb')));
const go = (message, bytes) => execFileSync('./limits', [message, Buffer.from(bytes).toString('hex')], { encoding: 'utf8' });
const seen = [];
for (const name of ['two', 'edition']) {
  const code = ts.transpileModule(readFileSync(`generated/${name}.ts`, 'utf8'), { compilerOptions: { module: 'commonjs', target: 'es2022' } });
  writeFileSync(`generated/${name}.js`, code.outputText);
  const { Limits } = require(`./generated/${name}.js`);
  const schema = registry.getMessage(`${name}.Limits`);
  const sent = { 'ts-proto': Limits.encode(Limits.fromPartial({ retries: 0 })).finish(), 'protobuf-es': toBinary(schema, create(schema, { retries: 0 })) };
  const read = { 'ts-proto': Limits.decode(new Uint8Array()).retries, 'protobuf-es': fromBinary(schema, new Uint8Array()).retries };
  for (const by of Object.keys(sent)) seen.push(`${name}, ${by}: 0 is in Go ${go(`${name}.Limits`, sent[by])}; unset in Go is ${read[by]}`);
}
console.log(seen.join('\n'));
const want = [
  'two, ts-proto: 0 is in Go 0, set; unset in Go is 3',
  'two, protobuf-es: 0 is in Go 0, set; unset in Go is 3',
  'edition, ts-proto: 0 is in Go 3, not set; unset in Go is 0',
  'edition, protobuf-es: 0 is in Go 0, set; unset in Go is 3',
];
if (seen.join() !== want.join()) {
  console.log('CHANGED');
  process.exit(1);
}
EOT
cat > go/go.mod <<'EOT'
module finding

go 1.26.0

require google.golang.org/protobuf v1.36.12
EOT
cat > go/main.go <<'EOT'
package main

import (
	"encoding/hex"
	"fmt"
	"os"

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

// main prints what retries is in the message of the name and the bytes that are given.
func main() {
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(must(os.ReadFile("image.binpb")), &set); err != nil {
		panic(err)
	}
	d := must(must(protodesc.NewFiles(&set)).FindDescriptorByName(protoreflect.FullName(os.Args[1]))).(protoreflect.MessageDescriptor)
	m := dynamicpb.NewMessage(d)
	if err := proto.Unmarshal(must(hex.DecodeString(os.Args[2])), m); err != nil {
		panic(err)
	}
	retries := d.Fields().ByName("retries")
	fmt.Print(m.Get(retries), map[bool]string{true: ", set", false: ", not set"}[m.Has(retries)])
}
EOT
(cd go && GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1 && GOTOOLCHAIN=local go build -o ../limits .)
echo "buf $(node_modules/.bin/buf --version)"
timeout 120 node main.js
