#!/usr/bin/env bash
# Installs what the interop tables need beside Go: Debian's python3-grpcio, mypy, nghttp2, curl, haproxy and nginx, and from
# npm the packages of peers/node/package-lock.json and of clients/node/package-lock.json, and Node 20 and 22, all into the
# cache directory. npm has to be there; Debian's will do.
# `make interop` never calls it; a machine without these packages gets smaller tables.
set -euo pipefail
cd "$(dirname "$0")"

cache="${XDG_CACHE_HOME:-$HOME/.cache}/connectplugin/interop"

if command -v apt-get > /dev/null; then
  apt-get update
  apt-get install -y python3-grpcio python3-protobuf mypy nghttp2-client nghttp2-server curl haproxy nginx libnginx-mod-stream
else
  echo "no apt-get here: install python3-grpcio, nghttp2 (nghttpd, h2load), curl, haproxy and nginx by hand" >&2
fi

# install DIRECTORY INTO installs what the package-lock.json of a directory pins.
install() {
  mkdir -p "$2"
  cp "$1/package.json" "$1/package-lock.json" "$2"
  npm ci --prefix "$2" --no-audit --no-fund
}

if command -v npm > /dev/null; then
  install peers/node "$cache/node"
  install ../clients/node "$cache/languages/node"
  case "$(uname -s)-$(uname -m)" in
    Linux-x86_64) platform=linux-x64 ;;
    Linux-aarch64) platform=linux-arm64 ;;
    *) platform= ;;
  esac
  for version in 20.20.2 22.23.3; do
    into="$cache/languages/node${version%%.*}"
    if [ -z "$platform" ] || [ "$("$into/bin/node" --version 2> /dev/null)" = "v$version" ]; then
      continue
    fi
    npm install --prefix "$into" --no-audit --no-fund --no-save "node-$platform@$version"
    ln -sfn "node_modules/node-$platform/bin" "$into/bin"
  done
else
  echo "no npm here: the peers on Node stay out of the tables" >&2
fi
