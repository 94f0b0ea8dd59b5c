#!/usr/bin/env bash
# Guess: a version and a specifier of PEP 440, as updaters of dependencies compare them, mean the same in Go and in Node, and what PEP 440 says.
# Seen: 1 (which is 1.0, by zero padding) is not in "==1.0.*" nor in "~=1.0.0" by github.com/aquasecurity/go-pep440-version v0.0.1 and @renovatebot/pep440 5.0.1 (npm), and it
# is for PEP 440 and pip. By the one in Go, besides, 1.1 is not in "~=1.0a1", of which PEP 440 leaves the suffix aside, and 1.0a1 is in "<1.0" once it is told to take pre-releases. By
# the one in Node 1.0 is not in "<1.0.post1", and 1!1.0, of the later epoch, not in ">1.0".
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @renovatebot/pep440@5.0.1 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/aquasecurity/go-pep440-version v0.0.1
EOT
# version, specifier, whether pre-releases are taken, what PEP 440 says.
cat > cases.json <<'EOT'
[["1.0.0", "==1.0.*", false, true], ["1", "==1.0.*", false, true], ["1.0", "~=1.0.0", false, true], ["1", "~=1.0.0", false, true],
 ["1.1", "~=1.0a1", false, true], ["2.0", "~=1.0a1", false, false],
 ["0.9", "<1.0", false, true], ["1.0a1", "<1.0", true, false], ["0.9a1", "<1.0", true, true],
 ["1.0", "<1.0.post1", false, true], ["1!1.0", ">1.0", false, true], ["1.1", ">1.0", false, true]]
EOT
cat > main.go <<'EOT'
package main

import (
	"encoding/json"
	"fmt"
	"os"

	version "github.com/aquasecurity/go-pep440-version"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func main() {
	var cases [][4]any
	if err := json.Unmarshal(must(os.ReadFile("cases.json")), &cases); err != nil {
		panic(err)
	}
	for _, c := range cases {
		seen := "refused"
		if s, err := version.NewSpecifiers(c[1].(string), version.WithPreRelease(c[2].(bool))); err == nil {
			seen = fmt.Sprint(s.Check(must(version.Parse(c[0].(string)))))
		}
		fmt.Printf("%s in %q: PEP 440 %v, Go %s,\n", c[0], c[1], c[3], seen)
	}
}
EOT
cat > main.mjs <<'EOT'
import { readFileSync } from 'node:fs';
import { satisfies, valid, validRange } from '@renovatebot/pep440';

for (const [version, specifier, prereleases] of JSON.parse(readFileSync('cases.json', 'utf8'))) {
  if (!valid(version)) throw new Error(version);
  console.log('Node ' + (validRange(specifier) ? satisfies(version, specifier, { prereleases }) : 'refused'));
}
EOT
cat > want <<'EOT'
1.0.0 in "==1.0.*": PEP 440 true, Go true, Node true
1 in "==1.0.*": PEP 440 true, Go false, Node false
1.0 in "~=1.0.0": PEP 440 true, Go true, Node true
1 in "~=1.0.0": PEP 440 true, Go false, Node false
1.1 in "~=1.0a1": PEP 440 true, Go false, Node true
2.0 in "~=1.0a1": PEP 440 false, Go false, Node false
0.9 in "<1.0": PEP 440 true, Go true, Node true
1.0a1 in "<1.0": PEP 440 false, Go true, Node false
0.9a1 in "<1.0": PEP 440 true, Go true, Node true
1.0 in "<1.0.post1": PEP 440 true, Go true, Node false
1!1.0 in ">1.0": PEP 440 true, Go true, Node false
1.1 in ">1.0": PEP 440 true, Go true, Node true
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/aquasecurity/go-pep440-version
node -p '"@renovatebot/pep440 " + JSON.parse(require("fs").readFileSync("node_modules/@renovatebot/pep440/package.json")).version'
GOTOOLCHAIN=local go run . > go.seen
node main.mjs > node.seen
paste -d ' ' go.seen node.seen | tee seen
cmp -s seen want || { echo CHANGED; exit 1; }
