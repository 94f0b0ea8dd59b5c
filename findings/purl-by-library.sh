#!/usr/bin/env bash
# Guess: one package has one PURL, whichever library wrote it: the specification has a canonical form so that strings can be compared, and an SBOM of
# a plugin that was written by a tool in Node is looked up by a host in Go.
# Seen: github.com/package-url/packageurl-go v0.1.7 and packageurl-js 2.0.1 (npm) read and write these differently, without an error. (1) Of a Go module with
# capital letters, pkg:golang/github.com/Masterminds/semver/v3, Go makes small ones, which is no module of Go's; JavaScript keeps them. (2) A "+" in a
# version, as in every 1.0.0+build and v1.0.0+incompatible, is written as %2B by Go and as it is by JavaScript. (3) In qualifiers, such as
# checksum=sha256:…, a ":" is written as %3A by JavaScript, and as it is by Go. (4) A "+" in a qualifier, as in vcs_url=git+https://…, is read as a blank by
# JavaScript, and written back so.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save packageurl-js@2.0.1 > /dev/null 2>&1
cat > purls <<'EOT'
pkg:golang/github.com/Masterminds/semver/v3@v3.5.0
pkg:generic/plugin@1.0.0+build.5
pkg:generic/plugin@1.0.0?checksum=sha256:abcd
pkg:generic/plugin@1.0.0?vcs_url=git+https://example.com/plugin.git
pkg:npm/%40example/plugin@1.0.0
EOT
cat > main.mjs <<'EOT'
import { PackageURL } from 'packageurl-js';
import { readFileSync } from 'node:fs';

for (const line of readFileSync('purls', 'utf8').trim().split('\n')) {
  const { namespace, name, version, qualifiers } = PackageURL.fromString(line);
  console.log(`JS: ${[namespace, name].filter(Boolean).join('/')} ${version} [${Object.values(qualifiers ?? {}).join(' ')}] ${PackageURL.fromString(line)}`);
}
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/package-url/packageurl-go v0.1.7
EOT
cat > main.go <<'EOT'
package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/package-url/packageurl-go"
)

func main() {
	purls, err := os.ReadFile("purls")
	if err != nil {
		panic(err)
	}
	for line := range strings.Lines(string(purls)) {
		p, err := packageurl.FromString(strings.TrimSpace(line))
		if err != nil {
			panic(err)
		}
		name := strings.TrimPrefix(p.Namespace+"/"+p.Name, "/")
		fmt.Println("Go:", name, p.Version, slices.Collect(maps.Values(p.Qualifiers.Map())), p.ToString())
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/package-url/packageurl-go
node -p '"packageurl-js " + JSON.parse(require("fs").readFileSync("node_modules/packageurl-js/package.json")).version'
{ GOTOOLCHAIN=local timeout 120 go run .; node main.mjs; } | tee seen
cat > want <<'EOT'
Go: github.com/masterminds/semver/v3 v3.5.0 [] pkg:golang/github.com/masterminds/semver/v3@v3.5.0
Go: plugin 1.0.0+build.5 [] pkg:generic/plugin@1.0.0%2Bbuild.5
Go: plugin 1.0.0 [sha256:abcd] pkg:generic/plugin@1.0.0?checksum=sha256:abcd
Go: plugin 1.0.0 [git+https://example.com/plugin.git] pkg:generic/plugin@1.0.0?vcs_url=git%2Bhttps:%2F%2Fexample.com%2Fplugin.git
Go: @example/plugin 1.0.0 [] pkg:npm/%40example/plugin@1.0.0
JS: github.com/Masterminds/semver/v3 v3.5.0 [] pkg:golang/github.com/Masterminds/semver/v3@v3.5.0
JS: plugin 1.0.0+build.5 [] pkg:generic/plugin@1.0.0+build.5
JS: plugin 1.0.0 [sha256:abcd] pkg:generic/plugin@1.0.0?checksum=sha256%3Aabcd
JS: plugin 1.0.0 [git https://example.com/plugin.git] pkg:generic/plugin@1.0.0?vcs_url=git%20https%3A%2F%2Fexample.com%2Fplugin.git
JS: @example/plugin 1.0.0 [] pkg:npm/%40example/plugin@1.0.0
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
