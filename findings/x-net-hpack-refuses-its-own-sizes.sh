#!/usr/bin/env bash
# Guess: what the encoder of golang.org/x/net/http2/hpack writes, its decoder reads. Where a table was made smaller and
# larger again between two header blocks, the next block begins with both sizes, the smallest first (RFC 7541, section 4.2).
# Seen: with x/net v0.62.0 the encoder writes both, and the decoder refuses the second, "dynamic table size update MUST
# occur at the beginning of a header block", unless the first left the table empty. In HTTP/2 that is
# COMPRESSION_ERROR, the end of the connection. So whoever changes SETTINGS_HEADER_TABLE_SIZE twice in a row
# should go by zero.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOF'
module sizes

go 1.26

require golang.org/x/net v0.62.0
EOF
cat > main.go <<'EOF'
package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/net/http2/hpack"
)

const usual = 4096

// block sends two header blocks, between which the table is made so small and as large as before,
// and returns how the second begins and what the decoder says of it.
func block(small uint32) (first []byte, err error) {
	var b bytes.Buffer
	enc, dec := hpack.NewEncoder(&b), hpack.NewDecoder(usual, nil)
	field := hpack.HeaderField{Name: "x-request", Value: "the same each time"}
	if err := enc.WriteField(field); err != nil {
		panic(err)
	}
	if _, err := dec.DecodeFull(b.Bytes()); err != nil {
		panic(err)
	}
	b.Reset()
	enc.SetMaxDynamicTableSize(small)
	enc.SetMaxDynamicTableSize(usual)
	if err := enc.WriteField(field); err != nil {
		panic(err)
	}
	_, err = dec.DecodeFull(b.Bytes())
	return b.Bytes()[:min(6, b.Len())], err
}

func main() {
	fmt.Println(runtime.Version(), "x/net v0.62.0")
	kept, errKept := block(300)
	fmt.Printf("to 300 and back: % x: %v\n", kept, errKept)
	emptied, errEmptied := block(0)
	fmt.Printf("to 0 and back:   % x: %v\n", emptied, errEmptied)
	if errKept == nil || errEmptied != nil {
		fmt.Println("it is not so any more")
		os.Exit(1)
	}
}
EOF
GOFLAGS=-mod=mod go mod tidy > /dev/null 2>&1
GOFLAGS=-mod=mod go run .
