#!/usr/bin/env bash
# Guess: what is ProtoJSON, the JSON form of messages in which Connect sends them too, and what is not, Go and TypeScript agree upon: its rules are written
# down, and both libraries pass the conformance tests.
# Seen: google.golang.org/protobuf v1.36.12 and @bufbuild/protobuf 2.17.0 (npm) differ beyond those. (1) Of an int64 that is a number, 9007199254740993, TypeScript makes
# 9007199254740992, without a word; as text it keeps it. (2) Timestamps of the 30th of February and of 24:00 are those of the next days in TypeScript, and refused by
# Go. (3) Integers as text such as "0x10", "+1" and " 1" are taken by TypeScript alone, and "1e3" and "1.0", which ProtoJSON allows, by Go alone. (4) Go takes the
# durations "1.s", ".5s" and "+1s", and a "," in a timestamp; TypeScript refuses them. (5) A oneof with a value and a null for its message is refused by
# TypeScript. (6) Field masks with a blank or "*" are taken by TypeScript alone. So one service has callers whose requests another one refuses.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @bufbuild/{buf@1.75.0,protobuf@2.17.0} > /dev/null 2>&1
cat > e.proto <<'EOT'
syntax = "proto3";
package e;
import "google/protobuf/duration.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/timestamp.proto";
message Thing {
  int64 big = 1;
  google.protobuf.Timestamp time = 2;
  google.protobuf.Duration ttl = 3;
  google.protobuf.FieldMask mask = 4;
  oneof which {
    string name = 5;
    Thing thing = 6;
  }
}
EOT
cat > cases <<'EOT'
{"big":"9007199254740993"}
{"big":9007199254740993}
{"big":"0x10"}
{"big":"+1"}
{"big":" 1"}
{"big":"1e3"}
{"big":"1.0"}
{"big":1e3}
{"time":"2026-02-28T12:00:00Z"}
{"time":"2026-02-30T12:00:00Z"}
{"time":"2026-02-28T24:00:00Z"}
{"time":"2026-02-28T12:00:00,5Z"}
{"ttl":"1.5s"}
{"ttl":"1.s"}
{"ttl":".5s"}
{"ttl":"+1s"}
{"name":"a","thing":null}
{"mask":"name,big"}
{"mask":"name, big"}
{"mask":"*"}
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require google.golang.org/protobuf v1.36.12
EOT
cat > main.go <<'EOT'
package main

import (
	"bufio"
	"bytes"
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
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// main reads each text and writes it again, as it was understood.
func main() {
	var set descriptorpb.FileDescriptorSet
	check(proto.Unmarshal(must(os.ReadFile("set.binpb")), &set))
	thing := must(must(protodesc.NewFiles(&set)).FindDescriptorByName("e.Thing")).(protoreflect.MessageDescriptor)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		m := dynamicpb.NewMessage(thing)
		if err := protojson.Unmarshal(in.Bytes(), m); err != nil {
			fmt.Println(in.Text(), "Go refuses,")
			continue
		}
		var out bytes.Buffer
		if text, err := protojson.Marshal(m); err != nil {
			out.WriteString("cannot write it")
		} else {
			check(json.Compact(&out, text))
		}
		fmt.Println(in.Text(), "Go", out.String()+",")
	}
}
EOT
cat > main.mjs <<'EOT'
import { createFileRegistry, fromBinary, fromJsonString, toJsonString } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { readFileSync } from 'node:fs';

const thing = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync('set.binpb'))).getMessage('e.Thing');
for (const text of readFileSync('cases', 'utf8').trim().split('\n')) {
  let m;
  try {
    m = fromJsonString(thing, text);
  } catch {
    console.log('TypeScript refuses');
    continue;
  }
  try {
    console.log(`TypeScript ${toJsonString(thing, m)}`);
  } catch {
    console.log('TypeScript cannot write it');
  }
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
./node_modules/.bin/buf build . -o set.binpb
go list -m google.golang.org/protobuf
echo "@bufbuild/protobuf $(node -p 'require("./node_modules/@bufbuild/protobuf/package.json").version')"
GOTOOLCHAIN=local timeout 120 go run . < cases > go.seen
node main.mjs > node.seen
paste -d' ' go.seen node.seen | tee seen
cat > want <<'EOT'
{"big":"9007199254740993"} Go {"big":"9007199254740993"}, TypeScript {"big":"9007199254740993"}
{"big":9007199254740993} Go {"big":"9007199254740993"}, TypeScript {"big":"9007199254740992"}
{"big":"0x10"} Go refuses, TypeScript {"big":"16"}
{"big":"+1"} Go refuses, TypeScript {"big":"1"}
{"big":" 1"} Go refuses, TypeScript {"big":"1"}
{"big":"1e3"} Go {"big":"1000"}, TypeScript refuses
{"big":"1.0"} Go {"big":"1"}, TypeScript refuses
{"big":1e3} Go {"big":"1000"}, TypeScript {"big":"1000"}
{"time":"2026-02-28T12:00:00Z"} Go {"time":"2026-02-28T12:00:00Z"}, TypeScript {"time":"2026-02-28T12:00:00Z"}
{"time":"2026-02-30T12:00:00Z"} Go refuses, TypeScript {"time":"2026-03-02T12:00:00Z"}
{"time":"2026-02-28T24:00:00Z"} Go refuses, TypeScript {"time":"2026-03-01T00:00:00Z"}
{"time":"2026-02-28T12:00:00,5Z"} Go {"time":"2026-02-28T12:00:00.500Z"}, TypeScript refuses
{"ttl":"1.5s"} Go {"ttl":"1.500s"}, TypeScript {"ttl":"1.500s"}
{"ttl":"1.s"} Go {"ttl":"1s"}, TypeScript refuses
{"ttl":".5s"} Go {"ttl":"0.500s"}, TypeScript refuses
{"ttl":"+1s"} Go {"ttl":"1s"}, TypeScript refuses
{"name":"a","thing":null} Go {"name":"a"}, TypeScript refuses
{"mask":"name,big"} Go {"mask":"name,big"}, TypeScript {"mask":"name,big"}
{"mask":"name, big"} Go refuses, TypeScript {"mask":"name, big"}
{"mask":"*"} Go refuses, TypeScript {"mask":"*"}
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
