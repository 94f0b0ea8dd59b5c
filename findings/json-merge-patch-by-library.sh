#!/usr/bin/env bash
# Guess: a merge patch (RFC 7396), as an API takes it for a plugin's settings, makes of one document the same in Go and in Node: null takes a member away, and a list is put in the old one's place as it stands.
# Seen: github.com/evanphx/json-patch/v5 v5.9.11 takes members that are null out of the objects in a list as well: {"a":[{"b":null,"c":1}]} puts [{"c":1}] there, where the RFC has a patch
# that is no object taken as it is, nulls and all, as json-merge-patch 1.0.2 (npm) does. And it refuses the document null, which the RFC has taken for an empty object. Nested objects
# and nulls outside of lists are the same.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save json-merge-patch@1.0.2 > /dev/null 2>&1
cat > cases.json <<'EOT'
[
  ["{\"a\":{\"b\":1,\"c\":2}}", "{\"a\":{\"b\":null}}"],
  ["{\"a\":1}", "{\"a\":[1,null]}"],
  ["{\"a\":[1]}", "{\"a\":[{\"b\":null,\"c\":1}]}"],
  ["{}", "{\"a\":{\"b\":[{\"c\":{\"d\":null}}]}}"],
  ["[1]", "{\"a\":1}"],
  ["null", "{\"a\":1}"]
]
EOT
cat > main.cjs <<'EOT'
const { apply } = require('json-merge-patch');

for (const [document, patch] of JSON.parse(require('node:fs').readFileSync('cases.json'))) {
  console.log(`Node, ${document} ${patch} -> ${JSON.stringify(apply(JSON.parse(document), JSON.parse(patch)))}`);
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

func main() {
	data, err := os.ReadFile("cases.json")
	if err != nil {
		panic(err)
	}
	var cases [][2]string
	if err := json.Unmarshal(data, &cases); err != nil {
		panic(err)
	}
	for _, c := range cases {
		seen, err := jsonpatch.MergePatch([]byte(c[0]), []byte(c[1]))
		if err != nil {
			seen = []byte("refused")
		}
		fmt.Printf("Go, %s %s -> %s\n", c[0], c[1], seen)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/evanphx/json-patch/v5
node -p '"json-merge-patch " + require("./node_modules/json-merge-patch/package.json").version'
{
  GOTOOLCHAIN=local timeout 120 go run .
  timeout 120 node main.cjs
} | tee seen
cat > want <<'EOT'
Go, {"a":{"b":1,"c":2}} {"a":{"b":null}} -> {"a":{"c":2}}
Go, {"a":1} {"a":[1,null]} -> {"a":[1,null]}
Go, {"a":[1]} {"a":[{"b":null,"c":1}]} -> {"a":[{"c":1}]}
Go, {} {"a":{"b":[{"c":{"d":null}}]}} -> {"a":{"b":[{"c":{}}]}}
Go, [1] {"a":1} -> {"a":1}
Go, null {"a":1} -> refused
Node, {"a":{"b":1,"c":2}} {"a":{"b":null}} -> {"a":{"c":2}}
Node, {"a":1} {"a":[1,null]} -> {"a":[1,null]}
Node, {"a":[1]} {"a":[{"b":null,"c":1}]} -> {"a":[{"b":null,"c":1}]}
Node, {} {"a":{"b":[{"c":{"d":null}}]}} -> {"a":{"b":[{"c":{"d":null}}]}}
Node, [1] {"a":1} -> {"a":1}
Node, null {"a":1} -> {"a":1}
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
