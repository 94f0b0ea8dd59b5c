#!/usr/bin/env bash
# Guess: a patch of JSON (RFC 6902) has one result in a host in Go and in its tools in Node, or is refused by both: numbers are equal by value, and ""
# is the whole document, which may be replaced, moved to and of any kind.
# Seen: github.com/evanphx/json-patch/v5 v5.9.11 compares numbers in "test" as they are written: 1 is not 1.0 and 100 not 1e2, where fast-json-patch 3.1.1 and rfc6902 5.4.0 (npm)
# go by the value. It takes "" for a member with no name where a value is copied or moved there, {"":{"b":1}}, and refuses a document that is, or becomes, a number.
# rfc6902 refuses each add, replace, copy and move at "" (MissingError), as it changes what it is given in place. fast-json-patch does all of it as the RFC says.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save fast-json-patch@3.1.1 rfc6902@5.4.0 > /dev/null 2>&1
cat > cases.json <<'EOT'
[
  ["{\"a\":1}", "[{\"op\":\"test\",\"path\":\"/a\",\"value\":1.0}]"],
  ["{\"a\":100}", "[{\"op\":\"test\",\"path\":\"/a\",\"value\":1e2}]"],
  ["{\"a\":1}", "[{\"op\":\"replace\",\"path\":\"\",\"value\":{\"b\":2}}]"],
  ["{\"a\":1}", "[{\"op\":\"add\",\"path\":\"\",\"value\":[1]}]"],
  ["{\"a\":1}", "[{\"op\":\"replace\",\"path\":\"\",\"value\":5}]"],
  ["5", "[{\"op\":\"test\",\"path\":\"\",\"value\":5}]"],
  ["{\"a\":{\"b\":1}}", "[{\"op\":\"move\",\"from\":\"/a\",\"path\":\"\"}]"],
  ["{\"a\":{\"b\":1}}", "[{\"op\":\"copy\",\"from\":\"/a\",\"path\":\"\"}]"],
  ["{\"a\":[1,2]}", "[{\"op\":\"move\",\"from\":\"/a/0\",\"path\":\"/a/-\"}]"]
]
EOT
cat > main.mjs <<'EOT'
import { readFileSync } from 'node:fs';
import fast from 'fast-json-patch';
import { applyPatch } from 'rfc6902';

const libraries = {
  'fast-json-patch': (document, patch) => fast.applyPatch(document, patch, true).newDocument,
  rfc6902: (document, patch) => {
    const failed = applyPatch(document, patch).find((error) => error);
    if (failed) throw failed;
    return document;
  },
};
for (const [name, apply] of Object.entries(libraries)) {
  for (const [document, patch] of JSON.parse(readFileSync('cases.json'))) {
    let seen;
    try {
      seen = JSON.stringify(apply(JSON.parse(document), JSON.parse(patch)));
    } catch (e) {
      seen = `refused, ${e.name}`;
    }
    console.log(`${name}, ${document} ${patch} -> ${seen}`);
  }
}
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/evanphx/json-patch/v5 v5.9.11
EOT
cat > main.go <<'EOT'
package main

import (
	"encoding/json"
	"fmt"
	"os"

	jsonpatch "github.com/evanphx/json-patch/v5"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	data, err := os.ReadFile("cases.json")
	must(err)
	var cases [][2]string
	must(json.Unmarshal(data, &cases))
	for _, c := range cases {
		patch, err := jsonpatch.DecodePatch([]byte(c[1]))
		must(err)
		seen, err := patch.Apply([]byte(c[0]))
		if err != nil {
			seen = []byte("refused")
		}
		fmt.Printf("Go, %s %s -> %s\n", c[0], c[1], seen)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/evanphx/json-patch/v5
node -p '["fast-json-patch", "rfc6902"].map((name) => name + " " + JSON.parse(require("fs").readFileSync(`node_modules/${name}/package.json`)).version).join("\n")'
{
  GOTOOLCHAIN=local timeout 120 go run .
  timeout 120 node main.mjs
} | tee seen
cat > want <<'EOT'
Go, {"a":1} [{"op":"test","path":"/a","value":1.0}] -> refused
Go, {"a":100} [{"op":"test","path":"/a","value":1e2}] -> refused
Go, {"a":1} [{"op":"replace","path":"","value":{"b":2}}] -> {"b":2}
Go, {"a":1} [{"op":"add","path":"","value":[1]}] -> [1]
Go, {"a":1} [{"op":"replace","path":"","value":5}] -> refused
Go, 5 [{"op":"test","path":"","value":5}] -> refused
Go, {"a":{"b":1}} [{"op":"move","from":"/a","path":""}] -> {"":{"b":1}}
Go, {"a":{"b":1}} [{"op":"copy","from":"/a","path":""}] -> {"a":{"b":1},"":{"b":1}}
Go, {"a":[1,2]} [{"op":"move","from":"/a/0","path":"/a/-"}] -> {"a":[2,1]}
fast-json-patch, {"a":1} [{"op":"test","path":"/a","value":1.0}] -> {"a":1}
fast-json-patch, {"a":100} [{"op":"test","path":"/a","value":1e2}] -> {"a":100}
fast-json-patch, {"a":1} [{"op":"replace","path":"","value":{"b":2}}] -> {"b":2}
fast-json-patch, {"a":1} [{"op":"add","path":"","value":[1]}] -> [1]
fast-json-patch, {"a":1} [{"op":"replace","path":"","value":5}] -> 5
fast-json-patch, 5 [{"op":"test","path":"","value":5}] -> 5
fast-json-patch, {"a":{"b":1}} [{"op":"move","from":"/a","path":""}] -> {"b":1}
fast-json-patch, {"a":{"b":1}} [{"op":"copy","from":"/a","path":""}] -> {"b":1}
fast-json-patch, {"a":[1,2]} [{"op":"move","from":"/a/0","path":"/a/-"}] -> {"a":[2,1]}
rfc6902, {"a":1} [{"op":"test","path":"/a","value":1.0}] -> {"a":1}
rfc6902, {"a":100} [{"op":"test","path":"/a","value":1e2}] -> {"a":100}
rfc6902, {"a":1} [{"op":"replace","path":"","value":{"b":2}}] -> refused, MissingError
rfc6902, {"a":1} [{"op":"add","path":"","value":[1]}] -> refused, MissingError
rfc6902, {"a":1} [{"op":"replace","path":"","value":5}] -> refused, MissingError
rfc6902, 5 [{"op":"test","path":"","value":5}] -> 5
rfc6902, {"a":{"b":1}} [{"op":"move","from":"/a","path":""}] -> refused, MissingError
rfc6902, {"a":{"b":1}} [{"op":"copy","from":"/a","path":""}] -> refused, MissingError
rfc6902, {"a":[1,2]} [{"op":"move","from":"/a/0","path":"/a/-"}] -> {"a":[2,1]}
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
