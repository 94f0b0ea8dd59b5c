#!/usr/bin/env bash
# Guess: the licence of a plugin, an SPDX expression in its SBOM, is read and held against a list of accepted ones alike in Go and in Node: the expressions have a grammar, names and operators
# rules for capital letters, and "+" means this version or a later one.
# Seen: github.com/github/go-spdx/v2 v2.8.0 refuses the operators in small letters, which SPDX 3.0.1 allows, and a licence of one's own with an exception (LicenseRef-x WITH LLVM-exception);
# spdx-expression-parse 5.0.0 (npm) reads both, spdx-satisfies 6.0.0 (npm), which has an older one of it, neither. Both of npm refuse a licence's name in small letters, which SPDX takes for the same.
# EUPL-1.1+ and CECILL-2.0+ are met by their next versions in Go and not in Node; MIT by MIT+ in Node and not in Go. Apache-1.1+ and GPL-2.0-or-later are the same in both.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save spdx-expression-parse@5.0.0 spdx-satisfies@6.0.0 > /dev/null 2>&1
cat > cases.json <<'EOT'
[
  ["MIT OR Apache-2.0", "MIT"],
  ["MIT or Apache-2.0", "MIT"],
  ["mit", "MIT"],
  ["LicenseRef-x WITH LLVM-exception", "LicenseRef-x WITH LLVM-exception"],
  ["Apache-1.1+", "Apache-2.0"],
  ["GPL-2.0-or-later", "GPL-3.0-only"],
  ["EUPL-1.1+", "EUPL-1.2"],
  ["CECILL-2.0+", "CECILL-2.1"],
  ["MIT", "MIT+"]
]
EOT
cat > main.cjs <<'EOT'
const parse = require('spdx-expression-parse');
const satisfies = require('spdx-satisfies');

const attempt = (f) => {
  try {
    return f();
  } catch {
    return 'refused';
  }
};
for (const [license, accepted] of JSON.parse(require('node:fs').readFileSync('cases.json'))) {
  const read = attempt(() => (parse(license), 'read'));
  console.log(`Node: ${license}: ${read}, met by ${accepted}: ${attempt(() => satisfies(license, [accepted]))}`);
}
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/github/go-spdx/v2 v2.8.0
EOT
cat > main.go <<'EOT'
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/github/go-spdx/v2/spdxexp"
)

func main() {
	data, err := os.ReadFile("cases.json")
	if err != nil {
		panic(err)
	}
	var cases [][2]string
	if err := json.Unmarshal(data, &cases); err != nil {
		panic(err)
	}
	for _, c := range cases {
		read := "read"
		if valid, _ := spdxexp.ValidateLicenses([]string{c[0]}); !valid {
			read = "refused"
		}
		met, err := spdxexp.Satisfies(c[0], []string{c[1]})
		seen := fmt.Sprint(met)
		if err != nil {
			seen = "refused"
		}
		fmt.Printf("Go: %s: %s, met by %s: %s\n", c[0], read, c[1], seen)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/github/go-spdx/v2
node -p '["spdx-expression-parse", "spdx-satisfies"].map((name) => name + " " + require(`./node_modules/${name}/package.json`).version).join("\n")'
{
  GOTOOLCHAIN=local timeout 120 go run .
  timeout 120 node main.cjs
} | tee seen
cat > want <<'EOT'
Go: MIT OR Apache-2.0: read, met by MIT: true
Go: MIT or Apache-2.0: refused, met by MIT: refused
Go: mit: read, met by MIT: true
Go: LicenseRef-x WITH LLVM-exception: refused, met by LicenseRef-x WITH LLVM-exception: refused
Go: Apache-1.1+: read, met by Apache-2.0: true
Go: GPL-2.0-or-later: read, met by GPL-3.0-only: true
Go: EUPL-1.1+: read, met by EUPL-1.2: true
Go: CECILL-2.0+: read, met by CECILL-2.1: true
Go: MIT: read, met by MIT+: false
Node: MIT OR Apache-2.0: read, met by MIT: true
Node: MIT or Apache-2.0: read, met by MIT: refused
Node: mit: refused, met by MIT: refused
Node: LicenseRef-x WITH LLVM-exception: read, met by LicenseRef-x WITH LLVM-exception: refused
Node: Apache-1.1+: read, met by Apache-2.0: true
Node: GPL-2.0-or-later: read, met by GPL-3.0-only: true
Node: EUPL-1.1+: read, met by EUPL-1.2: false
Node: CECILL-2.0+: read, met by CECILL-2.1: false
Node: MIT: read, met by MIT+: true
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
