#!/usr/bin/env bash
# Guess: one .proto file with rules of protovalidate is judged alike on both sides of a call: what a sender in TypeScript finds valid, the
# receiver in Go does, and the other way round: a rule means the same in both.
# Seen: (1) @bufbuild/protovalidate 1.3.0 compares a float field as the number of 64 bits that it was set to with a bound of 32 bits: with gte 0.1 it
# refuses 0.1, with lt 0.1 it takes it. Behind the wire, where the field has 32 bits as well, it says the opposite, as buf.build/go/protovalidate
# v1.4.0 does. (2) getMilliseconds of a duration in a rule of CEL's is the part of a second in TypeScript (@bufbuild/cel 0.6.1) and all of the
# duration in Go (cel.dev/cel-go v0.32.0): of 1.2 s "less than 1000" holds in the one and not in the other. getSeconds is the whole in both.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @bufbuild/protovalidate@1.3.0 @bufbuild/protobuf@2.17.0 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go v1.36.12-20260825204119-511051f7f437.2
	buf.build/go/protovalidate v1.4.0
	github.com/bufbuild/protocompile v0.14.1
	google.golang.org/protobuf v1.36.12
)
EOT
cat > rules.proto <<'EOT'
edition = "2023";
package e;
import "buf/validate/validate.proto";
import "google/protobuf/duration.proto";
message Rules {
  float at_least = 1 [(buf.validate.field).float.gte = 0.1];
  float below = 2 [(buf.validate.field).float.lt = 0.1];
  google.protobuf.Duration short = 3 [(buf.validate.field).cel = {id: "short", message: "a second or more", expression: "this.getMilliseconds() < 1000"}];
  google.protobuf.Duration seconds = 4 [(buf.validate.field).cel = {id: "seconds", message: "a minute or more", expression: "this.getSeconds() < 60"}];
}
EOT
cat > main.go <<'EOT'
package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"

	_ "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// Without arguments it writes the compiled rules; with one it judges messages, a name and base64 a line, from stdin.
func main() {
	if len(os.Args) > 1 {
		judge()
		return
	}
	compiler := protocompile.Compiler{Resolver: protocompile.CompositeResolver{
		&protocompile.SourceResolver{},
		protocompile.ResolverFunc(func(path string) (protocompile.SearchResult, error) {
			file, err := protoregistry.GlobalFiles.FindFileByPath(path)
			if err != nil {
				return protocompile.SearchResult{}, err
			}
			return protocompile.SearchResult{Proto: protodesc.ToFileDescriptorProto(file)}, nil
		}),
	}}
	files, err := compiler.Compile(context.Background(), "rules.proto")
	check(err)
	set := &descriptorpb.FileDescriptorSet{}
	known := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if known[file.Path()] {
			return
		}
		known[file.Path()] = true
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
	}
	add(files[0])
	b, err := proto.Marshal(set)
	check(err)
	check(os.WriteFile("rules.binpb", b, 0o600))
}

func judge() {
	b, err := os.ReadFile("rules.binpb")
	check(err)
	var set descriptorpb.FileDescriptorSet
	check(proto.Unmarshal(b, &set)) // with the extensions as they are generated
	file, err := protodesc.NewFile(set.GetFile()[len(set.GetFile())-1], protoregistry.GlobalFiles)
	check(err)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		name, text, _ := strings.Cut(lines.Text(), " = ")
		b, err := base64.StdEncoding.DecodeString(text)
		check(err)
		m := dynamicpb.NewMessage(file.Messages().ByName("Rules"))
		check(proto.Unmarshal(b, m))
		err = protovalidate.Validate(m)
		var violations *protovalidate.ValidationError
		if err != nil && !errors.As(err, &violations) {
			panic(err)
		}
		fmt.Printf("Go, received:         %s valid %t\n", name, err == nil)
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
GOTOOLCHAIN=local go build -o judge .
./judge
cat > main.mjs <<'EOT'
import { readFileSync, writeFileSync } from 'node:fs';
import { create, createFileRegistry, fromBinary, toBinary } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { createValidator } from '@bufbuild/protovalidate';

const schema = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync('rules.binpb'))).getMessage('e.Rules');
const validator = createValidator();
function valid(message) {
  const result = validator.validate(schema, message);
  if (result.kind === 'error') throw result.error;
  return result.kind === 'valid';
}
const messages = {
  'at_least: 0.1, gte 0.1': { atLeast: 0.1 }, 'below: 0.1, lt 0.1': { below: 0.1 }, 'short: 1.2 s, getMilliseconds() < 1000': { short: { seconds: 1n, nanos: 200_000_000 } },
  'seconds: 61 s, getSeconds() < 60': { seconds: { seconds: 61n } },
};
let sent = '';
for (const [name, fields] of Object.entries(messages)) {
  const message = create(schema, fields), bytes = toBinary(schema, message);
  console.log(`TypeScript, set:      ${name} valid ${valid(message)}`);
  console.log(`TypeScript, received: ${name} valid ${valid(fromBinary(schema, bytes))}`);
  sent += `${name} = ${Buffer.from(bytes).toString('base64')}\n`;
}
writeFileSync('sent', sent);
EOT
grep -E '/(go/protovalidate|cel-go) ' go.mod
for package in protovalidate cel; do echo "@bufbuild/$package $(node -p "JSON.parse(require('fs').readFileSync('node_modules/@bufbuild/$package/package.json')).version")"; done
{ node main.mjs; ./judge received < sent; } | tee seen
cat > want <<'EOT'
TypeScript, set:      at_least: 0.1, gte 0.1 valid false
TypeScript, received: at_least: 0.1, gte 0.1 valid true
TypeScript, set:      below: 0.1, lt 0.1 valid true
TypeScript, received: below: 0.1, lt 0.1 valid false
TypeScript, set:      short: 1.2 s, getMilliseconds() < 1000 valid true
TypeScript, received: short: 1.2 s, getMilliseconds() < 1000 valid true
TypeScript, set:      seconds: 61 s, getSeconds() < 60 valid false
TypeScript, received: seconds: 61 s, getSeconds() < 60 valid false
Go, received:         at_least: 0.1, gte 0.1 valid true
Go, received:         below: 0.1, lt 0.1 valid false
Go, received:         short: 1.2 s, getMilliseconds() < 1000 valid false
Go, received:         seconds: 61 s, getSeconds() < 60 valid false
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
