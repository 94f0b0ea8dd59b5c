#!/usr/bin/env bash
# Guess: a rule of JsonLogic, as flags and policies of plugins are written so that a host in Go and its pages in a browser decide alike, gives one value in each library:
# that is what the format is for, and its operations are described at jsonlogic.com.
# Seen: github.com/diegoholiveira/jsonlogic/v3 v3.5.1 and json-logic-js 2.0.5 (npm), the first implementation, differ, and json-logic-engine 5.0.7 (npm) has a third opinion, in 18 of
# 86 rules that were tried. (1) "map" leaves out in Go what gives null, so that the result has fewer elements than what was mapped. (2) "reduce" over nothing gives 0 in Go, not the
# initial value. (3) "var" with a default gives in Go the default for what is there and null. (4) "missing" has an empty text among what is missing in json-logic-js alone; for
# json-logic-engine null is there, too. (5) "or" gives false in Go, not its last argument. (6) "cat" of true and "==" of 0 and false are errors in Go. (7) {"==":[null,0]} holds for
# json-logic-engine alone.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save json-logic-js@2.0.5 json-logic-engine@5.0.7 > /dev/null 2>&1
cat > cases <<'EOT'
{"map":[{"var":"plugins"},{"var":"name"}]}|{"plugins":[{"name":"a"},{}]}
{"reduce":[{"var":"plugins"},{"+":[{"var":"accumulator"},1]},5]}|{}
{"var":["limit",3]}|{"limit":null}
{"missing":["name"]}|{"name":""}
{"missing":["name"]}|{"name":null}
{"or":[0,""]}|{}
{"cat":["on: ",true]}|{}
{"==":[0,false]}|{}
{"==":[null,0]}|{}
{"if":[{"<":[{"var":"load"},100]},"idle","busy"]}|{"load":55}
{"filter":[{"var":"loads"},{">":[{"var":""},2]}]}|{"loads":[1,2,3]}
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/diegoholiveira/jsonlogic/v3 v3.5.1
EOT
cat > main.go <<'EOT'
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"

	"github.com/diegoholiveira/jsonlogic/v3"
)

func main() {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		rule, data, _ := strings.Cut(in.Text(), "|")
		var out bytes.Buffer
		if err := jsonlogic.Apply(strings.NewReader(rule), strings.NewReader(data), &out); err != nil {
			out.Reset()
			out.WriteString("error")
		}
		fmt.Printf("%s of %s: Go %s\n", rule, data, strings.TrimSpace(out.String()))
	}
}
EOT
cat > main.mjs <<'EOT'
import jsonLogic from 'json-logic-js';
import { LogicEngine } from 'json-logic-engine';
import { readFileSync } from 'node:fs';

const engine = new LogicEngine();
for (const line of readFileSync('cases', 'utf8').trim().split('\n')) {
  const [rule, data] = line.split('|').map((s) => JSON.parse(s));
  console.log(`json-logic-js ${JSON.stringify(jsonLogic.apply(rule, data))}, json-logic-engine ${JSON.stringify(engine.run(rule, data))}`);
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/diegoholiveira/jsonlogic/v3
for package in json-logic-js json-logic-engine; do node -p "'$package ' + JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version"; done
GOTOOLCHAIN=local timeout 120 go run . < cases > go.seen
node main.mjs > node.seen
paste -d, go.seen node.seen | sed 's/,json-logic-js/, json-logic-js/' | tee seen
cat > want <<'EOT'
{"map":[{"var":"plugins"},{"var":"name"}]} of {"plugins":[{"name":"a"},{}]}: Go ["a"], json-logic-js ["a",null], json-logic-engine ["a",null]
{"reduce":[{"var":"plugins"},{"+":[{"var":"accumulator"},1]},5]} of {}: Go 0, json-logic-js 5, json-logic-engine 5
{"var":["limit",3]} of {"limit":null}: Go 3, json-logic-js null, json-logic-engine null
{"missing":["name"]} of {"name":""}: Go [], json-logic-js ["name"], json-logic-engine []
{"missing":["name"]} of {"name":null}: Go ["name"], json-logic-js ["name"], json-logic-engine []
{"or":[0,""]} of {}: Go false, json-logic-js "", json-logic-engine ""
{"cat":["on: ",true]} of {}: Go error, json-logic-js "on: true", json-logic-engine "on: true"
{"==":[0,false]} of {}: Go error, json-logic-js true, json-logic-engine true
{"==":[null,0]} of {}: Go false, json-logic-js false, json-logic-engine true
{"if":[{"<":[{"var":"load"},100]},"idle","busy"]} of {"load":55}: Go "idle", json-logic-js "idle", json-logic-engine "idle"
{"filter":[{"var":"loads"},{">":[{"var":""},2]}]} of {"loads":[1,2,3]}: Go [3], json-logic-js [3], json-logic-engine [3]
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
