#!/usr/bin/env bash
# Guess: an expression in CEL, as a host's policy or a rule of a plugin's settings is, has one value in Go and in Node: the language has a definition, and conformance tests.
# Seen: for @bufbuild/cel 0.6.1 (npm) a key whose value is null is not in the map: "'a' in m" and "has(m.a)" are false for {"a": null}, and true in cel.dev/cel-go v0.33.2 and in
# @marcbachmann/cel-js 8.0.0 (npm). It refuses a comment at the end of the expression, says 1901 for the year of timestamp('0001-01-01T00:00:00Z').
# Both of npm order texts by UTF-16, so that '\U0001F600' < '\uFB00', and write a double as JavaScript does: string(1e6) is "1000000", and "1e+06" in
# Go. @marcbachmann/cel-js has other bytes for b'é', and JavaScript's regular expressions: "(?i)" is an error and "\\pL" the letters pL.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @bufbuild/cel@0.6.1 @bufbuild/protobuf@2.17.0 @marcbachmann/cel-js@8.0.0 > /dev/null 2>&1
cat > expressions <<'EOT'
'a' in m
has(m.a)
m.a == null
1 == 1 // a comment
timestamp('0001-01-01T00:00:00Z').getFullYear() == 1
'\U0001F600' < '\uFB00'
string(1e6)
string(0.00001)
string(0.5)
b'é' == b'\303\251'
'aB'.matches('(?i)ab')
'a'.matches('\\pL')
EOT
cat > main.mjs <<'EOT'
import { readFileSync } from 'node:fs';
import { isCelError, run } from '@bufbuild/cel';
import { evaluate } from '@marcbachmann/cel-js';

const libraries = { '@bufbuild/cel': run, '@marcbachmann/cel-js': evaluate };
for (const [name, evaluator] of Object.entries(libraries)) {
  for (const expression of readFileSync('expressions', 'utf8').trim().split('\n')) {
    let seen;
    try {
      seen = evaluator(expression, { m: { a: null } });
      if (isCelError(seen)) throw seen;
    } catch {
      seen = 'refused';
    }
    console.log(`${name}: ${expression} -> ${seen}`);
  }
}
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require cel.dev/cel-go v0.33.2
EOT
cat > main.go <<'EOT'
package main

import (
	"fmt"
	"os"
	"strings"

	"cel.dev/cel-go/cel"
)

func main() {
	env, err := cel.NewEnv(cel.Variable("m", cel.DynType))
	if err != nil {
		panic(err)
	}
	expressions, err := os.ReadFile("expressions")
	if err != nil {
		panic(err)
	}
	for _, expression := range strings.Split(strings.TrimSpace(string(expressions)), "\n") {
		compiled, issues := env.Compile(expression)
		if issues.Err() != nil {
			panic(issues.Err())
		}
		program, err := env.Program(compiled)
		if err != nil {
			panic(err)
		}
		value, _, err := program.Eval(map[string]any{"m": map[string]any{"a": nil}})
		if err != nil {
			panic(err)
		}
		fmt.Printf("Go: %s -> %v\n", expression, value.Value())
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m cel.dev/cel-go
node -p '["@bufbuild/cel", "@marcbachmann/cel-js"].map((name) => name + " " + JSON.parse(require("fs").readFileSync(`node_modules/${name}/package.json`)).version).join("\n")'
{
  GOTOOLCHAIN=local timeout 120 go run .
  timeout 120 node main.mjs
} | tee seen
cat > want <<'EOT'
Go: 'a' in m -> true
Go: has(m.a) -> true
Go: m.a == null -> true
Go: 1 == 1 // a comment -> true
Go: timestamp('0001-01-01T00:00:00Z').getFullYear() == 1 -> true
Go: '\U0001F600' < '\uFB00' -> false
Go: string(1e6) -> 1e+06
Go: string(0.00001) -> 1e-05
Go: string(0.5) -> 0.5
Go: b'é' == b'\303\251' -> true
Go: 'aB'.matches('(?i)ab') -> true
Go: 'a'.matches('\\pL') -> true
@bufbuild/cel: 'a' in m -> false
@bufbuild/cel: has(m.a) -> false
@bufbuild/cel: m.a == null -> true
@bufbuild/cel: 1 == 1 // a comment -> refused
@bufbuild/cel: timestamp('0001-01-01T00:00:00Z').getFullYear() == 1 -> false
@bufbuild/cel: '\U0001F600' < '\uFB00' -> true
@bufbuild/cel: string(1e6) -> 1000000
@bufbuild/cel: string(0.00001) -> 0.00001
@bufbuild/cel: string(0.5) -> 0.5
@bufbuild/cel: b'é' == b'\303\251' -> true
@bufbuild/cel: 'aB'.matches('(?i)ab') -> true
@bufbuild/cel: 'a'.matches('\\pL') -> true
@marcbachmann/cel-js: 'a' in m -> true
@marcbachmann/cel-js: has(m.a) -> true
@marcbachmann/cel-js: m.a == null -> true
@marcbachmann/cel-js: 1 == 1 // a comment -> true
@marcbachmann/cel-js: timestamp('0001-01-01T00:00:00Z').getFullYear() == 1 -> true
@marcbachmann/cel-js: '\U0001F600' < '\uFB00' -> true
@marcbachmann/cel-js: string(1e6) -> 1000000
@marcbachmann/cel-js: string(0.00001) -> 0.00001
@marcbachmann/cel-js: string(0.5) -> 0.5
@marcbachmann/cel-js: b'é' == b'\303\251' -> false
@marcbachmann/cel-js: 'aB'.matches('(?i)ab') -> refused
@marcbachmann/cel-js: 'a'.matches('\\pL') -> false
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
