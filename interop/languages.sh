#!/usr/bin/env bash
# Prints the tables of the conformance kit for this library's own host and plugin, a plugin of the first version of the
# wire, and the packages for Python and Node; then has plugins in all three languages call one another. What is not
# installed is named and left out; setup.sh installs it. `make interop` calls it with the cache directory.
set -uo pipefail
cd "$(dirname "$0")/.."

cache="${1:?the cache directory}/languages"
python="${PYTHON:-/usr/bin/python3}"
mkdir -p "$cache"
failed=()

# play NAME COMMAND… runs a command and notes whether it failed.
play() {
  local name="$1"
  shift
  printf '\n== %s\n' "$name"
  "$@" || failed+=("$name")
}

go build -o "$cache/kit" ./cmd/connectplugin-conformance || exit 1
(cd examples && go build -o "$cache/play" ./polyglot/play) || exit 1
kit="$cache/kit"

play "kit: our own host" "$kit" host -- "$kit" serve host
play "kit: our own plugin" "$kit" plugin -- "$kit" serve plugin
play "kit: a plugin of the first version of the wire" "$kit" plugin -first-version -- "$kit" serve first
play "kit: a host of the first version of the wire" "$kit" host -first-version -- "$kit" serve first host

if "$python" -c 'import grpc, google.protobuf' 2> /dev/null; then
  play "kit: clients/python on $("$python" --version)" "$kit" plugin -protocols grpc -- "$python" clients/python/conformance/subject.py
  play "tests of clients/python" env PYTHONPATH=clients/python "$python" -m unittest discover -q -s clients/python/tests
  if "$python" -c 'import mypy' 2> /dev/null; then
    play "types of clients/python" "$python" -m mypy --config-file clients/python/pyproject.toml --cache-dir "$cache/mypy" \
      clients/python/connectplugin clients/python/conformance
  else
    printf '\nthe types of clients/python are not checked: install mypy\n'
  fi
else
  printf '\nno table for Python: install python3-grpcio and python3-protobuf\n'
fi

# The package for Node is compiled beside the packages that setup.sh installed, outside the tree.
node_client="$cache/node"
nodes=()
versions=" "
for version in 20 22; do
  [ -x "$cache/node$version/bin/node" ] || printf '\nNode %s as setup.sh pins it is not installed: run interop/setup.sh\n' "$version"
done
for node in "$cache"/node20/bin/node "$cache"/node22/bin/node node; do
  version="$("$node" --version 2> /dev/null | grep -oE '[0-9]+' | head -n 1)"
  if [ "${version:-0}" -ge 20 ] && [ -d "$node_client/node_modules" ] && [[ "$versions" != *" $version "* ]]; then
    nodes+=("$node")
    versions+="$version "
  fi
done
if [ "${#nodes[@]}" -gt 0 ]; then
  rm -rf "$node_client"/{src,test,conformance,polyglot,dist}
  cp -r clients/node/{src,test,conformance,tsconfig.json,package.json} "$node_client"
  mkdir "$node_client/polyglot" && cp examples/polyglot/node/*.js "$node_client/polyglot" # finds the package by its own name
  play "compile clients/node" "${nodes[0]}" "$node_client/node_modules/typescript/bin/tsc" -p "$node_client"
else
  printf '\nno table for Node, which examples/polyglot goes without, too: run interop/setup.sh\n'
fi
for node in "${nodes[@]}"; do
  play "kit: clients/node on Node $("$node" --version)" "$kit" plugin -- "$node" "$node_client/dist/conformance/subject.js"
  play "tests of clients/node on Node $("$node" --version)" env CONNECTPLUGIN_TREE="$PWD" \
    "$node" --test --test-reporter=dot "$node_client"/dist/test/*.test.js
done

cd examples || exit 1
play "examples/polyglot" "$cache/play" -node "${nodes[0]:-none}" -node-plugin "$node_client/polyglot/plugin.js" \
  -python "$python" -python-plugin polyglot/python/plugin.py

if [ "${#failed[@]}" -gt 0 ]; then
  printf '\nfailed:\n'
  printf '  %s\n' "${failed[@]}"
  exit 1
fi
printf '\nall languages hold\n'
