#!/usr/bin/env bash
# Guess: a configuration in TOML is read alike by a host in Go and its tools in Node, now that the libraries are at version 1.1 of the format, or is refused by
# each: the format is written down to the last digit, and has its own tests.
# Seen: of github.com/BurntSushi/toml v1.6.0, github.com/pelletier/go-toml/v2 v2.4.3, smol-toml 1.9.1, toml 5.0.1 and @iarna/toml 3.0.0 (npm) only Go's two agree for most. (1)
# 9007199254740993, an integer of 64 bits as TOML demands them, is refused by smol-toml and toml as they are; 9223372036854775808, which is none, is a negative one for
# @iarna/toml. (2) 2026-02-29 is the 1st of March for smol-toml and @iarna/toml. (3) 1e400 is infinity in Node, and refused in Go. (4) A table that was made by dotted
# keys, or in one line, is opened again by BurntSushi alone. (5) What is new in 1.1, such as a comma at the end of an inline table, @iarna/toml refuses.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save smol-toml@1.9.1 toml@5.0.1 @iarna/toml@3.0.0 > /dev/null 2>&1
cat > cases <<'EOT'
a = 1
a = {b = 1,}
a = 9007199254740991
a = 9007199254740993
a = 9223372036854775807
a = 9223372036854775808
a = 2026-02-28
a = 2026-02-29
a = 1e400
a.b = 1; [a]; c = 2
a = {}; [a.b]
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/BurntSushi/toml v1.6.0
	github.com/pelletier/go-toml/v2 v2.4.3
)
EOT
cat > main.go <<'EOT'
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	pelletier "github.com/pelletier/go-toml/v2"
)

func show(read func([]byte, any) error, text string) string {
	var v map[string]any
	if err := read([]byte(text), &v); err != nil {
		return "refused"
	}
	switch a := v["a"].(type) {
	case time.Time:
		return a.Format(time.DateOnly)
	case map[string]any:
		out, err := json.Marshal(a)
		if err != nil {
			panic(err)
		}
		return string(out)
	default:
		return fmt.Sprint(a)
	}
}

func main() {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		text := strings.ReplaceAll(in.Text(), "; ", "\n")
		fmt.Printf("%s: BurntSushi %s, go-toml %s,\n", in.Text(), show(toml.Unmarshal, text), show(pelletier.Unmarshal, text))
	}
}
EOT
cat > main.mjs <<'EOT'
import { readFileSync } from 'node:fs';
import iarna from '@iarna/toml';
import * as smol from 'smol-toml';
import toml from 'toml';

const show = (read, text) => {
  let a;
  try {
    ({ a } = read(text));
  } catch {
    return 'refused';
  }
  if (typeof a !== 'object') return String(a);
  const json = JSON.stringify(a);
  return json.startsWith('"') ? json.slice(1, 11) : json;
};
for (const line of readFileSync('cases', 'utf8').trim().split('\n')) {
  const text = line.replaceAll('; ', '\n');
  console.log(`smol-toml ${show(smol.parse, text)}, toml ${show(toml.parse, text)}, @iarna/toml ${show(iarna.parse, text)}`);
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/BurntSushi/toml github.com/pelletier/go-toml/v2
for package in smol-toml toml @iarna/toml; do echo "$package $(node -p "JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version")"; done
GOTOOLCHAIN=local timeout 120 go run . < cases > go.seen
node main.mjs > node.seen
paste -d' ' go.seen node.seen | tee seen
cat > want <<'EOT'
a = 1: BurntSushi 1, go-toml 1, smol-toml 1, toml 1, @iarna/toml 1
a = {b = 1,}: BurntSushi {"b":1}, go-toml {"b":1}, smol-toml {"b":1}, toml {"b":1}, @iarna/toml refused
a = 9007199254740991: BurntSushi 9007199254740991, go-toml 9007199254740991, smol-toml 9007199254740991, toml 9007199254740991, @iarna/toml 9007199254740991
a = 9007199254740993: BurntSushi 9007199254740993, go-toml 9007199254740993, smol-toml refused, toml refused, @iarna/toml 9007199254740993
a = 9223372036854775807: BurntSushi 9223372036854775807, go-toml 9223372036854775807, smol-toml refused, toml refused, @iarna/toml 9223372036854775807
a = 9223372036854775808: BurntSushi refused, go-toml refused, smol-toml refused, toml refused, @iarna/toml -9223372036854775808
a = 2026-02-28: BurntSushi 2026-02-28, go-toml 2026-02-28, smol-toml 2026-02-28, toml 2026-02-28, @iarna/toml 2026-02-28
a = 2026-02-29: BurntSushi refused, go-toml refused, smol-toml 2026-03-01, toml refused, @iarna/toml 2026-03-01
a = 1e400: BurntSushi refused, go-toml refused, smol-toml Infinity, toml Infinity, @iarna/toml Infinity
a.b = 1; [a]; c = 2: BurntSushi {"b":1,"c":2}, go-toml refused, smol-toml refused, toml refused, @iarna/toml refused
a = {}; [a.b]: BurntSushi {"b":{}}, go-toml refused, smol-toml refused, toml refused, @iarna/toml refused
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
