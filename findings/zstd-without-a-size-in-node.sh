#!/usr/bin/env bash
# Guess: what a host in Go compresses with zstd is decompressed in Node, or refused by an exception: a frame may do without the size of its content (RFC 8878, 3.1.1.1), and what is in
# frames one behind the other is the content of one behind that of the other (3).
# Seen: github.com/klauspost/compress v1.20.4 gives no size to a stream, nor to a short text in one piece, and two frames have each their own. Of all these zstd-codec 0.1.5 (npm, Simple) makes
# null, without an exception; its Streaming reads them. @bokuweb/zstd-wasm 0.0.27 refuses 1.2 MB without a size, and two frames. fzstd 0.1.1 reads all.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save zstd-codec@0.1.5 fzstd@0.1.1 @bokuweb/zstd-wasm@0.0.27 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/klauspost/compress v1.20.4
EOT
cat > main.go <<'EOT'
package main

import (
	"bytes"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func main() {
	short, long := "hello", strings.Repeat("hello world ", 100_000)
	encoder := must(zstd.NewWriter(nil))
	var stream bytes.Buffer
	w := must(zstd.NewWriter(&stream))
	must(io.WriteString(w, long[:500_000]))
	must(io.WriteString(w, long[500_000:]))
	if err := w.Close(); err != nil {
		panic(err)
	}
	one := encoder.EncodeAll([]byte(long), nil)
	for name, data := range map[string][]byte{
		"1-long": one, "2-short": encoder.EncodeAll([]byte(short), nil), "3-stream": stream.Bytes(), "4-two-frames": slices.Concat(one, one),
	} {
		if err := os.WriteFile(name+".zst", data, 0o644); err != nil {
			panic(err)
		}
		if err := os.WriteFile(name+".txt", must(must(zstd.NewReader(nil)).DecodeAll(data, nil)), 0o644); err != nil {
			panic(err)
		}
	}
}
EOT
cat > main.mjs <<'EOT'
import { readFileSync } from 'node:fs';
import { decompress } from 'fzstd';
import codec from 'zstd-codec';
import wasm from '@bokuweb/zstd-wasm';

await wasm.init();
const { Simple, Streaming } = await new Promise((resolve) => codec.ZstdCodec.run(resolve));
for (const name of ['1-long', '2-short', '3-stream', '4-two-frames']) {
  const data = new Uint8Array(readFileSync(`${name}.zst`));
  const want = readFileSync(`${name}.txt`);
  const say = (library, read) => {
    try {
      const got = read();
      return `${library} ${got === null ? 'null' : Buffer.from(got).equals(want) ? 'right' : 'wrong'}`;
    } catch {
      return `${library} refused`;
    }
  };
  console.log(`${name}: ${[say('Simple', () => new Simple().decompress(data)), say('Streaming', () => new Streaming().decompress(data)),
    say('fzstd', () => decompress(data)), say('zstd-wasm', () => wasm.decompress(data))].join(', ')}`);
}
EOT
cat > want <<'EOT'
1-long: Simple right, Streaming right, fzstd right, zstd-wasm right
2-short: Simple null, Streaming right, fzstd right, zstd-wasm right
3-stream: Simple null, Streaming right, fzstd right, zstd-wasm refused
4-two-frames: Simple null, Streaming right, fzstd right, zstd-wasm refused
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/klauspost/compress
for p in zstd-codec fzstd @bokuweb/zstd-wasm; do node -p '"'$p' " + JSON.parse(require("fs").readFileSync("node_modules/'$p'/package.json")).version'; done
GOTOOLCHAIN=local go run .
timeout 60 node main.mjs | tee seen
cmp -s seen want || { echo CHANGED; exit 1; }
