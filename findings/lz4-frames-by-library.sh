#!/usr/bin/env bash
# Guess: what a host in Go compresses as LZ4 frames is read in Node whole, or refused: LZ4's frame format has a version, flags and checksums of its own.
# Seen: lz4js 0.2.0 (npm) reads a frame with block checksums, which github.com/pierrec/lz4/v4 v4.1.33 writes on request, to other bytes than were written, fewer ones, and
# without an error: it takes checksums for data. Of two frames one behind the other, as parts that are appended to a file give them, lz4js and lz4-napi 2.10.0 give the first, without an
# error, where Go gives both, as the lz4 command does. Both refuse a skippable frame before the data, which the format tells decoders to skip and Go skips.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save lz4js@0.2.0 lz4-napi@2.10.0 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/pierrec/lz4/v4 v4.1.33
EOT
cat > main.go <<'EOT'
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/pierrec/lz4/v4"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func frame(text string, options ...lz4.Option) []byte {
	var b bytes.Buffer
	w := lz4.NewWriter(&b)
	if err := w.Apply(options...); err != nil {
		panic(err)
	}
	must(io.WriteString(w, text))
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func main() {
	text := strings.Repeat("hello world ", 100_000)
	skippable := append(binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, 0x184D2A50), 4), "note"...)
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"plain", frame(text), text},
		{"with its size", frame(text, lz4.SizeOption(uint64(len(text)))), text},
		{"with block checksums", frame(text, lz4.BlockChecksumOption(true)), text},
		{"two frames", append(frame(text), frame(text)...), text + text},
		{"a skippable frame first", append(skippable, frame(text)...), text},
	} {
		got := string(must(io.ReadAll(lz4.NewReader(bytes.NewReader(c.data)))))
		fmt.Printf("%s: Go %d bytes, right %t,\n", c.name, len(got), got == c.want)
		if err := os.WriteFile(c.name+".lz4", c.data, 0o644); err != nil {
			panic(err)
		}
		if err := os.WriteFile(c.name+".txt", []byte(c.want), 0o644); err != nil {
			panic(err)
		}
	}
}
EOT
cat > main.cjs <<'EOT'
const { readFileSync } = require('node:fs');
const { decompress } = require('lz4js');
const { decompressFrameSync } = require('lz4-napi');

for (const name of ['plain', 'with its size', 'with block checksums', 'two frames', 'a skippable frame first']) {
  const data = readFileSync(`${name}.lz4`);
  const want = readFileSync(`${name}.txt`);
  const say = (library, read) => {
    try {
      const got = Buffer.from(read(data));
      return `${library} ${got.length} bytes, right ${got.equals(want)}`;
    } catch {
      return `${library} refused`;
    }
  };
  console.log(`${say('lz4js', decompress)}, ${say('lz4-napi', decompressFrameSync)}`);
}
EOT
cat > want <<'EOT'
plain: Go 1200000 bytes, right true, lz4js 1200000 bytes, right true, lz4-napi 1200000 bytes, right true
with its size: Go 1200000 bytes, right true, lz4js 1200000 bytes, right true, lz4-napi 1200000 bytes, right true
with block checksums: Go 1200000 bytes, right true, lz4js 1199496 bytes, right false, lz4-napi 1200000 bytes, right true
two frames: Go 2400000 bytes, right true, lz4js 1200000 bytes, right false, lz4-napi 1200000 bytes, right false
a skippable frame first: Go 1200000 bytes, right true, lz4js refused, lz4-napi refused
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/pierrec/lz4/v4
for p in lz4js lz4-napi; do node -p '"'$p' " + JSON.parse(require("fs").readFileSync("node_modules/'$p'/package.json")).version'; done
GOTOOLCHAIN=local go run . > go.seen
timeout 60 node main.cjs > node.seen
paste -d ' ' go.seen node.seen | tee seen
cmp -s seen want || { echo CHANGED; exit 1; }
