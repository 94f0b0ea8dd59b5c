#!/usr/bin/env bash
# Guess: a host in Go and its tools in Node that share out keys by ketama's ring of hashes choose one plugin for one key, and each of ten plugins gets about a tenth: hashring of npm
# says that it is compatible with libketama, or with Python's hash_ring, and serialx/hashring that it has the algorithm of libketama and is a port of that hash_ring.
# Seen: github.com/serialx/hashring v0.0.0-20200727003509-22c0c7ab6b1b puts each plugin on its ring once, where hashring 3.2.0 (npm) has it there 160 times, as it says that libketama has (120
# times in the mode hash_ring). Of 3,000 keys and ten plugins Go gives one none and another 963, Node each between 239 and 378; and nine of ten keys have another plugin, in whichever mode.
# Weights of 100 each even out Go's shares, and make its choices no more like the other's.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save hashring@3.2.0 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/serialx/hashring v0.0.0-20200727003509-22c0c7ab6b1b
EOT
cat > main.go <<'EOT'
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/serialx/hashring"
)

func main() {
	var plugins []string
	for i := range 10 {
		plugins = append(plugins, fmt.Sprint("plugin-", i))
	}
	weights := map[string]int{}
	for _, plugin := range plugins {
		weights[plugin] = 100
	}
	chosen := map[string][]string{}
	for name, ring := range map[string]*hashring.HashRing{"weight 1": hashring.New(plugins), "weight 100": hashring.NewWithWeights(weights)} {
		for i := range 3000 {
			plugin, _ := ring.GetNode(fmt.Sprint("key-", i))
			chosen[name] = append(chosen[name], plugin)
		}
	}
	out, err := json.Marshal(chosen)
	if err != nil {
		panic(err)
	}
	if err := os.WriteFile("go.json", out, 0o600); err != nil {
		panic(err)
	}
}
EOT
cat > main.cjs <<'EOT'
const HashRing = require('hashring');

const chosen = JSON.parse(require('node:fs').readFileSync('go.json'));
const plugins = Array.from({ length: 10 }, (_, i) => `plugin-${i}`);
const shares = (choice) => plugins.map((plugin) => choice.filter((p) => p === plugin).length).join(' ');
for (const name of Object.keys(chosen).sort()) console.log(`Go, ${name}: ${shares(chosen[name])}`);
for (const compatibility of ['ketama', 'hash_ring']) {
  const ring = new HashRing(plugins, 'md5', { compatibility });
  const mine = chosen['weight 1'].map((_, i) => ring.get(`key-${i}`));
  console.log(`Node, ${compatibility}: ${shares(mine)}`);
  for (const name of Object.keys(chosen).sort()) console.log(`  another plugin than Go's, ${name}: ${mine.filter((plugin, i) => plugin !== chosen[name][i]).length} of ${mine.length}`);
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/serialx/hashring
node -p '"hashring " + require("./node_modules/hashring/package.json").version'
GOTOOLCHAIN=local timeout 120 go run .
timeout 120 node main.cjs | tee seen
cat > want <<'EOT'
Go, weight 1: 133 754 963 202 258 76 473 54 87 0
Go, weight 100: 319 267 294 294 364 272 286 316 282 306
Node, ketama: 269 299 290 300 351 308 311 300 268 304
  another plugin than Go's, weight 1: 2660 of 3000
  another plugin than Go's, weight 100: 2719 of 3000
Node, hash_ring: 239 293 330 366 378 310 291 277 247 269
  another plugin than Go's, weight 1: 2675 of 3000
  another plugin than Go's, weight 100: 2720 of 3000
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
