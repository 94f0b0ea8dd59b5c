#!/usr/bin/env bash
# Guess: one file of variables for a plugin, .env, is read alike by its launcher in Go, by Compose and by the plugin in Node: values that are on one line
# and unquoted are what stands behind the first "=", a "#" in a value is a comment behind a blank alone, and what is quoted is literal or has escapes.
# Seen: of github.com/joho/godotenv v1.5.1, github.com/compose-spec/compose-go/v2 v2.16.2 (dotenv), github.com/subosito/gotenv v1.6.0,
# github.com/hashicorp/go-envparse v0.1.0, dotenv 18.0.10 (npm) and Node 20's util.parseEnv no two agree. (1) A secret "pass#word" is "pass" for four, and
# whole for godotenv and Compose; "#fff" is empty just so. (2) "pa$word" is "pa" for Compose alone, for which "$$" is one dollar; the others keep both. (3)
# ${UNSET:-fallback} is "fallback" for Compose, itself for three, and ":-fallback}" for godotenv and gotenv. (4) "a\"b" in double quotes is a"b in Go, a\"b
# in dotenv, and a\ in Node. (5) JSON without quotes around it, {"a": "b"}, loses its quotes in go-envparse. (6) A name with a "-" is refused by three.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save node@20.20.2 dotenv@18.0.10 > /dev/null 2>&1
export PATH="$dir/node_modules/node/bin:$PATH"
# Each line is a file of its own, so that one that is refused costs no other.
cat > lines.txt <<'EOT'
SECRET=pass#word
COLOR=#fff
COMMENT=pass #word
DOLLAR=pa$word
TWICE=pa$$word
DEFAULT=${UNSET:-fallback}
ESCAPED="a\"b"
SINGLE='a$b\n'
JSON={"a": "b"}
APOSTROPHE=it's
BACKTICK=`date`
dash-ed=1
EOT
cat > main.cjs <<'EOT'
'use strict';
const dotenv = require('dotenv');
const { parseEnv } = require('node:util');
for (const line of require('node:fs').readFileSync('lines.txt', 'utf8').trim().split('\n')) {
  const name = line.slice(0, line.indexOf('='));
  for (const [library, parse] of Object.entries({ dotenv: dotenv.parse, Node: parseEnv })) console.log(`${name}: ${library} [${parse(line + '\n')[name]}]`);
}
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/compose-spec/compose-go/v2 v2.16.2
	github.com/hashicorp/go-envparse v0.1.0
	github.com/joho/godotenv v1.5.1
	github.com/subosito/gotenv v1.6.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/hashicorp/go-envparse"
	"github.com/joho/godotenv"
	"github.com/subosito/gotenv"
)

func main() {
	data, err := os.ReadFile("lines.txt")
	if err != nil {
		panic(err)
	}
	libraries := map[string]func(string) (map[string]string, error){
		"godotenv": godotenv.Unmarshal,
		"Compose":  func(text string) (map[string]string, error) { return dotenv.UnmarshalWithLookup(text, nil) },
		"gotenv":   func(text string) (map[string]string, error) { return gotenv.StrictParse(strings.NewReader(text)) },
		"envparse": func(text string) (map[string]string, error) { return envparse.Parse(strings.NewReader(text)) },
	}
	for line := range strings.Lines(string(data)) {
		name, _, _ := strings.Cut(line, "=")
		for library, parse := range libraries {
			if values, err := parse(line); err != nil {
				fmt.Printf("%s: %s refused\n", name, library)
			} else {
				fmt.Printf("%s: %s [%s]\n", name, library, values[name])
			}
		}
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/joho/godotenv github.com/compose-spec/compose-go/v2 github.com/subosito/gotenv github.com/hashicorp/go-envparse
node -p "'node ' + process.versions.node + ', dotenv ' + require('dotenv/package.json').version"
{ GOTOOLCHAIN=local timeout 240 go run . 2> /dev/null; node main.cjs; } | LC_ALL=C sort | tee seen
LC_ALL=C sort > want <<'EOT'
APOSTROPHE: Compose [it's]
APOSTROPHE: Node [it's]
APOSTROPHE: dotenv [it's]
APOSTROPHE: envparse refused
APOSTROPHE: godotenv [it's]
APOSTROPHE: gotenv [it's]
BACKTICK: Compose [`date`]
BACKTICK: Node [date]
BACKTICK: dotenv [date]
BACKTICK: envparse [`date`]
BACKTICK: godotenv [`date`]
BACKTICK: gotenv [`date`]
COLOR: Compose [#fff]
COLOR: Node []
COLOR: dotenv []
COLOR: envparse []
COLOR: godotenv [#fff]
COLOR: gotenv []
COMMENT: Compose [pass]
COMMENT: Node [pass]
COMMENT: dotenv [pass]
COMMENT: envparse [pass]
COMMENT: godotenv [pass]
COMMENT: gotenv [pass]
DEFAULT: Compose [fallback]
DEFAULT: Node [${UNSET:-fallback}]
DEFAULT: dotenv [${UNSET:-fallback}]
DEFAULT: envparse [${UNSET:-fallback}]
DEFAULT: godotenv [:-fallback}]
DEFAULT: gotenv [:-fallback}]
DOLLAR: Compose [pa]
DOLLAR: Node [pa$word]
DOLLAR: dotenv [pa$word]
DOLLAR: envparse [pa$word]
DOLLAR: godotenv [pa$word]
DOLLAR: gotenv [pa$word]
ESCAPED: Compose [a"b]
ESCAPED: Node [a\]
ESCAPED: dotenv [a\"b]
ESCAPED: envparse [a"b]
ESCAPED: godotenv [a"b]
ESCAPED: gotenv [a"b]
JSON: Compose [{"a": "b"}]
JSON: Node [{"a": "b"}]
JSON: dotenv [{"a": "b"}]
JSON: envparse [{a: b}]
JSON: godotenv [{"a": "b"}]
JSON: gotenv [{"a": "b"}]
SECRET: Compose [pass#word]
SECRET: Node [pass]
SECRET: dotenv [pass]
SECRET: envparse [pass]
SECRET: godotenv [pass#word]
SECRET: gotenv [pass]
SINGLE: Compose [a$b\n]
SINGLE: Node [a$b\n]
SINGLE: dotenv [a$b\n]
SINGLE: envparse [a$b\n]
SINGLE: godotenv [a$b\n]
SINGLE: gotenv [a$b\n]
TWICE: Compose [pa$word]
TWICE: Node [pa$$word]
TWICE: dotenv [pa$$word]
TWICE: envparse [pa$$word]
TWICE: godotenv [pa$$word]
TWICE: gotenv [pa$$word]
dash-ed: Compose [1]
dash-ed: Node [1]
dash-ed: dotenv [1]
dash-ed: envparse refused
dash-ed: godotenv refused
dash-ed: gotenv refused
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
