#!/usr/bin/env bash
# Guess: a feature of GrowthBook has one value for one set of attributes in Go and in Node: GrowthBook has one set of cases for all its libraries, and that of Go says which version it follows (0.12.0).
# Seen: github.com/growthbook/growthbook-golang v0.7.0 and @growthbook/growthbook 1.8.0 (npm) differ where a number meets a text or nothing: {"id": "1"} holds for the number 1 in Node and not in Go,
# and so do {"n": {"$gt": "5"}} for the number 10, {"n": {"$lt": 5}} for a context that has no n, and {"v": {"$veq": "1.2"}} for the number 1.2. "$regex" takes each language's own expressions: "(?i)"
# holds in Go alone. The id true and the number 1e21 are in another part of an experiment: Go leaves true out of it and writes 1e21 in another way. Texts, emoji and whole numbers have one part.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @growthbook/growthbook@1.8.0 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/growthbook/growthbook-golang v0.7.0
EOT
cat > cases.json <<'EOT'
[
[{"id": "1"}, {"id": "1"}], [{"id": "1"}, {"id": 1}], [{"id": 1}, {"id": "1"}], [{"n": {"$gt": 5}}, {"n": 10}], [{"n": {"$gt": "5"}}, {"n": 10}], [{"n": {"$lt": 5}}, {}],
[{"v": {"$veq": "1.2"}}, {"v": "1.2"}], [{"v": {"$veq": "1.2"}}, {"v": 1.2}], [{"t": {"$regex": "^a"}}, {"t": "abc"}], [{"t": {"$regex": "(?i)abc"}}, {"t": "ABC"}]
]
EOT
echo '["a", "zoë", "😀", 1, 1.5, 123456789012, 1e21, true]' > ids.json
cat > experiment.json <<'EOT'
{"defaultValue": -1, "rules": [{"key": "e", "seed": "e", "hashAttribute": "id", "hashVersion": 2, "variations": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], "weights": [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]}]}
EOT
cat > main.mjs <<'EOT'
import { readFileSync } from 'node:fs';
import { GrowthBookClient } from '@growthbook/growthbook';

const read = (file) => JSON.parse(readFileSync(file));
async function value(feature, attributes) {
  const client = new GrowthBookClient();
  await client.init({ payload: { features: { f: feature } } });
  return client.evalFeature('f', { attributes }).value;
}
for (const [condition, attributes] of read('cases.json')) {
  console.log('Node,', JSON.stringify(condition), JSON.stringify(attributes), await value({ defaultValue: false, rules: [{ condition, force: true }] }, attributes));
}
for (const id of read('ids.json')) console.log('Node, part of', JSON.stringify(id), await value(read('experiment.json'), { id }));
process.exit(0);
EOT
cat > main.go <<'EOT'
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"

	growthbook "github.com/growthbook/growthbook-golang"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func read(file string, into any) {
	data, err := os.ReadFile(file)
	must(err)
	must(json.Unmarshal(data, into))
}

func value(feature string, attributes growthbook.Attributes) any {
	ctx := context.Background()
	client, err := growthbook.NewClient(ctx, growthbook.WithJsonFeatures(`{"f": `+feature+`}`), growthbook.WithAttributes(attributes))
	must(err)
	return client.EvalFeature(ctx, "f").Value
}

func compact(data []byte) string {
	var b bytes.Buffer
	must(json.Compact(&b, data))
	return b.String()
}

func main() {
	var cases [][]json.RawMessage
	read("cases.json", &cases)
	for _, c := range cases {
		var attributes growthbook.Attributes
		must(json.Unmarshal(c[1], &attributes))
		fmt.Println("Go,", compact(c[0]), compact(c[1]), value(`{"defaultValue": false, "rules": [{"condition": `+string(c[0])+`, "force": true}]}`, attributes))
	}
	var ids []any
	read("ids.json", &ids)
	var experiment json.RawMessage
	read("experiment.json", &experiment)
	for _, id := range ids {
		text, err := json.Marshal(id)
		must(err)
		fmt.Println("Go, part of", string(text), value(string(experiment), growthbook.Attributes{"id": id}))
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/growthbook/growthbook-golang
node -p '"@growthbook/growthbook " + JSON.parse(require("fs").readFileSync("node_modules/@growthbook/growthbook/package.json")).version'
{
  GOTOOLCHAIN=local timeout 120 go run .
  timeout 120 node main.mjs
} | tee seen
cat > want <<'EOT'
Go, {"id":"1"} {"id":"1"} true
Go, {"id":"1"} {"id":1} false
Go, {"id":1} {"id":"1"} false
Go, {"n":{"$gt":5}} {"n":10} true
Go, {"n":{"$gt":"5"}} {"n":10} false
Go, {"n":{"$lt":5}} {} false
Go, {"v":{"$veq":"1.2"}} {"v":"1.2"} true
Go, {"v":{"$veq":"1.2"}} {"v":1.2} false
Go, {"t":{"$regex":"^a"}} {"t":"abc"} true
Go, {"t":{"$regex":"(?i)abc"}} {"t":"ABC"} true
Go, part of "a" 4
Go, part of "zoë" 6
Go, part of "😀" 6
Go, part of 1 6
Go, part of 1.5 1
Go, part of 123456789012 2
Go, part of 1e+21 6
Go, part of true -1
Node, {"id":"1"} {"id":"1"} true
Node, {"id":"1"} {"id":1} true
Node, {"id":1} {"id":"1"} true
Node, {"n":{"$gt":5}} {"n":10} true
Node, {"n":{"$gt":"5"}} {"n":10} true
Node, {"n":{"$lt":5}} {} true
Node, {"v":{"$veq":"1.2"}} {"v":"1.2"} true
Node, {"v":{"$veq":"1.2"}} {"v":1.2} true
Node, {"t":{"$regex":"^a"}} {"t":"abc"} true
Node, {"t":{"$regex":"(?i)abc"}} {"t":"ABC"} false
Node, part of "a" 4
Node, part of "zoë" 6
Node, part of "😀" 6
Node, part of 1 6
Node, part of 1.5 1
Node, part of 123456789012 2
Node, part of 1e+21 9
Node, part of true 1
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
