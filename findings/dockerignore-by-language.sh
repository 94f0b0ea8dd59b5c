#!/usr/bin/env bash
# Guess: a .dockerignore leaves the same files out of a plugin's image whether a program in Go packs them or one in Node: @balena/dockerignore says that it is a port of
# Docker's implementation in Go, and github.com/moby/patternmatcher is that matching.
# Seen: github.com/moby/patternmatcher v0.6.1 and @balena/dockerignore 1.0.2 (npm) differ where a pattern has "+", "(", ")" or "^", which stand for themselves in
# Docker's, and are of a regular expression in Node's: "src(old)" leaves out nothing of that name there, and "a+b" leaves out "aab" in its place. "**.log" is every path that
# ends with .log for Docker, and in Node only what is called ".log". An image that Node packed has files that one of Docker's has not. Of "*", "?", "[...]", "**/", "!",
# comments, "." and "$" both made the same, in 50 patterns more.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @balena/dockerignore@1.0.2 > /dev/null 2>&1
cat > cases <<'EOT'
a+b|a+b
a+b|aab
src(old)|src(old)
src(old)|srcold
a^b|a^b
**.log|run.log
**.log|plugin/run.log
**/*.log|run.log
a.b|axb
a$|a$
*.md|README.md
plugin/[^a].txt|plugin/b.txt
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/moby/patternmatcher v0.6.1
EOT
cat > main.go <<'EOT'
package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

func main() {
	cases, err := os.ReadFile("cases")
	if err != nil {
		panic(err)
	}
	for line := range strings.Lines(string(cases)) {
		ignore, path, _ := strings.Cut(strings.TrimSpace(line), "|")
		patterns, err := ignorefile.ReadAll(strings.NewReader(ignore))
		if err != nil {
			panic(err)
		}
		matcher, err := patternmatcher.New(patterns)
		if err != nil {
			panic(err)
		}
		out, err := matcher.MatchesOrParentMatches(path)
		if err != nil {
			panic(err)
		}
		fmt.Printf("%s leaves out %s: Go %v\n", ignore, path, out)
	}
}
EOT
cat > main.cjs <<'EOT'
const dockerignore = require('@balena/dockerignore');
for (const line of require('node:fs').readFileSync('cases', 'utf8').trim().split('\n')) {
  const [ignore, path] = line.split('|');
  console.log('Node', dockerignore().add(ignore).ignores(path));
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/moby/patternmatcher
node -p '"@balena/dockerignore " + require("./node_modules/@balena/dockerignore/package.json").version'
GOTOOLCHAIN=local timeout 120 go run . > go.seen
node main.cjs > node.seen
paste -d, go.seen node.seen | sed 's/,Node/, Node/' | tee seen
cat > want <<'EOT'
a+b leaves out a+b: Go true, Node false
a+b leaves out aab: Go false, Node true
src(old) leaves out src(old): Go true, Node false
src(old) leaves out srcold: Go false, Node true
a^b leaves out a^b: Go true, Node false
**.log leaves out run.log: Go true, Node false
**.log leaves out plugin/run.log: Go true, Node false
**/*.log leaves out run.log: Go true, Node true
a.b leaves out axb: Go false, Node false
a$ leaves out a$: Go true, Node true
*.md leaves out README.md: Go true, Node true
plugin/[^a].txt leaves out plugin/b.txt: Go true, Node true
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
