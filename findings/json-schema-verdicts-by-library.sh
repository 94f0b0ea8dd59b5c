#!/usr/bin/env bash
# Guess: one JSON Schema (2020-12) of a plugin's configuration, or of a tool's arguments, judges a document alike in a host in Go and in its tools in Node,
# or is refused by one of them: the draft has a suite of tests, and these libraries name it.
# Seen: of github.com/santhosh-tekuri/jsonschema/v6 v6.0.3, github.com/google/jsonschema-go v0.4.3, which the Go SDK of the Model Context Protocol uses,
# and ajv 8.20.0 (npm, with ajv-formats 3.0.1, as they come) no two agree. (1) A price of 19.99 is a "multipleOf": 0.01 for the first alone; the others
# compute with float64. (2) 9007199254740993 is the "const" 9007199254740992 for these two, and not above it as "maximum". (3) A "format", here of ipv4,
# counts for ajv alone. (4) "dependencies", and "items" with a list, of older drafts, are obeyed or refused by two, and taken without effect by Google's.
# (5) "nullable", which is OpenAPI's, counts for ajv alone. (6) The pattern ^[a-z]{1,2000}$ is refused as a schema in Go, as is \u0061: its regular
# expressions repeat 1,000 times at most, and have no \u.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save ajv@8.20.0 ajv-formats@3.0.1 > /dev/null 2>&1
cat > cases.json <<'EOT'
[
  [{"type": "number", "multipleOf": 0.01}, "19.99"],
  [{"const": 9007199254740992}, "9007199254740993"],
  [{"type": "integer", "maximum": 9007199254740992}, "9007199254740993"],
  [{"type": "string", "format": "ipv4"}, "\"1.2.3\""],
  [{"type": "object", "dependencies": {"a": ["b"]}}, "{\"a\": 1}"],
  [{"type": "array", "items": [{"type": "string"}]}, "[1]"],
  [{"type": "string", "nullable": true}, "null"],
  [{"type": "string", "pattern": "^[a-z]{1,2000}$"}, "\"ab\""],
  [{"type": "string", "pattern": "^\\u0061b$"}, "\"ab\""],
  [{"type": "integer"}, "1.0"],
  [{"type": "object", "dependentRequired": {"a": ["b"]}}, "{\"a\": 1}"]
]
EOT
cat > main.mjs <<'EOT'
import { readFileSync } from 'node:fs';
import { Ajv2020 } from 'ajv/dist/2020.js';
import formats from 'ajv-formats';

const cases = JSON.parse(readFileSync('cases.json'));
for (const [n, [schema, document]] of cases.entries()) {
  const ajv = new Ajv2020({ logger: false });
  formats.default(ajv);
  let verdict = 'refused';
  try {
    verdict = ajv.compile(schema)(JSON.parse(document)) ? 'valid' : 'invalid';
  } catch {}
  console.log(`${n + 1} ajv ${verdict}`);
}
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/google/jsonschema-go v0.4.3
	github.com/santhosh-tekuri/jsonschema/v6 v6.0.3
)
EOT
cat > main.go <<'EOT'
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	google "github.com/google/jsonschema-go/jsonschema"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// verdict is of a schema, which may be refused, and of a document.
func verdict(refused, invalid error) string {
	switch {
	case refused != nil:
		return "refused"
	case invalid != nil:
		return "invalid"
	default:
		return "valid"
	}
}

func santhosh(schema json.RawMessage, document string) string {
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", must(jsonschema.UnmarshalJSON(bytes.NewReader(schema)))); err != nil {
		return verdict(err, nil)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		return verdict(err, nil)
	}
	return verdict(nil, s.Validate(must(jsonschema.UnmarshalJSON(strings.NewReader(document)))))
}

func googles(schema json.RawMessage, document string) string {
	var s google.Schema
	if err := json.Unmarshal(schema, &s); err != nil {
		return verdict(err, nil)
	}
	r, err := s.Resolve(nil)
	if err != nil {
		return verdict(err, nil)
	}
	var v any
	if err := json.Unmarshal([]byte(document), &v); err != nil {
		panic(err)
	}
	return verdict(nil, r.Validate(v))
}

func main() {
	var cases [][2]json.RawMessage
	if err := json.Unmarshal(must(os.ReadFile("cases.json")), &cases); err != nil {
		panic(err)
	}
	for n, c := range cases {
		var document string
		if err := json.Unmarshal(c[1], &document); err != nil {
			panic(err)
		}
		fmt.Println(n+1, "santhosh", santhosh(c[0], document))
		fmt.Println(n+1, "google", googles(c[0], document))
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/santhosh-tekuri/jsonschema/v6 github.com/google/jsonschema-go
for package in ajv ajv-formats; do
  node -p "'$package ' + JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version"
done
{ GOTOOLCHAIN=local timeout 120 go run .; node main.mjs; } | LC_ALL=C sort -k1n -k2 | awk '{ line[$1] = line[$1] " " $2 " " $3 "," } END { for (n = 1; n in line; n++) print n line[n] }' | tee seen
cat > want <<'EOT'
1 ajv invalid, google invalid, santhosh valid,
2 ajv valid, google valid, santhosh invalid,
3 ajv valid, google valid, santhosh invalid,
4 ajv invalid, google valid, santhosh valid,
5 ajv invalid, google valid, santhosh invalid,
6 ajv refused, google valid, santhosh refused,
7 ajv valid, google invalid, santhosh invalid,
8 ajv valid, google refused, santhosh refused,
9 ajv valid, google refused, santhosh refused,
10 ajv valid, google valid, santhosh valid,
11 ajv invalid, google invalid, santhosh invalid,
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
