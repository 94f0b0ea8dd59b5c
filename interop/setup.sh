#!/usr/bin/env bash
# Installs what the interop table needs beside Go: Debian's python3-grpcio, nghttp2, curl, haproxy and nginx, and the
# packages of peers/node/package-lock.json from npm, into the cache directory. Node 20 or later has to be there.
# `make interop` never calls it; a machine without these packages gets a smaller table.
set -euo pipefail
cd "$(dirname "$0")"

modules="${XDG_CACHE_HOME:-$HOME/.cache}/connectplugin/interop/node"

if command -v apt-get > /dev/null; then
  apt-get update
  apt-get install -y python3-grpcio nghttp2-client nghttp2-server curl haproxy nginx libnginx-mod-stream
else
  echo "no apt-get here: install python3-grpcio, nghttp2 (nghttpd, h2load), curl, haproxy and nginx by hand" >&2
fi

if command -v npm > /dev/null; then
  mkdir -p "$modules"
  cp peers/node/package.json peers/node/package-lock.json "$modules"
  npm ci --prefix "$modules" --no-audit --no-fund
else
  echo "no npm here: the peers on Node stay out of the table" >&2
fi
