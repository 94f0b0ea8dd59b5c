#!/usr/bin/env bash
# Guess: a host in Go and its tools in Node may judge the version of a plugin by one text, such as ">=1.0.0-0 <2" or "~>1.2": what is a range of
# semantic versions means the same in each library that reads it, or is refused.
# Seen: of github.com/Masterminds/semver/v3 v3.5.0, github.com/hashicorp/go-version v1.9.0 and semver 7.8.6 (npm) no two agree. (1) With a pre-release
# in the range, as in "-0" to admit pre-releases, Masterminds admits those of the next major too: 2.0.0-rc.1 is "<2" for it, and not for npm, nor,
# with a comma, which npm refuses, for go-version. "^1.0.0-0" keeps it out. (2) "~>1.2" admits 1.9.0 with go-version alone. (3) "1.2" and "<=1.2" are
# 1.2.x for the first and for npm, and 1.2.0 alone for go-version; ">1.2" has 1.2.3 only there. (4) "^1.2.3-rc.1" has 1.3.0-rc.1 with Masterminds, not with npm.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save semver@7.8.6 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/Masterminds/semver/v3 v3.5.0
	github.com/hashicorp/go-version v1.9.0
)
EOT
cat > cases <<'EOT'
>=1.0.0-0 <2|2.0.0-rc.1
>=1.0.0-0, <2|2.0.0-rc.1
^1.0.0-0|2.0.0-rc.1
~>1.2|1.9.0
1.2|1.2.3
<=1.2|1.2.3
>1.2|1.2.3
^1.2.3-rc.1|1.3.0-rc.1
>=1.2.0|1.2.3
EOT
cat > main.go <<'EOT'
package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	masterminds "github.com/Masterminds/semver/v3"
	"github.com/hashicorp/go-version"
)

func main() {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		text, v, _ := strings.Cut(in.Text(), "|")
		first, second := "refused", "refused"
		if c, err := masterminds.NewConstraint(text); err == nil {
			first = fmt.Sprint(c.Check(masterminds.MustParse(v)))
		}
		if c, err := version.NewConstraint(text); err == nil {
			second = fmt.Sprint(c.Check(version.Must(version.NewVersion(v))))
		}
		fmt.Printf("%q has %s: Masterminds %s, go-version %s\n", text, v, first, second)
	}
}
EOT
cat > main.cjs <<'EOT'
const semver = require('semver');
for (const line of require('node:fs').readFileSync('cases', 'utf8').trim().split('\n')) {
  const [text, v] = line.split('|');
  console.log('npm', semver.validRange(text) === null ? 'refused' : semver.satisfies(v, text));
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
grep -E 'semver|go-version' go.mod
echo "semver (npm) $(node -p 'require("./node_modules/semver/package.json").version')"
GOTOOLCHAIN=local timeout 120 go run . < cases > go.seen
node main.cjs > node.seen
paste -d, go.seen node.seen | sed 's/,npm/, npm/' | tee seen
cat > want <<'EOT'
">=1.0.0-0 <2" has 2.0.0-rc.1: Masterminds true, go-version refused, npm false
">=1.0.0-0, <2" has 2.0.0-rc.1: Masterminds true, go-version false, npm refused
"^1.0.0-0" has 2.0.0-rc.1: Masterminds false, go-version refused, npm false
"~>1.2" has 1.9.0: Masterminds false, go-version true, npm false
"1.2" has 1.2.3: Masterminds true, go-version false, npm true
"<=1.2" has 1.2.3: Masterminds true, go-version false, npm true
">1.2" has 1.2.3: Masterminds false, go-version true, npm false
"^1.2.3-rc.1" has 1.3.0-rc.1: Masterminds true, go-version refused, npm false
">=1.2.0" has 1.2.3: Masterminds true, go-version true, npm true
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
