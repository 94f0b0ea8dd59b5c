#!/usr/bin/env bash
# Generates src/wire from ../../proto with protoc 3.21.12 (Debian: protobuf-compiler) and the protoc-gen-es that
# package-lock.json pins.
set -euo pipefail
cd "$(dirname "$0")"

want="libprotoc 3.21.12"
if [ "$(protoc --version)" != "$want" ]; then
  echo "generate.sh: needs $want, found $(protoc --version)" >&2
  exit 1
fi

rm -rf src/wire
mkdir -p src/wire
protoc -I ../../proto --plugin=protoc-gen-es=node_modules/.bin/protoc-gen-es \
  --es_out=src/wire --es_opt=target=ts,import_extension=js ../../proto/plugin/v1/*.proto

rm -rf conformance/wire
mkdir -p conformance/wire
protoc -I ../../cmd/connectplugin-conformance --plugin=protoc-gen-es=node_modules/.bin/protoc-gen-es \
  --es_out=conformance/wire --es_opt=target=ts,import_extension=js ../../cmd/connectplugin-conformance/subject.proto
