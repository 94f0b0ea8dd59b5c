#!/usr/bin/env bash
# Guess: a policy that OPA compiles to WebAssembly decides in a plugin's tools in Node what it decides in a host in Go: it is the same module, and what it
# does not have itself the library of OPA's authors brings.
# Seen: github.com/open-policy-agent/opa v1.22.3 and @open-policy-agent/opa-wasm 1.10.0 (npm) give for one policy and input: (1) sprintf("%v") of a list, an object and null
# is "a,1", "[object Object]" and undefined in Node, where Go has their text; "%q" throws there, and so does "%d" of a text, which in Go is "%!d(string=x)". (2) An
# input that is false, 0 or "" is no input at all in Node, so that `input == false` is undefined. (3) regex.split keeps what a group matched.
# (4) A built-in function that the library has not, such as units.parse_bytes, is noticed when its rule is evaluated, not when the policy is loaded.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @open-policy-agent/opa-wasm@1.10.0 > /dev/null 2>&1
mkdir policy
cat > policy/p.rego <<'EOT'
package p

# METADATA
# entrypoint: true
text := sprintf("%v", [input])

# METADATA
# entrypoint: true
quoted := sprintf("%q", [input])

# METADATA
# entrypoint: true
decimal := sprintf("%d", [input])

# METADATA
# entrypoint: true
same := input

# METADATA
# entrypoint: true
parts := regex.split("(,)", input)

# METADATA
# entrypoint: true
bytes := units.parse_bytes(input)
EOT
cat > cases <<'EOT'
text "a"
text ["a",1]
text {"a":1}
text null
quoted "a"
decimal 5
decimal "x"
same true
same false
same 0
same ""
parts "a,b"
bytes "10Ki"
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/open-policy-agent/opa v1.22.3
EOT
cat > main.go <<'EOT'
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/compile"
	"github.com/open-policy-agent/opa/v1/rego"
)

func must[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// main compiles the policy, and evaluates a rule with an input for each line.
func main() {
	ctx := context.Background()
	var out bytes.Buffer
	check(compile.New().WithTarget(compile.TargetWasm).WithPaths("policy").WithRegoVersion(ast.RegoV1).WithRegoAnnotationEntrypoints(true).WithOutput(&out).Build(ctx))
	check(os.WriteFile("policy.wasm", must(bundle.NewReader(&out).Read()).WasmModules[0].Raw, 0o644))
	policy := string(must(os.ReadFile("policy/p.rego")))
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		rule, text, _ := strings.Cut(in.Text(), " ")
		var input any
		check(json.Unmarshal([]byte(text), &input))
		results := must(rego.New(rego.Query("data.p."+rule), rego.Module("p.rego", policy), rego.Input(input)).Eval(ctx))
		seen := "undefined"
		if len(results) > 0 {
			seen = string(must(json.Marshal(results[0].Expressions[0].Value)))
		}
		fmt.Printf("%s: Go %s,\n", in.Text(), seen)
	}
}
EOT
cat > main.cjs <<'EOT'
const { readFileSync } = require('node:fs');
const { loadPolicy } = require('@open-policy-agent/opa-wasm');

(async () => {
  const policy = await loadPolicy(readFileSync('policy.wasm'));
  for (const line of readFileSync('cases', 'utf8').trim().split('\n')) {
    const [, rule, text] = /^(\w+) (.*)$/.exec(line);
    try {
      const [result] = policy.evaluate(JSON.parse(text), `p/${rule}`);
      console.log('Node', result === undefined ? 'undefined' : JSON.stringify(result.result));
    } catch (e) {
      console.log('Node throws', e.message);
    }
  }
})();
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/open-policy-agent/opa
echo "opa-wasm $(node -p 'require("./node_modules/@open-policy-agent/opa-wasm/package.json").version')"
GOTOOLCHAIN=local go build -o finding .
./finding < cases > go.seen
node main.cjs > node.seen
paste -d' ' go.seen node.seen | tee seen
cat > want <<'EOT'
text "a": Go "a", Node "a"
text ["a",1]: Go "[\"a\", 1]", Node "a,1"
text {"a":1}: Go "{\"a\": 1}", Node "[object Object]"
text null: Go "null", Node undefined
quoted "a": Go "\"a\"", Node throws [sprintf] unexpected placeholder
decimal 5: Go "5", Node "5"
decimal "x": Go "%!d(string=x)", Node throws [sprintf] expecting number but found string
same true: Go true, Node true
same false: Go false, Node undefined
same 0: Go 0, Node undefined
same "": Go "", Node undefined
parts "a,b": Go ["a","b"], Node ["a",",","b"]
bytes "10Ki": Go 10240, Node throws not implemented: built-in function 2: units.parse_bytes
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
