#!/usr/bin/env bash
# Guess: the JSON Schema that is made of a message, which one gives to whoever writes JSON for a service by hand or by a model, takes what protojson writes
# of that message.
# Seen: of what google.golang.org/protobuf v1.36.12 writes, the schema of github.com/bufbuild/protoschema-plugins v0.6.0 (protoc-gen-jsonschema) refuses, with ajv 8.17.1 and
# ajv-formats 3.0.1 (npm): every google.protobuf.Duration, "1s", as the schema says "format": "duration", which is that of ISO 8601, "PT1S"; every map with bool as its
# keys, as for that the schema is the one of a bool; the largest float, which protojson writes shorter, as 3.4028235e+38, than the bound is; a
# NullValue that is set, null; and a BytesValue that is not set where unpopulated fields are written, null, which it takes for the other messages.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @bufbuild/buf@1.75.0 ajv@8.17.1 ajv-formats@3.0.1 > /dev/null 2>&1
mkdir proto gen
cat > proto/e.proto <<'EOT'
syntax = "proto3";
package e;
option go_package = "finding/gen";
import "google/protobuf/duration.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
message Thing {
  string name = 1;
  int64 big = 2;
  google.protobuf.Timestamp time = 3;
  google.protobuf.Duration ttl = 4;
  map<bool, Thing> things = 5;
  float most = 6;
  google.protobuf.BytesValue digest = 7;
  oneof which {
    google.protobuf.NullValue nothing = 8;
    string something = 9;
  }
}
EOT
cat > gen/x.go <<'EOT'
package gen
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/bufbuild/protoschema-plugins v0.6.0
	google.golang.org/protobuf v1.36.12
)

tool (
	github.com/bufbuild/protoschema-plugins/cmd/protoc-gen-jsonschema
	google.golang.org/protobuf/cmd/protoc-gen-go
)
EOT
cat > buf.gen.yaml <<'EOT'
version: v2
plugins:
  - {local: bin/protoc-gen-go, out: gen, opt: [paths=source_relative]}
  - {local: bin/protoc-gen-jsonschema, out: schema}
EOT
cat > main.go <<'EOT'
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"finding/gen"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func write(o protojson.MarshalOptions, t *gen.Thing) {
	text, err := o.Marshal(t)
	if err != nil {
		panic(err)
	}
	var out bytes.Buffer
	if err := json.Compact(&out, text); err != nil {
		panic(err)
	}
	fmt.Println(out.String())
}

// main writes messages, one a line, as protojson does.
func main() {
	for _, t := range []*gen.Thing{
		{}, {Name: "a"}, {Big: math.MinInt64}, {Time: timestamppb.New(time.Unix(0, 5))}, {Ttl: durationpb.New(time.Second)},
		{Things: map[bool]*gen.Thing{true: {}}}, {Most: math.MaxFloat32}, {Digest: wrapperspb.Bytes([]byte{1})}, {Which: &gen.Thing_Nothing{}},
	} {
		write(protojson.MarshalOptions{}, t)
	}
	write(protojson.MarshalOptions{EmitUnpopulated: true}, &gen.Thing{})
}
EOT
cat > check.cjs <<'EOT'
const { readFileSync } = require('node:fs');
const Ajv = require('ajv/dist/2020').default;
const formats = require('ajv-formats').default;

const ajv = new Ajv({ strict: false });
formats(ajv);
const valid = ajv.compile(JSON.parse(readFileSync('schema/e.Thing.jsonschema.bundle.json')));
for (const line of readFileSync('written', 'utf8').trim().split('\n')) {
  console.log(`${line}: ${valid(JSON.parse(line)) ? 'valid' : `refused, ${valid.errors[0].instancePath} ${valid.errors[0].message}`}`);
}
EOT
export GOBIN=$dir/bin GOTOOLCHAIN=local
GOFLAGS=-mod=mod go mod tidy > /dev/null 2>&1
go install tool
./node_modules/.bin/buf generate proto
GOFLAGS=-mod=mod go mod tidy > /dev/null 2>&1
go list -m github.com/bufbuild/protoschema-plugins google.golang.org/protobuf
go run . > written
node check.cjs | tee seen
cat > want <<'EOT'
{}: valid
{"name":"a"}: valid
{"big":"-9223372036854775808"}: valid
{"time":"1970-01-01T00:00:00.000000005Z"}: valid
{"ttl":"1s"}: refused, /ttl must match format "duration"
{"things":{"true":{}}}: refused, /things must be boolean
{"most":3.4028235e+38}: refused, /most must be <= 3.4028234663852886e+38
{"digest":"AQ=="}: valid
{"nothing":null}: refused, /nothing must be string
{"name":"","big":"0","time":null,"ttl":null,"things":{},"most":0,"digest":null}: refused, /digest must be string
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
