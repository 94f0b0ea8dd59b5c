#!/usr/bin/env bash
# Guess: an address of a plugin that is written as a multiaddr is the same address, and the same bytes, in Go and in Node: both libraries are of the standard's own project,
# and one table gives each protocol's form.
# Seen: with github.com/multiformats/go-multiaddr v0.16.1 and @multiformats/multiaddr 13.0.3 (npm) the path of a Unix socket has two forms: /unix/run/plugin.sock is one in Go
# alone, and Node refuses it. /unix/%2Frun%2Fplugin.sock is taken by both, but Go keeps the %2F in the path: the bytes differ, and Node reads those of Go as a path with %252F
# in it. The bytes of http-path begin in Node with a slash, which Go's have not: the path that Go sends as a/b has lost its a in Node, and Go reads Node's as /a/b. A blank,
# %20, becomes + in Go's text, which Node reads as a plus. /memory/1234 is a number of 64 bits for Go and a text for Node, and each refuses the other's bytes. The port 080 is
# 80 for Go and refused by Node.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @multiformats/multiaddr@13.0.3 > /dev/null 2>&1
cat > texts <<'EOT'
/ip4/127.0.0.1/tcp/443/tls/http
/ip4/127.0.0.1/tcp/080
/unix/run/plugin.sock
/unix/%2Frun%2Fplugin.sock
/ip4/127.0.0.1/tcp/443/https/http-path/a%2Fb
/ip4/127.0.0.1/tcp/443/https/http-path/a%20b
/ip4/127.0.0.1/tcp/443/https/http-path/a+b
/memory/1234
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/multiformats/go-multiaddr v0.16.1
EOT
cat > main.go <<'EOT'
package main

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"os"

	ma "github.com/multiformats/go-multiaddr"
)

// main reads a text, and the bytes that Node made of it, a line.
func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var text, theirs string
		fmt.Sscan(lines.Text(), &text, &theirs)
		fmt.Print(text, " ")
		if m, err := ma.NewMultiaddr(text); err != nil {
			fmt.Print("refused - ")
		} else {
			fmt.Printf("%s %x ", m, m.Bytes())
		}
		data, err := hex.DecodeString(theirs)
		if err != nil {
			fmt.Println("-")
		} else if m, err := ma.NewMultiaddrBytes(data); err != nil {
			fmt.Println("refused")
		} else {
			fmt.Println(m)
		}
	}
}
EOT
cat > write.mjs <<'EOT'
import { readFileSync } from 'node:fs';
import { multiaddr } from '@multiformats/multiaddr';

for (const text of readFileSync('texts', 'utf8').trimEnd().split('\n')) {
  try {
    console.log(text, Buffer.from(multiaddr(text).bytes).toString('hex'));
  } catch {
    console.log(text, '-');
  }
}
EOT
cat > compare.mjs <<'EOT'
import { readFileSync } from 'node:fs';
import { multiaddr } from '@multiformats/multiaddr';

const attempt = (f) => { try { return f(); } catch { return 'refused'; } };
for (const line of readFileSync('go.out', 'utf8').trimEnd().split('\n')) {
  const [text, go, bytes, goOfNode] = line.split(' ');
  const node = attempt(() => multiaddr(text).toString());
  const nodeBytes = attempt(() => Buffer.from(multiaddr(text).bytes).toString('hex'));
  const nodeOfGo = bytes === '-' ? '-' : attempt(() => multiaddr(Buffer.from(bytes, 'hex')).toString());
  console.log(`${text}: bytes ${bytes === nodeBytes ? 'alike' : 'differ'}`);
  console.log(`  Go: ${go}, in Node ${nodeOfGo}`);
  console.log(`  Node: ${node}, in Go ${goOfNode}`);
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/multiformats/go-multiaddr
node -p '"@multiformats/multiaddr " + JSON.parse(require("fs").readFileSync("node_modules/@multiformats/multiaddr/package.json")).version'
node write.mjs > node.out
GOTOOLCHAIN=local timeout 120 go run . < node.out > go.out
node compare.mjs | tee seen
cat > want <<'EOT'
/ip4/127.0.0.1/tcp/443/tls/http: bytes alike
  Go: /ip4/127.0.0.1/tcp/443/tls/http, in Node /ip4/127.0.0.1/tcp/443/tls/http
  Node: /ip4/127.0.0.1/tcp/443/tls/http, in Go /ip4/127.0.0.1/tcp/443/tls/http
/ip4/127.0.0.1/tcp/080: bytes differ
  Go: /ip4/127.0.0.1/tcp/80, in Node /ip4/127.0.0.1/tcp/80
  Node: refused, in Go -
/unix/run/plugin.sock: bytes differ
  Go: /unix/run/plugin.sock, in Node /unix/%2Frun%2Fplugin.sock
  Node: refused, in Go -
/unix/%2Frun%2Fplugin.sock: bytes differ
  Go: /unix/%2Frun%2Fplugin.sock, in Node /unix/%2F%252Frun%252Fplugin.sock
  Node: /unix/%2Frun%2Fplugin.sock, in Go /unix/run/plugin.sock
/ip4/127.0.0.1/tcp/443/https/http-path/a%2Fb: bytes differ
  Go: /ip4/127.0.0.1/tcp/443/https/http-path/a%2Fb, in Node /ip4/127.0.0.1/tcp/443/https/http-path/%2Fb
  Node: /ip4/127.0.0.1/tcp/443/https/http-path/a%2Fb, in Go /ip4/127.0.0.1/tcp/443/https/http-path/%2Fa%2Fb
/ip4/127.0.0.1/tcp/443/https/http-path/a%20b: bytes differ
  Go: /ip4/127.0.0.1/tcp/443/https/http-path/a+b, in Node /ip4/127.0.0.1/tcp/443/https/http-path/%20b
  Node: /ip4/127.0.0.1/tcp/443/https/http-path/a%20b, in Go /ip4/127.0.0.1/tcp/443/https/http-path/%2Fa+b
/ip4/127.0.0.1/tcp/443/https/http-path/a+b: bytes differ
  Go: /ip4/127.0.0.1/tcp/443/https/http-path/a+b, in Node /ip4/127.0.0.1/tcp/443/https/http-path/%20b
  Node: /ip4/127.0.0.1/tcp/443/https/http-path/a%2Bb, in Go /ip4/127.0.0.1/tcp/443/https/http-path/%2Fa%2Bb
/memory/1234: bytes differ
  Go: /memory/1234, in Node refused
  Node: /memory/1234, in Go refused
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
