#!/usr/bin/env bash
# Guess: a valid document of CycloneDX is valid, and says the same, when the project's own library of Go has read it and written it again.
# Seen: github.com/CycloneDX/cyclonedx-go v0.12.0 writes "status": "" where a vulnerability says which versions it affects and leaves the status out, which stands for "affected": "" is not one of the
# values, and the validator of @cyclonedx/cyclonedx-library 10.3.0 (npm), which takes the document as it was, refuses it, in 1.4 to 1.7. An assessor's "thirdParty": false, which says that the assessor
# is of the house, is gone. A score of 0, a confidence of 0, "modified": false and "authenticated": false stay.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @cyclonedx/cyclonedx-library@10.3.0 ajv@8.20.0 ajv-formats@3.0.1 ajv-formats-draft2019@1.6.1 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/CycloneDX/cyclonedx-go v0.12.0
EOT
cat > main.go <<'EOT'
package main

import (
	"os"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

func main() {
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(os.Stdin, cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		panic(err)
	}
	if err := cdx.NewBOMEncoder(os.Stdout, cdx.BOMFileFormatJSON).Encode(&bom); err != nil {
		panic(err)
	}
}
EOT
cat > main.mjs <<'EOT'
import { execFileSync } from 'node:child_process';
import { Validation } from '@cyclonedx/cyclonedx-library';

const document = (specVersion) => ({
  bomFormat: 'CycloneDX', specVersion, version: 1,
  components: [{ type: 'library', 'bom-ref': 'c', name: 'c', version: '1', modified: false }],
  services: [{ name: 's', authenticated: false }],
  vulnerabilities: [{
    id: 'CVE-2026-1',
    ratings: [{ score: 0, severity: 'none' }],
    affects: [{ ref: 'c', versions: [{ version: '1', status: 'unaffected' }, { range: 'vers:generic/>=2' }] }],
  }],
  ...(specVersion >= '1.6' && {
    declarations: {
      assessors: [{ 'bom-ref': 'a', thirdParty: false }],
      attestations: [{ assessor: 'a', map: [{ confidence: { score: 0 } }] }],
    },
  }),
});

function compare(a, b, path) {
  if (a === null || typeof a !== 'object' || b === null || typeof b !== 'object') {
    if (a !== b) console.log(`  ${path}: ${JSON.stringify(a)} -> ${JSON.stringify(b)}`);
    return;
  }
  for (const key of new Set([...Object.keys(a), ...Object.keys(b)])) {
    if (key !== '$schema') compare(a[key], b[key], `${path}/${key}`);
  }
}

for (const version of ['1.4', '1.5', '1.6', '1.7']) {
  const validator = new Validation.JsonValidator(version);
  const before = JSON.stringify(document(version));
  const after = execFileSync('./again', { input: before, encoding: 'utf8' });
  const errors = await validator.validate(after);
  console.log(`${version}: valid before ${await validator.validate(before) === null}, after ${errors === null}`);
  for (const error of errors ?? []) console.log(`  ${error.instancePath} ${error.message}`);
  compare(JSON.parse(before), JSON.parse(after), '');
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/CycloneDX/cyclonedx-go
node -p '"@cyclonedx/cyclonedx-library " + JSON.parse(require("fs").readFileSync("node_modules/@cyclonedx/cyclonedx-library/package.json")).version'
GOTOOLCHAIN=local go build -o again .
timeout 120 node main.mjs | tee seen
cat > want <<'EOT'
1.4: valid before true, after false
  /vulnerabilities/0/affects/0/versions/1/status must be equal to one of the allowed values
  /vulnerabilities/0/affects/0/versions/1/status: undefined -> ""
1.5: valid before true, after false
  /vulnerabilities/0/affects/0/versions/1/status must be equal to one of the allowed values
  /vulnerabilities/0/affects/0/versions/1/status: undefined -> ""
1.6: valid before true, after false
  /vulnerabilities/0/affects/0/versions/1/status must be equal to one of the allowed values
  /vulnerabilities/0/affects/0/versions/1/status: undefined -> ""
  /declarations/assessors/0/thirdParty: false -> undefined
1.7: valid before true, after false
  /vulnerabilities/0/affects/0/versions/1/status must be equal to one of the allowed values
  /vulnerabilities/0/affects/0/versions/1/status: undefined -> ""
  /declarations/assessors/0/thirdParty: false -> undefined
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
