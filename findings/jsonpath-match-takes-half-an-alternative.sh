#!/usr/bin/env bash
# Guess: a JSONPath selects the same in Go and in Node, now that it is RFC 9535 and libraries say that they follow it: match() takes a string
# that the whole expression (I-Regexp) describes, search() one that has such a part.
# Seen: of github.com/theory/jsonpath v0.12.3, github.com/ohler55/ojg v1.28.5 (jp), json-p3 2.3.1 and jsonpath-rfc9535 1.3.0 (npm) only json-p3 has match() right where the
# expression has alternatives: for the others match(@.name, 'a|b') takes "ab", "a-old" and "old-b", too, as if "^" stood before the first alternative and "$" behind the last.
# With parentheses, match(@.name, '(a|b)'), all four are alike. ojg knows no value() and no blanks between two brackets, which the RFC has.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save json-p3@2.3.1 jsonpath-rfc9535@1.3.0 > /dev/null 2>&1
cat > cases <<'EOT'
$.plugins[?match(@.name, 'a|b')].name
$.plugins[?match(@.name, '(a|b)')].name
$.plugins[?search(@.name, 'a|b')].name
$.plugins[?value(@..n) == 1].name
$ ['plugins'] [0].name
$.plugins[?@.n > 1].name
EOT
echo '{"plugins":[{"name":"a","n":1},{"name":"b","n":2},{"name":"ab","n":3},{"name":"a-old","n":4},{"name":"old-b","n":5},{"name":"c","n":6}]}' > data.json
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/ohler55/ojg v1.28.5
	github.com/theory/jsonpath v0.12.3
)
EOT
cat > main.go <<'EOT'
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	"github.com/ohler55/ojg/jp"
	"github.com/theory/jsonpath"
)

func main() {
	text, err := os.ReadFile("data.json")
	if err != nil {
		panic(err)
	}
	var data any
	if err := json.Unmarshal(text, &data); err != nil {
		panic(err)
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		theory, ojg := "refused", "refused"
		if p, err := jsonpath.Parse(in.Text()); err == nil {
			theory = fmt.Sprint([]any(p.Select(data)))
		}
		if p, err := jp.ParseString(in.Text()); err == nil {
			ojg = fmt.Sprint(p.Get(data))
		}
		fmt.Printf("%s: theory %s, ojg %s\n", in.Text(), theory, ojg)
	}
}
EOT
cat > main.mjs <<'EOT'
import { jsonpath } from 'json-p3';
import { query } from 'jsonpath-rfc9535';
import { readFileSync } from 'node:fs';

const data = JSON.parse(readFileSync('data.json', 'utf8'));
for (const path of readFileSync('cases', 'utf8').trim().split('\n')) {
  console.log(`json-p3 [${jsonpath.query(path, data).values().join(' ')}], jsonpath-rfc9535 [${query(data, path).join(' ')}]`);
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/theory/jsonpath github.com/ohler55/ojg
for package in json-p3 jsonpath-rfc9535; do node -p "'$package ' + JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version"; done
GOTOOLCHAIN=local timeout 120 go run . < cases > go.seen
node main.mjs > node.seen
paste -d, go.seen node.seen | sed 's/,json-p3/, json-p3/' | tee seen
cat > want <<'EOT'
$.plugins[?match(@.name, 'a|b')].name: theory [a b ab a-old old-b], ojg [a b ab a-old old-b], json-p3 [a b], jsonpath-rfc9535 [a b ab a-old old-b]
$.plugins[?match(@.name, '(a|b)')].name: theory [a b], ojg [a b], json-p3 [a b], jsonpath-rfc9535 [a b]
$.plugins[?search(@.name, 'a|b')].name: theory [a b ab a-old old-b], ojg [a b ab a-old old-b], json-p3 [a b ab a-old old-b], jsonpath-rfc9535 [a b ab a-old old-b]
$.plugins[?value(@..n) == 1].name: theory [a], ojg refused, json-p3 [a], jsonpath-rfc9535 [a]
$ ['plugins'] [0].name: theory [a], ojg refused, json-p3 [a], jsonpath-rfc9535 [a]
$.plugins[?@.n > 1].name: theory [b ab a-old old-b c], ojg [b ab a-old old-b c], json-p3 [b ab a-old old-b c], jsonpath-rfc9535 [b ab a-old old-b c]
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
