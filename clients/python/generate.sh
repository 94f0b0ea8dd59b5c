#!/usr/bin/env bash
# Generates connectplugin/wire from ../../proto with protoc 3.21.12 (Debian: protobuf-compiler), whose code runs with
# protobuf 4.21 and later. The files move to connectplugin/wire on the way: as the proto files lie, protoc would make a
# package called "plugin", which any program may have one of its own of. The wire does not know names of files.
set -euo pipefail
cd "$(dirname "$0")"

want="libprotoc 3.21.12"
if [ "$(protoc --version)" != "$want" ]; then
  echo "generate.sh: needs $want, found $(protoc --version)" >&2
  exit 1
fi

sources="$(mktemp -d)"
trap 'rm -rf "$sources"' EXIT
mkdir -p "$sources/connectplugin/wire"
for file in ../../proto/plugin/v1/*.proto; do
  sed 's#import "plugin/v1/#import "connectplugin/wire/#' "$file" > "$sources/connectplugin/wire/$(basename "$file")"
done

rm -f connectplugin/wire/*_pb2.py connectplugin/wire/*_pb2.pyi
protoc -I "$sources" --python_out=. --pyi_out=. "$sources"/connectplugin/wire/*.proto
