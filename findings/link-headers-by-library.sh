#!/usr/bin/env bash
# Guess: the Link header with which a registry (OCI distribution: the next page of tags, of referrers) and other lists by pages name the next page is read alike by the
# libraries for it in Go and Node: RFC 8288 gives the grammar and how to parse it.
# Seen: only for the plainest. A comma or semicolon in the address, which need no escape there, loses the page for github.com/tomnomnom/linkheader e5fe3b51442e, and
# github.com/peterhellberg/link v1.2.0 takes the comma out of the address: another page. A title with a comma loses the relation for the first alone. Blanks around "=" and
# ";", which a reader is to take, lose the page for both and for parse-link-header 2.0.0 (npm). The name REL, names having no case, loses it for peterhellberg's and
# parse-link-header. Two relations in one rel, "next last", are one of that name in Go. Of two rel, of which the first counts, all but http-link-header 1.1.4 (npm) take the
# second.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save http-link-header@1.1.4 parse-link-header@2.0.0 > /dev/null 2>&1
cat > headers <<'EOT'
</v2/a/tags/list?n=2&last=b>; rel="next"
</v2/a/tags/list?last=1,2>; rel="next"
</v2/a/tags/list?last=1;2>; rel="next"
</v2/a>; title="tags, page 2"; rel="next"
</v2/a> ; rel = "next"
</v2/a>; REL="next"
</v2/a>; rel="next last"
</v2/a>; rel="prev"; rel="next"
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/peterhellberg/link v1.2.0
	github.com/tomnomnom/linkheader v0.0.0-20250811210735-e5fe3b51442e
)
EOT
cat > main.go <<'EOT'
package main

import (
	"bufio"
	"fmt"
	"os"

	"github.com/peterhellberg/link"
	"github.com/tomnomnom/linkheader"
)

// main prints what each library says when it is asked for the next page.
func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		first, second := "none", "none"
		for _, l := range linkheader.Parse(lines.Text()).FilterByRel("next") {
			first = l.URL
		}
		if l := link.Parse(lines.Text())["next"]; l != nil {
			second = l.URI
		}
		fmt.Printf("tomnomnom %s, peterhellberg %s\n", first, second)
	}
}
EOT
cat > main.mjs <<'EOT'
import { readFileSync } from 'node:fs';
import LinkHeader from 'http-link-header';
import parse from 'parse-link-header';

for (const header of readFileSync('headers', 'utf8').trimEnd().split('\n')) {
  const [next] = LinkHeader.parse(header).rel('next');
  console.log(`${header}\n  http-link-header ${next?.uri ?? 'none'}, parse-link-header ${parse(header)?.next?.url ?? 'none'}`);
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/peterhellberg/link github.com/tomnomnom/linkheader
for package in http-link-header parse-link-header; do node -p "'$package ' + JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version"; done
GOTOOLCHAIN=local timeout 120 go run . < headers > go.out
node main.mjs > node.out
{ while read -r header && read -r node && read -r go <&3; do printf '%s\n  %s\n  %s\n' "$header" "$node" "$go"; done; } < node.out 3< go.out | tee seen
cat > want <<'EOT'
</v2/a/tags/list?n=2&last=b>; rel="next"
  http-link-header /v2/a/tags/list?n=2&last=b, parse-link-header /v2/a/tags/list?n=2&last=b
  tomnomnom /v2/a/tags/list?n=2&last=b, peterhellberg /v2/a/tags/list?n=2&last=b
</v2/a/tags/list?last=1,2>; rel="next"
  http-link-header /v2/a/tags/list?last=1,2, parse-link-header /v2/a/tags/list?last=1,2
  tomnomnom none, peterhellberg /v2/a/tags/list?last=12
</v2/a/tags/list?last=1;2>; rel="next"
  http-link-header /v2/a/tags/list?last=1;2, parse-link-header /v2/a/tags/list?last=1;2
  tomnomnom none, peterhellberg /v2/a/tags/list?last=1;2
</v2/a>; title="tags, page 2"; rel="next"
  http-link-header /v2/a, parse-link-header /v2/a
  tomnomnom none, peterhellberg /v2/a
</v2/a> ; rel = "next"
  http-link-header /v2/a, parse-link-header none
  tomnomnom none, peterhellberg none
</v2/a>; REL="next"
  http-link-header /v2/a, parse-link-header none
  tomnomnom /v2/a, peterhellberg none
</v2/a>; rel="next last"
  http-link-header /v2/a, parse-link-header /v2/a
  tomnomnom none, peterhellberg none
</v2/a>; rel="prev"; rel="next"
  http-link-header none, parse-link-header /v2/a
  tomnomnom /v2/a, peterhellberg /v2/a
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
