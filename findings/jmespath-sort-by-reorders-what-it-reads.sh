#!/usr/bin/env bash
# Guess: an expression of JMESPath, by which a host picks from the JSON of a plugin, gives the same in Go and in Node, whose libraries come from the makers of the language, and
# changes nothing of what it reads: two programs, or two goroutines, may ask of the same value.
# Seen: github.com/jmespath/go-jmespath v0.4.0 and github.com/jmespath-community/go-jmespath v1.1.1 sort the array that they are given: after sort_by(plugins, &n) it has
# another order for whoever reads it next, plugins[0] is another one, and a second search that runs meanwhile reads while it is written. jmespath 0.16.0 and
# @jmespath-community/jmespath 1.3.0 (npm) sort a copy, and so does sort() in Go. Also: avg() of an empty array is NaN in go-jmespath, which encoding/json
# refuses, and null in the others, as the specification has it; to_number('') is 0 in Node and null in Go; a comparison of strings with "<" or ">" is null in three and
# compares them in jmespath (npm), so that a filter selects nothing or something.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save jmespath@0.16.0 @jmespath-community/jmespath@1.3.0 > /dev/null 2>&1
cat > expressions <<'EOT'
plugins[0].name
sort_by(plugins, &n)[0].name
plugins[0].name
sort(names)[0]
names[0]
avg(none)
to_number('')
plugins[?name > 'a'].name
max_by(plugins, &n).name
EOT
echo '{"plugins":[{"name":"b","n":2},{"name":"a","n":1}],"names":["b","a"],"none":[]}' > data.json
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/jmespath-community/go-jmespath v1.1.1
	github.com/jmespath/go-jmespath v0.4.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	community "github.com/jmespath-community/go-jmespath"
	"github.com/jmespath/go-jmespath"
)

func show(v any, err error) string {
	if err != nil {
		return "refused"
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}

func main() {
	text, err := os.ReadFile("data.json")
	if err != nil {
		panic(err)
	}
	var one, two any
	if json.Unmarshal(text, &one) != nil || json.Unmarshal(text, &two) != nil {
		panic("data.json")
	}
	expressions, err := os.ReadFile("expressions")
	if err != nil {
		panic(err)
	}
	for e := range strings.Lines(string(expressions)) {
		e = strings.TrimSpace(e)
		fmt.Printf("%s: go-jmespath %s, community's %s\n", e, show(jmespath.Search(e, one)), show(community.Search(e, two)))
	}
}
EOT
cat > main.mjs <<'EOT'
import jmespath from 'jmespath';
import { search } from '@jmespath-community/jmespath';
import { readFileSync } from 'node:fs';

const one = JSON.parse(readFileSync('data.json', 'utf8'));
const two = JSON.parse(readFileSync('data.json', 'utf8'));
for (const e of readFileSync('expressions', 'utf8').trim().split('\n')) {
  console.log(`npm ${JSON.stringify(jmespath.search(one, e))}, community's ${JSON.stringify(search(two, e))}`);
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/jmespath/go-jmespath github.com/jmespath-community/go-jmespath
for package in jmespath @jmespath-community/jmespath; do node -p "'$package ' + JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version"; done
GOTOOLCHAIN=local timeout 120 go run . > go.seen
node main.mjs > node.seen
paste -d, go.seen node.seen | sed 's/,npm/, npm/' | tee seen
cat > want <<'EOT'
plugins[0].name: go-jmespath "b", community's "b", npm "b", community's "b"
sort_by(plugins, &n)[0].name: go-jmespath "a", community's "a", npm "a", community's "a"
plugins[0].name: go-jmespath "a", community's "a", npm "b", community's "b"
sort(names)[0]: go-jmespath "a", community's "a", npm "a", community's "a"
names[0]: go-jmespath "b", community's "b", npm "b", community's "b"
avg(none): go-jmespath NaN, community's null, npm null, community's null
to_number(''): go-jmespath null, community's null, npm 0, community's 0
plugins[?name > 'a'].name: go-jmespath [], community's [], npm ["b"], community's []
max_by(plugins, &n).name: go-jmespath "b", community's "b", npm "b", community's "b"
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
