#!/usr/bin/env bash
# Guess: a size such as the memory of a plugin, "64M" or "64MiB", is the same number of bytes for a host in Go, its tools in Node and the cluster that runs
# it, or is refused by one of them: where a library takes a text, it is one of the two meanings of M, and what is written as MiB has one.
# Seen: of k8s.io/apimachinery v0.37.2 (resource.Quantity), github.com/docker/go-units v0.5.0 (RAMInBytes for memory, FromHumanSize for the rest),
# github.com/dustin/go-humanize v1.1.0, github.com/c2h5oh/datasize v0.0.0-20231215233829-aa82cc1e6500, and bytes 3.1.2 and filesize-parser 1.5.2 (npm) no
# two agree, go-units with itself included. (1) "64M" is 64,000,000 for three, 67,108,864 for three, and 64 for bytes, which leaves out what it does not
# know. (2) "64m" is a thousandth in Kubernetes, rounded up to one byte. (3) FromHumanSize takes "64MiB" for 64,000,000, and bytes "64Mi" and "64MiB" for
# 64; datasize refuses them. (4) "64MB", which Kubernetes refuses, is 64,000,000 for two and 67,108,864 for four. (5) "64b" is 8 for filesize-parser: bits.
# "1.5G" is 1 for bytes.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save bytes@3.1.2 filesize-parser@1.5.2 > /dev/null 2>&1
printf '%s\n' 64M 64m 64Mi 64MB 64MiB 64k 1.5G 64b 1_000 > sizes.txt
cat > main.cjs <<'EOT'
'use strict';
const bytes = require('bytes');
const filesizeParser = require('filesize-parser');
const parsers = { bytes: bytes.parse, 'filesize-parser': filesizeParser };
for (const size of require('node:fs').readFileSync('sizes.txt', 'utf8').trim().split('\n')) {
  for (const [library, parse] of Object.entries(parsers)) {
    let n;
    try {
      n = parse(size);
    } catch {
      n = 'refused';
    }
    console.log(`${size}: ${library} ${n}`);
  }
}
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/c2h5oh/datasize v0.0.0-20231215233829-aa82cc1e6500
	github.com/docker/go-units v0.5.0
	github.com/dustin/go-humanize v1.1.0
	k8s.io/apimachinery v0.37.2
)
EOT
cat > main.go <<'EOT'
package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/c2h5oh/datasize"
	"github.com/docker/go-units"
	"github.com/dustin/go-humanize"
	"k8s.io/apimachinery/pkg/api/resource"
)

func say[T any](size, library string, n T, err error) {
	if err != nil {
		fmt.Printf("%s: %s refused\n", size, library)
		return
	}
	fmt.Printf("%s: %s %d\n", size, library, n)
}

func main() {
	data, err := os.ReadFile("sizes.txt")
	if err != nil {
		panic(err)
	}
	for size := range strings.FieldsSeq(string(data)) {
		quantity, err := resource.ParseQuantity(size)
		say(size, "Kubernetes", quantity.Value(), err)
		memory, err := units.RAMInBytes(size)
		say(size, "RAMInBytes", memory, err)
		human, err := units.FromHumanSize(size)
		say(size, "FromHumanSize", human, err)
		humanized, err := humanize.ParseBytes(size)
		say(size, "humanize", humanized, err)
		parsed, err := datasize.ParseString(size)
		say(size, "datasize", parsed.Bytes(), err)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m k8s.io/apimachinery github.com/docker/go-units github.com/dustin/go-humanize github.com/c2h5oh/datasize
for package in bytes filesize-parser; do
  node -p "'$package ' + JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version"
done
{ GOTOOLCHAIN=local timeout 240 go run .; node main.cjs; } | LC_ALL=C sort | tee seen
LC_ALL=C sort > want <<'EOT'
1.5G: FromHumanSize 1500000000
1.5G: Kubernetes 1500000000
1.5G: RAMInBytes 1610612736
1.5G: bytes 1
1.5G: datasize refused
1.5G: filesize-parser 1610612736
1.5G: humanize 1500000000
1_000: FromHumanSize 1000
1_000: Kubernetes refused
1_000: RAMInBytes 1000
1_000: bytes 1
1_000: datasize refused
1_000: filesize-parser refused
1_000: humanize refused
64M: FromHumanSize 64000000
64M: Kubernetes 64000000
64M: RAMInBytes 67108864
64M: bytes 64
64M: datasize 67108864
64M: filesize-parser 67108864
64M: humanize 64000000
64MB: FromHumanSize 64000000
64MB: Kubernetes refused
64MB: RAMInBytes 67108864
64MB: bytes 67108864
64MB: datasize 67108864
64MB: filesize-parser 67108864
64MB: humanize 64000000
64Mi: FromHumanSize refused
64Mi: Kubernetes 67108864
64Mi: RAMInBytes refused
64Mi: bytes 64
64Mi: datasize refused
64Mi: filesize-parser 67108864
64Mi: humanize 67108864
64MiB: FromHumanSize 64000000
64MiB: Kubernetes refused
64MiB: RAMInBytes 67108864
64MiB: bytes 64
64MiB: datasize refused
64MiB: filesize-parser 67108864
64MiB: humanize 67108864
64b: FromHumanSize 64
64b: Kubernetes refused
64b: RAMInBytes 64
64b: bytes 64
64b: datasize 64
64b: filesize-parser 8
64b: humanize 64
64k: FromHumanSize 64000
64k: Kubernetes 64000
64k: RAMInBytes 65536
64k: bytes 64
64k: datasize 65536
64k: filesize-parser 65536
64k: humanize 64000
64m: FromHumanSize 64000000
64m: Kubernetes 1
64m: RAMInBytes 67108864
64m: bytes 64
64m: datasize 67108864
64m: filesize-parser 67108864
64m: humanize 64000000
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
