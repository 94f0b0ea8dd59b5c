#!/usr/bin/env bash
# Guess: ProtoJSON, the JSON form of messages in which Connect sends them too, is read alike in Go and TypeScript: its rules are written down, and both libraries
# pass the conformance tests.
# Seen: google.golang.org/protobuf v1.36.12 and @bufbuild/protobuf 2.17.0 (npm) differ on messages that are valid. (1) Of an int64 that is a number, 9007199254740993,
# TypeScript makes 9007199254740992, without a word, which ProtoJSON asks of readers, and it refuses 9223372036854775807; Go keeps both, and both keep them as text.
# (2) "1e3" and "1.0", text for an integer, are read by TypeScript for an int32, and refused for an int64. (3) A oneof with a value, and a null for its message or
# enum, is refused by TypeScript, though null leaves a field unset; for its int32 it is not. (4) A float of 16777217 stays that in TypeScript, and is 16777216, the
# next one there is, in Go. So one service has callers whose requests another one refuses.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @bufbuild/{buf@1.75.0,protobuf@2.17.0} > /dev/null 2>&1
cat > e.proto <<'EOT'
syntax = "proto3";
package e;
import "google/protobuf/timestamp.proto";
enum State {
  STATE_UNSPECIFIED = 0;
  STATE_ON = 1;
}
message Thing {
  int64 big = 1;
  int32 small = 2;
  float ratio = 3;
  oneof which {
    string name = 4;
    Thing thing = 5;
    google.protobuf.Timestamp time = 6;
    State state = 7;
    int32 count = 8;
  }
}
EOT
cat > cases <<'EOT'
{"big":"9007199254740993"}
{"big":9007199254740993}
{"big":"9223372036854775807"}
{"big":9223372036854775807}
{"big":1e3}
{"big":"1e3"}
{"big":"1.0"}
{"small":"1e3"}
{"small":"1.0"}
{"name":"a","count":null}
{"name":"a","thing":null}
{"thing":null,"name":"a"}
{"name":"a","time":null}
{"state":1}
{"name":"a","state":null}
{"ratio":0.1}
{"ratio":16777217}
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
{"big":"9223372036854775807"} Go {"big":"9223372036854775807"}, TypeScript {"big":"9223372036854775807"}
{"big":9223372036854775807} Go {"big":"9223372036854775807"}, TypeScript refuses
{"big":1e3} Go {"big":"1000"}, TypeScript {"big":"1000"}
{"big":"1e3"} Go {"big":"1000"}, TypeScript refuses
{"big":"1.0"} Go {"big":"1"}, TypeScript refuses
{"small":"1e3"} Go {"small":1000}, TypeScript {"small":1000}
{"small":"1.0"} Go {"small":1}, TypeScript {"small":1}
{"name":"a","count":null} Go {"name":"a"}, TypeScript {"name":"a"}
{"name":"a","thing":null} Go {"name":"a"}, TypeScript refuses
{"thing":null,"name":"a"} Go {"name":"a"}, TypeScript refuses
{"name":"a","time":null} Go {"name":"a"}, TypeScript refuses
{"state":1} Go {"state":"STATE_ON"}, TypeScript {"state":"STATE_ON"}
{"name":"a","state":null} Go {"name":"a"}, TypeScript refuses
{"ratio":0.1} Go {"ratio":0.1}, TypeScript {"ratio":0.1}
{"ratio":16777217} Go {"ratio":16777216}, TypeScript {"ratio":16777217}
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
