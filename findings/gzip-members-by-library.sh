#!/usr/bin/env bash
# Guess: gzip data of several members, and zstd data of several frames, are read to their end, as both formats say (RFC 1952, RFC 8878): layers of images
# for lazy pulling (eStargz, zstd:chunked), logs that are appended to, and what compresses in parallel are made so, and Go's readers read it as one.
# Seen: for two members made by compress/gzip of Go 1.26 and two frames made by github.com/klauspost/compress v1.20.4. (1) Only the first is given, without
# an error, by gunzipSync of fflate 0.8.3 (npm), whose stream Gunzip gives both, by Bun.gunzipSync of Bun 1.4.5, by fetch of Deno 2.9.6, for a body with
# Content-Encoding: gzip, and of zstd by node:zlib of Node 22.23.3, Node 24.21.0 and Deno; Node 26.10.0 and Bun give both frames. (2) DecompressionStream,
# with which the web decompresses, gives both members in Node 22 and Bun; in Node 24, Node 26 and Deno it fails at the second. (3) Both come from
# node:zlib's gunzip in all of them, from pako 3.0.3, and from fetch of Node and Bun.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --save-exact fflate@0.8.3 pako@3.0.3 bun@1.4.5 deno@2.9.6 > /dev/null 2>&1
for version in 22.23.3 24.21.0 26.10.0; do
  npm install --silent --no-audit --no-fund --no-save --prefix "node-$version" "node@$version" > /dev/null 2>&1
done
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/klauspost/compress v1.20.4
EOT
cat > main.go <<'EOT'
package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func main() {
	var zipped bytes.Buffer
	var frames []byte
	encoder := must(zstd.NewWriter(nil))
	for _, part := range []string{"first,", "second"} {
		w := gzip.NewWriter(&zipped)
		must(w.Write([]byte(part)))
		if err := w.Close(); err != nil {
			panic(err)
		}
		frames = encoder.EncodeAll([]byte(part), frames)
	}
	for name, data := range map[string][]byte{"parts.gz": zipped.Bytes(), "parts.zst": frames} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			panic(err)
		}
	}
	fmt.Printf("go gzip: %s\n", must(io.ReadAll(must(gzip.NewReader(&zipped)))))
	fmt.Printf("go zstd: %s\n", must(io.ReadAll(must(zstd.NewReader(bytes.NewReader(frames))))))
}
EOT
cat > main.mjs <<'EOT'
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import zlib from 'node:zlib';
import { Gunzip, gunzipSync } from 'fflate';
import { ungzip } from 'pako';

const zipped = new Uint8Array(readFileSync('parts.gz'));
const frames = new Uint8Array(readFileSync('parts.zst'));
const runtime = globalThis.Bun ? 'bun' : globalThis.Deno ? 'deno' : `node ${process.versions.node}`;
const say = async (what, read) => {
  let text;
  try {
    text = Buffer.from(await read()).toString();
  } catch {
    text = 'fails';
  }
  console.log(`${runtime} ${what}: ${text}`);
};

await say('node:zlib gunzip', () => zlib.gunzipSync(zipped));
await say('node:zlib zstd', () => zlib.zstdDecompressSync(frames));
await say('DecompressionStream', () => new Response(new Blob([zipped]).stream().pipeThrough(new DecompressionStream('gzip'))).arrayBuffer());
const server = createServer((_, response) => response.setHeader('Content-Encoding', 'gzip').end(zipped));
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
await say('fetch', async () => (await fetch(`http://127.0.0.1:${server.address().port}`)).arrayBuffer());
if (globalThis.Bun) {
  await say('Bun.gunzipSync', () => Bun.gunzipSync(zipped));
}
if (runtime.startsWith('node 26')) {
  await say('fflate gunzipSync', () => gunzipSync(zipped));
  await say('fflate Gunzip', () => {
    const parts = [];
    new Gunzip((part) => parts.push(part)).push(zipped, true);
    return Buffer.concat(parts);
  });
  await say('pako', () => ungzip(zipped));
}
process.exit(0);
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/klauspost/compress
for package in fflate pako bun deno; do
  node -p "'$package ' + JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version"
done
{
  GOTOOLCHAIN=local timeout 120 go run .
  for version in 22.23.3 24.21.0 26.10.0; do
    "node-$version/node_modules/node/bin/node" main.mjs
  done
  timeout 60 node_modules/.bin/bun main.mjs
  DENO_DIR="$dir/deno" DENO_NO_UPDATE_CHECK=1 timeout 60 node_modules/.bin/deno run --quiet --allow-all main.mjs
} | tee seen
cat > want <<'EOT'
go gzip: first,second
go zstd: first,second
node 22.23.3 node:zlib gunzip: first,second
node 22.23.3 node:zlib zstd: first,
node 22.23.3 DecompressionStream: first,second
node 22.23.3 fetch: first,second
node 24.21.0 node:zlib gunzip: first,second
node 24.21.0 node:zlib zstd: first,
node 24.21.0 DecompressionStream: fails
node 24.21.0 fetch: first,second
node 26.10.0 node:zlib gunzip: first,second
node 26.10.0 node:zlib zstd: first,second
node 26.10.0 DecompressionStream: fails
node 26.10.0 fetch: first,second
node 26.10.0 fflate gunzipSync: first,
node 26.10.0 fflate Gunzip: first,second
node 26.10.0 pako: first,second
bun node:zlib gunzip: first,second
bun node:zlib zstd: first,second
bun DecompressionStream: first,second
bun fetch: first,second
bun Bun.gunzipSync: first,
deno node:zlib gunzip: first,second
deno node:zlib zstd: first,
deno DecompressionStream: fails
deno fetch: first,
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
