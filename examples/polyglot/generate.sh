#!/usr/bin/env bash
# Generates what the plugins in Python and JavaScript import, with protoc 3.21.12 and grpc_python_plugin 1.51.1 (Debian:
# protobuf-compiler, protobuf-compiler-grpc) and the protoc-gen-es of clients/node. The code for Go comes from `make generate`.
set -euo pipefail
cd "$(dirname "$0")"

protoc -I proto/polyglot/v1 --python_out=python --grpc_out=python --plugin=protoc-gen-grpc="$(command -v grpc_python_plugin)" relay.proto
protoc -I proto/polyglot/v1 --plugin=protoc-gen-es=../../clients/node/node_modules/.bin/protoc-gen-es \
  --es_out=node --es_opt=target=js,import_extension=js relay.proto
