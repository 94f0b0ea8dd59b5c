#!/usr/bin/env bash
# Guess: a column of decimals that a program in Go sends in Arrow's format, by Flight or in a file, has the same digits in Node whatever its width: 32, 64,
# 128 and 256 bits are one type to whoever reads values, and a text or JSON is how they are read.
# Seen: of what github.com/apache/arrow-go/v18 v18.8.0 writes, 1.25, -1.25 and 12345.67 with two places, apache-arrow 21.2.0 (npm) has in String and JSON
# "125", "-125" and "1234567" for 128 bits, without the point; for 64 bits -1.25 is "18446744073709551491"; for 256 bits they are "5", "-5" and "7", the last
# digit. valueOf(2) and Number are right for 64, 128 and 256 bits, and for 32 bits throw TypeError or RangeError, "Cannot mix BigInt and other types", where
# the text is right. Only 128 bits have the same in all of them. None of it is an error to who reads the column.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save apache-arrow@21.2.0 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/apache/arrow-go/v18 v18.8.0
EOT
cat > main.go <<'EOT'
package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

func main() {
	for _, c := range []struct {
		bits int
		of   arrow.DataType
	}{
		{32, &arrow.Decimal32Type{Precision: 9, Scale: 2}},
		{64, &arrow.Decimal64Type{Precision: 18, Scale: 2}},
		{128, &arrow.Decimal128Type{Precision: 38, Scale: 2}},
		{256, &arrow.Decimal256Type{Precision: 76, Scale: 2}},
	} {
		column, _, err := array.FromJSON(memory.DefaultAllocator, c.of, strings.NewReader(`["1.25", "-1.25", "12345.67"]`))
		if err != nil {
			panic(err)
		}
		schema := arrow.NewSchema([]arrow.Field{{Name: "price", Type: c.of}}, nil)
		file, err := os.Create(fmt.Sprint(c.bits, ".arrows"))
		if err != nil {
			panic(err)
		}
		writer := ipc.NewWriter(file, ipc.WithSchema(schema))
		if err := writer.Write(array.NewRecordBatch(schema, []arrow.Array{column}, int64(column.Len()))); err != nil {
			panic(err)
		}
		if err := writer.Close(); err != nil {
			panic(err)
		}
		file.Close()
		fmt.Println("Go,", c.bits, "bits:", column)
	}
}
EOT
cat > main.mjs <<'EOT'
import { readFileSync } from 'node:fs';
import { tableFromIPC } from 'apache-arrow';

const attempt = (read) => (value) => {
  try {
    return read(value);
  } catch (err) {
    return err.name;
  }
};
for (const bits of [32, 64, 128, 256]) {
  const values = [...tableFromIPC(readFileSync(`${bits}.arrows`)).getChild('price')];
  const line = { text: String, JSON: (value) => JSON.parse(JSON.stringify(value)).replaceAll('"', ''), Number, 'valueOf(2)': (value) => value.valueOf(2) };
  console.log(`Node, ${bits} bits:`, Object.entries(line).map(([name, read]) => `${name} ${values.map(attempt(read)).join(' ')}`).join(' | '));
}
EOT
cat > want <<'EOT'
Go, 32 bits: [1.25 -1.25 12345.67]
Go, 64 bits: [1.25 -1.25 12345.67]
Go, 128 bits: [1.25 -1.25 12345.67]
Go, 256 bits: [1.25 -1.25 12345.67]
Node, 32 bits: text 125 -125 1234567 | JSON 125 -125 1234567 | Number TypeError RangeError TypeError | valueOf(2) TypeError RangeError TypeError
Node, 64 bits: text 125 18446744073709551491 1234567 | JSON 125 18446744073709551491 1234567 | Number 125 -125 1234567 | valueOf(2) 1.25 -1.25 12345.67
Node, 128 bits: text 125 -125 1234567 | JSON 125 -125 1234567 | Number 125 -125 1234567 | valueOf(2) 1.25 -1.25 12345.67
Node, 256 bits: text 5 -5 7 | JSON 5 -5 7 | Number 125 -125 1234567 | valueOf(2) 1.25 -1.25 12345.67
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/apache/arrow-go/v18
node -p '"apache-arrow " + JSON.parse(require("fs").readFileSync("node_modules/apache-arrow/package.json")).version'
GOTOOLCHAIN=local timeout 120 go run . > seen
node main.mjs >> seen
cat seen
cmp -s seen want || { echo CHANGED; exit 1; }
