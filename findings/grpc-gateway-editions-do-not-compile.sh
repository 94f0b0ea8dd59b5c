#!/usr/bin/env bash
# Guess: a service that moves from proto3 to edition 2023 or 2024 keeps its REST gateway: protoc-gen-grpc-gateway tells its caller that it supports
# these editions, so what it generates from a field of them compiles, as from an optional field of proto3, which has presence as well.
# Seen: with github.com/grpc-ecosystem/grpc-gateway/v2 v2.33.0 (protoc-gen-grpc-gateway), google.golang.org/protobuf v1.36.12 and buf 1.75.0 a field in
# the path, GET /v1/things/{name}, is generated without a word, and the package does not compile. In edition 2023, where such a field is a *string,
# it is given a string, though an optional field of proto2 or proto3 is treated rightly; with features.field_presence = IMPLICIT it compiles. In
# edition 2024, whose messages are opaque in Go unless they say otherwise, the field is set by its name, which is not there; the option
# use_opaque_api=true mends that, and is for a whole run: with it, edition 2023 has another error.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @bufbuild/buf@1.75.0 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/grpc-ecosystem/grpc-gateway/v2 v2.33.0
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)

tool (
	github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-grpc-gateway
	google.golang.org/grpc/cmd/protoc-gen-go-grpc
	google.golang.org/protobuf/cmd/protoc-gen-go
)
EOT
cat > keep.go <<'EOT'
package main

import (
	_ "github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	_ "github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	_ "google.golang.org/grpc"
)

func main() {}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
export GOBIN=$dir/bin GOTOOLCHAIN=local
go install tool
cat > api.yaml <<'EOT'
type: google.api.Service
config_version: 3
http:
  rules:
    - selector: e.Things.Get
      get: /v1/things/{name}
EOT

# generate NAME SYNTAX LABEL FEATURE OPTION generates from a message with one field and tells whether the code compiles.
generate() {
  mkdir -p "$1/p"
  cat > "$1/p/e.proto" <<EOT
$2;
package e;
option go_package = "finding/$1/gen";
message Thing {
  $3 string name = 1 $4;
}
service Things {
  rpc Get(Thing) returns (Thing);
}
EOT
  cat > "$1/buf.gen.yaml" <<EOT
version: v2
plugins:
  - {local: bin/protoc-gen-go, out: $1/gen, opt: [paths=source_relative]}
  - {local: bin/protoc-gen-go-grpc, out: $1/gen, opt: [paths=source_relative]}
  - {local: bin/protoc-gen-grpc-gateway, out: $1/gen, opt: [paths=source_relative, grpc_api_configuration=api.yaml$5]}
EOT
  ./node_modules/.bin/buf generate "$1/p" --template "$1/buf.gen.yaml" > "$1/out" 2>&1 || { echo "$1: refused: $(head -1 "$1/out")"; return; }
  go build "./$1/gen" > "$1/out" 2>&1 && echo "$1: compiles" || echo "$1: $(grep -m 1 gw.go "$1/out" | sed 's/^[^ ]* //')"
}

echo "buf $(./node_modules/.bin/buf --version)"; grep -E 'grpc-gateway/v2 v|protobuf v' go.mod
{
  generate proto3 'syntax = "proto3"' '' '' ''
  generate proto3-optional 'syntax = "proto3"' optional '' ''
  generate proto2 'syntax = "proto2"' optional '' ''
  generate edition-2023 'edition = "2023"' '' '' ''
  generate edition-2023-implicit 'edition = "2023"' '' '[features.field_presence = IMPLICIT]' ''
  generate edition-2023-opaque-option 'edition = "2023"' '' '' ', use_opaque_api=true'
  generate edition-2024 'edition = "2024"' '' '' ''
  generate edition-2024-implicit 'edition = "2024"' '' '[features.field_presence = IMPLICIT]' ''
  generate edition-2024-opaque-option 'edition = "2024"' '' '' ', use_opaque_api=true'
} > seen
cat seen
cat > want <<'EOT'
proto3: compiles
proto3-optional: compiles
proto2: compiles
edition-2023: cannot use runtime.String(val) (value of type string) as *string value in assignment
edition-2023-implicit: compiles
edition-2023-opaque-option: protoReq.SetName undefined (type Thing has no field or method SetName)
edition-2024: protoReq.Name undefined (type Thing has no field or method Name)
edition-2024-implicit: protoReq.Name undefined (type Thing has no field or method Name)
edition-2024-opaque-option: compiles
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
