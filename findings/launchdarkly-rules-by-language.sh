#!/usr/bin/env bash
# Guess: a flag of LaunchDarkly with one rule has one value for one context in the host in Go and in its tools in Node: both get the same rules, and both evaluate them themselves.
# Seen: github.com/launchdarkly/go-server-sdk-evaluation/v3 v3.0.1, which the SDK of Go evaluates by, and @launchdarkly/node-server-sdk 9.13.7 (npm) give other values for some, with no error told. "before"
# and "after" tell fractions of a millisecond of a date apart in Go alone, and those of a number in Node alone; "2026-01-02t00:00:00z" is a date in Go alone (RFC 3339 allows it). "matches" takes each
# language's own expressions: "(?i)", "\A", "\z", "\p{L}", "[[:alpha:]]" match in Go and never in Node, look-around and back references the other way round. An expression, or a date, that the
# language does not take is a rule that does not match. A version " 2.0.0" is one in Node alone. Of versions, missing parts, pre-releases and builds are alike.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @launchdarkly/node-server-sdk@9.13.7 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/launchdarkly/go-sdk-common/v3 v3.1.0
	github.com/launchdarkly/go-server-sdk-evaluation/v3 v3.0.1
)
EOT
cat > cases.json <<'EOT'
[
["semVerEqual", "2", "2.0.0"], ["semVerLessThan", "2.0-rc.1", "2.0.0"], ["semVerLessThan", "2.0.0-rc.2", "2.0.0-rc.10"], ["semVerEqual", "2.0.0+b", "2.0.0"], ["semVerEqual", " 2.0.0", "2.0.0"],
["before", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"], ["before", "2026-01-02T00:00:00.1234Z", "2026-01-02T00:00:00.1235Z"], ["before", 1000.5, 1000.9], ["before", "2026-01-02t00:00:00z", "2026-01-03T00:00:00Z"],
["matches", "abc", "^a"], ["matches", "ABC", "(?i)abc"], ["matches", "a", "\\Aa\\z"], ["matches", "é", "\\p{L}"], ["matches", "a", "[[:alpha:]]"], ["matches", "foobar", "foo(?=bar)"], ["matches", "aa", "^(a)\\1$"]
]
EOT
cat > main.mjs <<'EOT'
import { readFileSync } from 'node:fs';
import ld from '@launchdarkly/node-server-sdk';
import { TestData } from '@launchdarkly/node-server-sdk/integrations';

const cases = JSON.parse(readFileSync('cases.json'));
const data = new TestData();
cases.forEach(([op, , value], i) => data.usePreconfiguredFlag({
  key: `f${i}`, version: 1, on: true, variations: [false, true], fallthrough: { variation: 0 }, offVariation: 0, salt: 's',
  rules: [{ id: 'r', variation: 1, clauses: [{ attribute: 'a', op, values: [value] }] }],
}));
const client = ld.init('key', { updateProcessor: data.getFactory(), sendEvents: false, diagnosticOptOut: true, logger: ld.basicLogger({ level: 'none' }) });
await client.waitForInitialization({ timeout: 30 });
for (const [i, [op, value, wanted]] of cases.entries()) {
  const { value: seen, reason } = await client.variationDetail(`f${i}`, { kind: 'user', key: 'k', a: value }, null);
  console.log('Node,', JSON.stringify(value), op, JSON.stringify(wanted), seen, reason.kind);
}
client.close();
EOT
cat > main.go <<'EOT'
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/launchdarkly/go-sdk-common/v3/ldcontext"
	"github.com/launchdarkly/go-sdk-common/v3/ldvalue"
	evaluation "github.com/launchdarkly/go-server-sdk-evaluation/v3"
	"github.com/launchdarkly/go-server-sdk-evaluation/v3/ldmodel"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

type none struct{}

func (none) GetFeatureFlag(string) *ldmodel.FeatureFlag { return nil }
func (none) GetSegment(string) *ldmodel.Segment         { return nil }

func main() {
	data, err := os.ReadFile("cases.json")
	must(err)
	var cases [][]json.RawMessage
	must(json.Unmarshal(data, &cases))
	evaluator := evaluation.NewEvaluator(none{})
	for _, c := range cases {
		flag, err := ldmodel.NewJSONDataModelSerialization().UnmarshalFeatureFlag([]byte(`{"key": "f", "version": 1, "on": true,
			"variations": [false, true], "fallthrough": {"variation": 0}, "offVariation": 0, "salt": "s",
			"rules": [{"id": "r", "variation": 1, "clauses": [{"attribute": "a", "op": ` + string(c[0]) + `, "values": [` + string(c[2]) + `]}]}]}`))
		must(err)
		context := ldcontext.NewBuilder("k").SetValue("a", ldvalue.Parse(c[1])).Build()
		detail := evaluator.Evaluate(&flag, context, nil).Detail
		var op string
		must(json.Unmarshal(c[0], &op))
		fmt.Println("Go,", string(c[1]), op, string(c[2]), detail.Value, detail.Reason.GetKind())
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/launchdarkly/go-server-sdk-evaluation/v3
node -p '"@launchdarkly/node-server-sdk " + JSON.parse(require("fs").readFileSync("node_modules/@launchdarkly/node-server-sdk/package.json")).version'
{
  GOTOOLCHAIN=local timeout 120 go run .
  timeout 120 node main.mjs
} | tee seen
cat > want <<'EOT'
Go, "2" semVerEqual "2.0.0" true RULE_MATCH
Go, "2.0-rc.1" semVerLessThan "2.0.0" true RULE_MATCH
Go, "2.0.0-rc.2" semVerLessThan "2.0.0-rc.10" true RULE_MATCH
Go, "2.0.0+b" semVerEqual "2.0.0" true RULE_MATCH
Go, " 2.0.0" semVerEqual "2.0.0" false FALLTHROUGH
Go, "2026-01-02T00:00:00Z" before "2026-01-03T00:00:00Z" true RULE_MATCH
Go, "2026-01-02T00:00:00.1234Z" before "2026-01-02T00:00:00.1235Z" true RULE_MATCH
Go, 1000.5 before 1000.9 false FALLTHROUGH
Go, "2026-01-02t00:00:00z" before "2026-01-03T00:00:00Z" true RULE_MATCH
Go, "abc" matches "^a" true RULE_MATCH
Go, "ABC" matches "(?i)abc" true RULE_MATCH
Go, "a" matches "\\Aa\\z" true RULE_MATCH
Go, "é" matches "\\p{L}" true RULE_MATCH
Go, "a" matches "[[:alpha:]]" true RULE_MATCH
Go, "foobar" matches "foo(?=bar)" false FALLTHROUGH
Go, "aa" matches "^(a)\\1$" false FALLTHROUGH
Node, "2" semVerEqual "2.0.0" true RULE_MATCH
Node, "2.0-rc.1" semVerLessThan "2.0.0" true RULE_MATCH
Node, "2.0.0-rc.2" semVerLessThan "2.0.0-rc.10" true RULE_MATCH
Node, "2.0.0+b" semVerEqual "2.0.0" true RULE_MATCH
Node, " 2.0.0" semVerEqual "2.0.0" true RULE_MATCH
Node, "2026-01-02T00:00:00Z" before "2026-01-03T00:00:00Z" true RULE_MATCH
Node, "2026-01-02T00:00:00.1234Z" before "2026-01-02T00:00:00.1235Z" false FALLTHROUGH
Node, 1000.5 before 1000.9 true RULE_MATCH
Node, "2026-01-02t00:00:00z" before "2026-01-03T00:00:00Z" false FALLTHROUGH
Node, "abc" matches "^a" true RULE_MATCH
Node, "ABC" matches "(?i)abc" false FALLTHROUGH
Node, "a" matches "\\Aa\\z" false FALLTHROUGH
Node, "é" matches "\\p{L}" false FALLTHROUGH
Node, "a" matches "[[:alpha:]]" false FALLTHROUGH
Node, "foobar" matches "foo(?=bar)" true RULE_MATCH
Node, "aa" matches "^(a)\\1$" true RULE_MATCH
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
