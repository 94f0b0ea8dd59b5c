#!/usr/bin/env bash
# Guess: a time that Node sends in CBOR is the same millisecond in Go: CBOR has a tag for it (1), with seconds as a floating number of 64 bits, which is exact enough for
# milliseconds of this century.
# Seen: cbor-x 1.6.9 and cbor 10.0.12 (npm) write a Date so, and github.com/fxamacker/cbor/v2 v2.10.0 reads the number as it stands: .123 is .122999906 in Go. Of 1,000 successive
# milliseconds of 2023 496 are too small by such a part, and UnixMilli, and Format with three digits, cut it off: they say the millisecond before. With Round(time.Microsecond)
# all are what Node sent.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save cbor-x@1.6.9 cbor@10.0.12 > /dev/null 2>&1
cat > main.mjs <<'EOT'
import cbor from 'cbor';
import { encode } from 'cbor-x';

for (let n = 0; n < 1000; n++) {
  const ms = 1700000000000 + n;
  console.log(ms, encode(new Date(ms)).toString('hex'), cbor.encode(new Date(ms)).toString('hex'));
}
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/fxamacker/cbor/v2 v2.10.0
EOT
cat > main.go <<'EOT'
package main

import (
	"encoding/hex"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"
)

func read(text string) time.Time {
	data, err := hex.DecodeString(text)
	if err != nil {
		panic(err)
	}
	var t time.Time
	if err := cbor.Unmarshal(data, &t); err != nil {
		panic(err)
	}
	return t.UTC()
}

func main() {
	var same, before, other, rounded int
	for {
		var sent int64
		var one, two string
		if _, err := fmt.Scan(&sent, &one, &two); err != nil {
			break
		}
		if one != two {
			panic("cbor-x and cbor differ")
		}
		t := read(one)
		if sent == 1700000000123 {
			fmt.Println("sent 2023-11-14T22:13:20.123Z, read", t.Format(time.RFC3339Nano))
		}
		switch t.UnixMilli() {
		case sent:
			same++
		case sent - 1:
			before++
		default:
			other++
		}
		if t.Round(time.Microsecond).UnixMilli() == sent {
			rounded++
		}
	}
	fmt.Printf("UnixMilli: %d the same, %d the one before, %d another; rounded: %d the same\n", same, before, other, rounded)
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/fxamacker/cbor/v2
for package in cbor-x cbor; do node -p "'$package ' + JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version"; done
node main.mjs > times
GOTOOLCHAIN=local timeout 120 go run . < times | tee seen
cat > want <<'EOT'
sent 2023-11-14T22:13:20.123Z, read 2023-11-14T22:13:20.122999906Z
UnixMilli: 504 the same, 496 the one before, 0 another; rounded: 1000 the same
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
