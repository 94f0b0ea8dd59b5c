#!/usr/bin/env bash
# Guess: a structured field of HTTP (RFC 9651), which newer headers such as RateLimit, Priority, Deprecation and Signature-Input are, is read and written alike in Go and Node:
# both libraries name that RFC, with its dates and display strings.
# Seen: structured-headers 2.1.0 (npm) reads a date only at the end of a field: "@1659578233, 2", "@1659578233;a" and "(@1 @2)" are refused ("Expected a
# digit (0-9), whitespace or EOL"), which github.com/dunglas/httpsfv v1.1.2 reads and writes. And it writes a number whose fraction rounds to nothing without a digit behind the
# point (1.0005 as "1.", 0.00025 as "0."), which is no decimal: neither library reads that. A decimal without a fraction, 1.0, it writes back as the integer 1, which is another type.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save structured-headers@2.1.0 > /dev/null 2>&1
cat > fields.json <<'EOT'
["@1659578233", "@1659578233 , 2", "@1659578233, 2", "@1659578233;a", "1;a=@1659578233;b", "(@1 @2)", "%\"f%c3%bc\", 2", "1.5, ?1, :YQ==:", "1.0"]
EOT
cat > main.mjs <<'EOT'
import { readFileSync } from 'node:fs';
import { parseList, serializeItem, serializeList } from 'structured-headers';

for (const field of JSON.parse(readFileSync('fields.json'))) {
  let seen;
  try {
    seen = serializeList(parseList(field));
  } catch (e) {
    seen = `refused, ${e.message}`;
  }
  console.log(`Node, ${field} -> ${seen}`);
}
for (const n of [1.5, 1.0005, 0.00025]) {
  const written = serializeItem([n, new Map()]);
  let read = 'read';
  try {
    parseList(written);
  } catch {
    read = 'refused';
  }
  console.log(`Node, the number ${n} -> ${written}, by itself ${read}`);
}
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/dunglas/httpsfv v1.1.2
EOT
cat > main.go <<'EOT'
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/dunglas/httpsfv"
)

func main() {
	data, err := os.ReadFile("fields.json")
	if err != nil {
		panic(err)
	}
	var fields []string
	if err := json.Unmarshal(data, &fields); err != nil {
		panic(err)
	}
	for _, field := range fields {
		list, err := httpsfv.UnmarshalList([]string{field})
		if err != nil {
			panic(err)
		}
		written, err := httpsfv.Marshal(list)
		fmt.Println("Go,", field, "->", written, err)
	}
	for _, n := range []float64{1.5, 1.0005, 0.00025} {
		written, err := httpsfv.Marshal(httpsfv.NewItem(n))
		fmt.Println("Go, the number", n, "->", written, err)
	}
	for _, field := range []string{"1.", "0."} {
		_, err := httpsfv.UnmarshalItem([]string{field})
		fmt.Println("Go,", field, "refused:", err != nil)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/dunglas/httpsfv
node -p '"structured-headers " + JSON.parse(require("fs").readFileSync("node_modules/structured-headers/package.json")).version'
{
  GOTOOLCHAIN=local timeout 120 go run .
  timeout 120 node main.mjs
} | tee seen
cat > want <<'EOT'
Go, @1659578233 -> @1659578233 <nil>
Go, @1659578233 , 2 -> @1659578233, 2 <nil>
Go, @1659578233, 2 -> @1659578233, 2 <nil>
Go, @1659578233;a -> @1659578233;a <nil>
Go, 1;a=@1659578233;b -> 1;a=@1659578233;b <nil>
Go, (@1 @2) -> (@1 @2) <nil>
Go, %"f%c3%bc", 2 -> %"f%c3%bc", 2 <nil>
Go, 1.5, ?1, :YQ==: -> 1.5, ?1, :YQ==: <nil>
Go, 1.0 -> 1.0 <nil>
Go, the number 1.5 -> 1.5 <nil>
Go, the number 1.0005 -> 1.0 <nil>
Go, the number 0.00025 -> 0.0 <nil>
Go, 1. refused: true
Go, 0. refused: true
Node, @1659578233 -> @1659578233
Node, @1659578233 , 2 -> refused, Parse error: Expected a digit (0-9), whitespace or EOL at offset 12
Node, @1659578233, 2 -> refused, Parse error: Expected a digit (0-9), whitespace or EOL at offset 12
Node, @1659578233;a -> refused, Parse error: Expected a digit (0-9), whitespace or EOL at offset 12
Node, 1;a=@1659578233;b -> refused, Parse error: Expected a digit (0-9), whitespace or EOL at offset 16
Node, (@1 @2) -> refused, Parse error: Expected a digit (0-9), whitespace or EOL at offset 4
Node, %"f%c3%bc", 2 -> %"f%c3%bc", 2
Node, 1.5, ?1, :YQ==: -> 1.5, ?1, :YQ==:
Node, 1.0 -> 1
Node, the number 1.5 -> 1.5, by itself read
Node, the number 1.0005 -> 1., by itself refused
Node, the number 0.00025 -> 0., by itself refused
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
