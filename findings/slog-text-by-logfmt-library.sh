#!/usr/bin/env bash
# Guess: what slog.TextHandler writes is logfmt, which the libraries of that name read as it was logged: it quotes what needs quotes.
# Seen: it quotes as strconv.Quote does, keys too, and no two readers know the same of it. Of Go 1.26's lines logfmt 1.4.0 (npm) drops the backslash of each escape and leaves
# the letter, which is right for \" and \\ alone: the message "a\nb" is "anb", U+00A0, which slog writes as \u00a0, is "u00a0", and path=C:\plugins, which slog does not quote,
# is "C:plugins". A control character, which is \x01, ends the line for github.com/go-logfmt/logfmt v0.6.1: what follows is not read, and the error is "invalid quoted value";
# github.com/kr/logfmt leaves it out with an error. A key with a blank, which slog quotes, ends the line of the first too ("unexpected '"'"), and the other makes keys of its
# words, and of its value. logfmt of npm makes a boolean of the text true.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save logfmt@1.4.0 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/go-logfmt/logfmt v0.6.1
	github.com/kr/logfmt v0.0.0-20140226030751-b84e30acd515
)
EOT
cat > main.go <<'EOT'
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"

	"github.com/go-logfmt/logfmt"
	kr "github.com/kr/logfmt"
)

// noTime leaves out what differs from run to run.
func noTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
		return slog.Attr{}
	}
	return a
}

func show(name string, pairs map[string]string, err error) {
	text, _ := json.Marshal(pairs)
	fmt.Printf("  %s: %s %v\n", name, text, err)
}

func main() {
	file, err := os.Create("lines")
	if err != nil {
		panic(err)
	}
	defer file.Close()
	for _, args := range [][]any{
		{"two words", "port", 80, "note", `say "hi"`},
		{"a\nb", "path", `C:\plugins`, "next", 1},
		{"control", "text", "a\x01b", "next", 1},
		{"blank", "text", "a\u00a0b", "next", 1},
		{"key", "two words", 2, "next", 1},
		{"truth", "text", "true"},
	} {
		var line bytes.Buffer
		slog.New(slog.NewTextHandler(&line, &slog.HandlerOptions{ReplaceAttr: noTime})).Info(args[0].(string), args[1:]...)
		file.Write(line.Bytes())
		fmt.Print(line.String())
		decoder, pairs := logfmt.NewDecoder(bytes.NewReader(line.Bytes())), map[string]string{}
		for decoder.ScanRecord() {
			for decoder.ScanKeyval() {
				pairs[string(decoder.Key())] = string(decoder.Value())
			}
		}
		show("go-logfmt", pairs, decoder.Err())
		pairs = map[string]string{}
		err := kr.Unmarshal(line.Bytes(), kr.HandlerFunc(func(key, value []byte) error {
			pairs[string(key)] = string(value)
			return nil
		}))
		show("kr", pairs, err)
	}
}
EOT
cat > main.cjs <<'EOT'
const logfmt = require('logfmt');

for (const line of require('node:fs').readFileSync('lines', 'utf8').trimEnd().split('\n')) {
  console.log('npm:', JSON.stringify(logfmt.parse(line)));
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/go-logfmt/logfmt github.com/kr/logfmt
node -p '"logfmt " + require("./node_modules/logfmt/package.json").version'
{
  GOTOOLCHAIN=local timeout 120 go run .
  node main.cjs
} | tee seen
cat > want <<'EOT'
msg="two words" port=80 note="say \"hi\""
  go-logfmt: {"msg":"two words","note":"say \"hi\"","port":"80"} <nil>
  kr: {"msg":"two words","note":"say \"hi\"","port":"80"} <nil>
msg="a\nb" path=C:\plugins next=1
  go-logfmt: {"msg":"a\nb","next":"1","path":"C:\\plugins"} <nil>
  kr: {"msg":"a\nb","next":"1","path":"C:\\plugins"} <nil>
msg=control text="a\x01b" next=1
  go-logfmt: {"msg":"control"} logfmt syntax error at pos 26 on line 1: invalid quoted value
  kr: {"msg":"control","next":"1"} logfmt: error unquoting bytes ""
msg=blank text="a\u00a0b" next=1
  go-logfmt: {"msg":"blank","next":"1","text":"a b"} <nil>
  kr: {"msg":"blank","next":"1","text":"a b"} <nil>
msg=key "two words"=2 next=1
  go-logfmt: {"msg":"key"} logfmt syntax error at pos 9 on line 1: unexpected '"'
  kr: {"2":"","msg":"key","next":"1","two":"","words":""} <nil>
msg=truth text=true
  go-logfmt: {"msg":"truth","text":"true"} <nil>
  kr: {"msg":"truth","text":"true"} <nil>
npm: {"msg":"two words","port":"80","note":"say \"hi\""}
npm: {"msg":"anb","path":"C:plugins","next":"1"}
npm: {"msg":"control","text":"ax01b","next":"1"}
npm: {"msg":"blank","text":"au00a0b","next":"1"}
npm: {"msg":"key","two words":"2","next":"1"}
npm: {"msg":"truth","text":true}
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
