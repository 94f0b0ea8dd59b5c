#!/usr/bin/env bash
# Guess: a configuration in TOML is read alike by a host in Go and its tools in Node, now that the libraries are at version 1.1 of the format, or is refused by
# each: the format is written down to the last digit, and has its own tests.
# Seen: github.com/BurntSushi/toml v1.6.0, github.com/pelletier/go-toml/v2 v2.4.3, smol-toml 1.9.1, toml 5.0.1 and @iarna/toml 3.0.0 (npm) differ on documents that are valid.
# (1) 9007199254740993, an integer of 64 bits as TOML demands them, is refused by smol-toml and toml as they are. (2) 1e400 is infinity in Node, and refused in Go. (3) A
# date without a zone is midnight here for BurntSushi, midnight in UTC for smol-toml and @iarna/toml, and no moment at all for go-toml and toml; likewise a date with a
# time, and a time alone. (4) Of a fraction of a second Go keeps nanoseconds and Node milliseconds, but for a time without a zone, which toml leaves as text. (5) @iarna/toml
# refuses what is new in 1.1: a comma at the end of an inline table, a newline in it, "\x41" and a time without seconds; and "t" and "z" in lower case, which are older.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save smol-toml@1.9.1 toml@5.0.1 @iarna/toml@3.0.0 > /dev/null 2>&1
cat > cases <<'EOT'
a = 1
a = {b = 1}
a = {b = 1,}
a = {; b = 1; }
a = "\x41"
a = 9007199254740991
a = 9007199254740993
a = 9223372036854775807
a = 1e400
a = 2026-02-28T12:30:00Z
a = 2026-02-28T12:30Z
a = 2026-02-28t12:30:00z
a = 2026-02-28T12:30:00.123456789Z
a = 2026-02-28
a = 2026-02-28T12:30:00
a = 12:30:45
a = 12:30:45.123456789
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
		return a.UTC().Format(time.RFC3339Nano)
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
  if (a instanceof Date) return Date.prototype.toISOString.call(a);
  return typeof a === 'object' ? JSON.stringify(a) : String(a);
};
for (const line of readFileSync('cases', 'utf8').trim().split('\n')) {
  const text = line.replaceAll('; ', '\n');
  console.log(`smol-toml ${show(smol.parse, text)}, toml ${show(toml.parse, text)}, @iarna/toml ${show(iarna.parse, text)}`);
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/BurntSushi/toml github.com/pelletier/go-toml/v2
for package in smol-toml toml @iarna/toml; do echo "$package $(node -p "JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version")"; done
export TZ=Asia/Tokyo
GOTOOLCHAIN=local timeout 120 go run . < cases > go.seen
node main.mjs > node.seen
paste -d' ' go.seen node.seen | tee seen
cat > want <<'EOT'
a = 1: BurntSushi 1, go-toml 1, smol-toml 1, toml 1, @iarna/toml 1
a = {b = 1}: BurntSushi {"b":1}, go-toml {"b":1}, smol-toml {"b":1}, toml {"b":1}, @iarna/toml {"b":1}
a = {b = 1,}: BurntSushi {"b":1}, go-toml {"b":1}, smol-toml {"b":1}, toml {"b":1}, @iarna/toml refused
a = {; b = 1; }: BurntSushi {"b":1}, go-toml {"b":1}, smol-toml {"b":1}, toml {"b":1}, @iarna/toml refused
a = "\x41": BurntSushi A, go-toml A, smol-toml A, toml A, @iarna/toml refused
a = 9007199254740991: BurntSushi 9007199254740991, go-toml 9007199254740991, smol-toml 9007199254740991, toml 9007199254740991, @iarna/toml 9007199254740991
a = 9007199254740993: BurntSushi 9007199254740993, go-toml 9007199254740993, smol-toml refused, toml refused, @iarna/toml 9007199254740993
a = 9223372036854775807: BurntSushi 9223372036854775807, go-toml 9223372036854775807, smol-toml refused, toml refused, @iarna/toml 9223372036854775807
a = 1e400: BurntSushi refused, go-toml refused, smol-toml Infinity, toml Infinity, @iarna/toml Infinity
a = 2026-02-28T12:30:00Z: BurntSushi 2026-02-28T12:30:00Z, go-toml 2026-02-28T12:30:00Z, smol-toml 2026-02-28T12:30:00.000Z, toml 2026-02-28T12:30:00.000Z, @iarna/toml 2026-02-28T12:30:00.000Z
a = 2026-02-28T12:30Z: BurntSushi 2026-02-28T12:30:00Z, go-toml 2026-02-28T12:30:00Z, smol-toml 2026-02-28T12:30:00.000Z, toml 2026-02-28T12:30:00.000Z, @iarna/toml refused
a = 2026-02-28t12:30:00z: BurntSushi 2026-02-28T12:30:00Z, go-toml 2026-02-28T12:30:00Z, smol-toml 2026-02-28T12:30:00.000Z, toml 2026-02-28T12:30:00.000Z, @iarna/toml refused
a = 2026-02-28T12:30:00.123456789Z: BurntSushi 2026-02-28T12:30:00.123456789Z, go-toml 2026-02-28T12:30:00.123456789Z, smol-toml 2026-02-28T12:30:00.123Z, toml 2026-02-28T12:30:00.123Z, @iarna/toml 2026-02-28T12:30:00.123Z
a = 2026-02-28: BurntSushi 2026-02-27T15:00:00Z, go-toml 2026-02-28, smol-toml 2026-02-28T00:00:00.000Z, toml 2026-02-28, @iarna/toml 2026-02-28T00:00:00.000Z
a = 2026-02-28T12:30:00: BurntSushi 2026-02-28T03:30:00Z, go-toml 2026-02-28T12:30:00, smol-toml 2026-02-28T12:30:00.000Z, toml 2026-02-28T12:30:00, @iarna/toml 2026-02-28T12:30:00.000Z
a = 12:30:45: BurntSushi 0000-01-01T03:30:45Z, go-toml 12:30:45, smol-toml 0000-01-01T12:30:45.000Z, toml 12:30:45, @iarna/toml 0000-01-01T12:30:45.000Z
a = 12:30:45.123456789: BurntSushi 0000-01-01T03:30:45.123456789Z, go-toml 12:30:45.123456789, smol-toml 0000-01-01T12:30:45.123Z, toml 12:30:45.123456789, @iarna/toml 0000-01-01T12:30:45.123Z
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
