#!/usr/bin/env bash
# Guess: a configuration in JSON5 that the standard's own library (json5 of npm) takes is taken by Go's: the format has a specification, version 1.0.0.
# Seen: github.com/titanous/json5 v1.0.0 reads comments, commas at the end, quotes of both kinds, hexadecimal numbers, Infinity and a line continued as json5 2.2.3 does, and
# refuses what the specification gives besides: the escapes \x41, \v, \0 and \a (which is a) in a text, a tab in a text, a key beyond ASCII or with \u without quotes, and a
# no-break space or a byte order mark before the document.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save json5@2.2.3 > /dev/null 2>&1
cat > main.mjs <<'EOT'
import { writeFileSync } from 'node:fs';
import JSON5 from 'json5';

const texts = ["{a: 'b', /* c */ c: [1, 2,],} // d", '{a: 0x1F}', '{a: Infinity}', "{a: 'x\\\ny'}", "{a: '\\x41'}", "{a: '\\v'}", "{a: '\\0'}", "{a: '\\a'}", "{a: 'x\ty'}",
  '{größe: 1}', '{\\u0061b: 1}', '\u00a0{a: 1}', '\ufeff{a: 1}'];
for (const text of texts) JSON5.parse(text);
console.log(`json5: takes all ${texts.length}`);
writeFileSync('texts.json', JSON.stringify(texts));
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/titanous/json5 v1.0.0
EOT
cat > main.go <<'EOT'
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/titanous/json5"
)

func main() {
	data, err := os.ReadFile("texts.json")
	if err != nil {
		panic(err)
	}
	var texts []string
	if err := json.Unmarshal(data, &texts); err != nil {
		panic(err)
	}
	for _, text := range texts {
		var value any
		if err := json5.Unmarshal([]byte(text), &value); err != nil {
			fmt.Printf("%+q: refused\n", text)
			continue
		}
		fmt.Printf("%+q: %v\n", text, value)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/titanous/json5
node -p '"json5 " + require("./node_modules/json5/package.json").version'
{
  node main.mjs
  GOTOOLCHAIN=local timeout 120 go run .
} | tee seen
cat > want <<'EOT'
json5: takes all 13
"{a: 'b', /* c */ c: [1, 2,],} // d": map[a:b c:[1 2]]
"{a: 0x1F}": map[a:31]
"{a: Infinity}": map[a:+Inf]
"{a: 'x\\\ny'}": map[a:xy]
"{a: '\\x41'}": refused
"{a: '\\v'}": refused
"{a: '\\0'}": refused
"{a: '\\a'}": refused
"{a: 'x\ty'}": refused
"{gr\u00f6\u00dfe: 1}": refused
"{\\u0061b: 1}": refused
"\u00a0{a: 1}": refused
"\ufeff{a: 1}": refused
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
