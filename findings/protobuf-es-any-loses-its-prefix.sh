#!/usr/bin/env bash
# Guess: an Any that comes in JSON keeps its type URL, as one in binary does: the part before the last slash is the sender's own and may say
# where its types are found. So it is the same whether a service in Go sends it in JSON or in binary to one in Node that passes it on.
# Seen: @bufbuild/protobuf 2.17.0 makes "type.googleapis.com/" of every prefix when it reads JSON, of "types.example.com/v1/" as of "/". In
# binary, and when it writes JSON, it keeps them. google.golang.org/protobuf v1.36.12 keeps them in both.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @bufbuild/protobuf@2.17.0 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require google.golang.org/protobuf v1.36.12
EOT
cat > main.go <<'EOT'
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// With an argument it says which type URLs it reads in JSON; without, it writes some.
func main() {
	if len(os.Args) > 1 {
		all, err := io.ReadAll(os.Stdin)
		check(err)
		for line := range bytes.Lines(all) {
			var m anypb.Any
			check(protojson.Unmarshal(line, &m))
			fmt.Println("written, Go reads:", m.GetTypeUrl())
		}
		return
	}
	for _, prefix := range []string{"type.googleapis.com/", "types.example.com/v1/", "/"} {
		value, err := proto.Marshal(&durationpb.Duration{Seconds: 1})
		check(err)
		b, err := protojson.Marshal(&anypb.Any{TypeUrl: prefix + "google.protobuf.Duration", Value: value})
		check(err)
		fmt.Println(string(b))
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
GOTOOLCHAIN=local go build -o any .
cat > main.mjs <<'EOT'
import { readFileSync, writeFileSync } from 'node:fs';
import { create, createRegistry, fromBinary, fromJson, toBinary, toJson } from '@bufbuild/protobuf';
import { AnySchema, DurationSchema } from '@bufbuild/protobuf/wkt';

const registry = createRegistry(DurationSchema);
const written = [];
for (const line of readFileSync('go.json', 'utf8').trim().split('\n')) {
  const typeUrl = JSON.parse(line)['@type'];
  console.log('Go writes:        ', typeUrl);
  console.log('read in JSON:     ', fromJson(AnySchema, JSON.parse(line), { registry }).typeUrl);
  const any = fromBinary(AnySchema, toBinary(AnySchema, create(AnySchema, { typeUrl })));
  console.log('read in binary:   ', any.typeUrl);
  written.push(JSON.stringify(toJson(AnySchema, any, { registry })));
}
writeFileSync('es.json', written.join('\n') + '\n');
EOT
./any > go.json
grep google.golang.org/protobuf go.mod
echo "protobuf-es $(node -p 'JSON.parse(require("fs").readFileSync("node_modules/@bufbuild/protobuf/package.json")).version')"
node main.mjs | tee seen
./any read < es.json | tee -a seen
cat > want <<'EOT'
Go writes:         type.googleapis.com/google.protobuf.Duration
read in JSON:      type.googleapis.com/google.protobuf.Duration
read in binary:    type.googleapis.com/google.protobuf.Duration
Go writes:         types.example.com/v1/google.protobuf.Duration
read in JSON:      type.googleapis.com/google.protobuf.Duration
read in binary:    types.example.com/v1/google.protobuf.Duration
Go writes:         /google.protobuf.Duration
read in JSON:      type.googleapis.com/google.protobuf.Duration
read in binary:    /google.protobuf.Duration
written, Go reads: type.googleapis.com/google.protobuf.Duration
written, Go reads: types.example.com/v1/google.protobuf.Duration
written, Go reads: /google.protobuf.Duration
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
