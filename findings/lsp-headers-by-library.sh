#!/usr/bin/env bash
# Guess: what frames a message of the Language Server Protocol is read alike by each library that speaks it: a header of Content-Length and, if one likes, Content-Type. The
# protocol says that header fields conform to HTTP's, whose names are the same in small and capital letters, and that readers should take the charset utf8 for utf-8.
# Seen: github.com/sourcegraph/jsonrpc2 v0.2.3 (VSCodeObjectCodec) and golang.org/x/exp/jsonrpc2 (July of 2026, HeaderFramer) know "Content-Length" in these letters alone:
# with "content-length", as many HTTP libraries write names, they find no length. github.com/creachadair/jrpc2 v1.3.6 (channel.LSP) compares the value of Content-Type with its
# own as a text: "charset=utf8", which older clients write, and "charset=utf-8" without a blank before it, are a "content type mismatch". The three take each what the others do not.
# go.lsp.dev/jsonrpc2 v1.0.1 and vscode-jsonrpc 10.0.0 (npm), which is the protocol's own, take all of these, and so fields that nobody knows and either order.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save vscode-jsonrpc@10.0.0 > /dev/null 2>&1
cat > go.mod <<'EOM'
module finding

go 1.26.0

require (
	github.com/creachadair/jrpc2 v1.3.6
	github.com/sourcegraph/jsonrpc2 v0.2.3
	go.lsp.dev/jsonrpc2 v1.0.1
	golang.org/x/exp/jsonrpc2 v0.0.0-20260709172345-9ea1abe57597
)
EOM
# The headers, one a line, with | for the end of a line; the message behind each has 31 bytes.
cat > headers <<'EOM'
Content-Length: 31
content-length: 31
Content-Length: 31|Content-Type: application/vscode-jsonrpc; charset=utf-8
Content-Type: application/vscode-jsonrpc; charset=utf-8|Content-Length: 31
Content-Length: 31|content-type: application/vscode-jsonrpc; charset=utf-8
Content-Length: 31|Content-Type: application/vscode-jsonrpc; charset=utf8
Content-Length: 31|Content-Type: application/vscode-jsonrpc;charset=utf-8
Content-Length: 31|X-Trace: 1
EOM
cat > main.go <<'EOM'
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/creachadair/jrpc2/channel"
	sourcegraph "github.com/sourcegraph/jsonrpc2"
	lsp "go.lsp.dev/jsonrpc2"
	exp "golang.org/x/exp/jsonrpc2"
)

// conn reads, and takes what is written.
type conn struct{ io.Reader }

func (conn) Write(p []byte) (int, error) { return len(p), nil }
func (conn) Close() error                { return nil }

// word says whether the message was read.
func word(read any, err error) string {
	if err != nil {
		return err.Error()
	}
	if b, ok := read.([]byte); ok {
		read = string(b)
	}
	if !strings.Contains(fmt.Sprintf("%+v", read), "m1") {
		panic(fmt.Sprintf("%+v", read))
	}
	return "read"
}

func main() {
	const message = `{"jsonrpc":"2.0","method":"m1"}`
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		wire := func() io.Reader {
			return strings.NewReader(strings.ReplaceAll(in.Text(), "|", "\r\n") + "\r\n\r\n" + message)
		}
		var v json.RawMessage
		err := sourcegraph.VSCodeObjectCodec{}.ReadObject(bufio.NewReader(wire()), &v)
		first := word([]byte(v), err)
		b, err := channel.LSP(wire(), conn{}).Recv()
		second := word(b, err)
		if rest, ok := strings.CutPrefix(second, "content type mismatch"); ok {
			second = second[:len(second)-len(rest)]
		}
		m, _, err := exp.HeaderFramer().Reader(wire()).Read(context.Background())
		third := word(m, err)
		n, _, err := lsp.NewStream(conn{wire()}).Read(context.Background())
		fmt.Printf("%s: sourcegraph: %s; jrpc2: %s; x/exp: %s; go.lsp.dev: %s\n", in.Text(), first, second, third, word(n, err))
	}
}
EOM
cat > main.cjs <<'EOM'
'use strict';
const { StreamMessageReader } = require('vscode-jsonrpc/node');
const { PassThrough } = require('node:stream');
(async () => {
  for (const header of require('node:fs').readFileSync('headers', 'utf8').trim().split('\n')) {
    const wire = new PassThrough();
    const said = await new Promise((done) => {
      const reader = new StreamMessageReader(wire);
      reader.onError((e) => done(e.message));
      setTimeout(done, 5000, 'nothing').unref();
      reader.listen((m) => done(m.method === 'm1' ? 'read' : 'another'));
      wire.write(header.replaceAll('|', '\r\n') + '\r\n\r\n{"jsonrpc":"2.0","method":"m1"}');
    });
    console.log('; vscode-jsonrpc:', said);
  }
})();
EOM
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/sourcegraph/jsonrpc2 github.com/creachadair/jrpc2 golang.org/x/exp/jsonrpc2 go.lsp.dev/jsonrpc2
node -p '"vscode-jsonrpc " + JSON.parse(require("fs").readFileSync("node_modules/vscode-jsonrpc/package.json")).version'
GOTOOLCHAIN=local timeout 120 go run . < headers > go.seen
timeout 30 node main.cjs > node.seen
paste -d '' go.seen node.seen | tee seen
cat > want <<'EOM'
Content-Length: 31: sourcegraph: read; jrpc2: read; x/exp: read; go.lsp.dev: read; vscode-jsonrpc: read
content-length: 31: sourcegraph: jsonrpc2: no Content-Length header found; jrpc2: read; x/exp: missing Content-Length header; go.lsp.dev: read; vscode-jsonrpc: read
Content-Length: 31|Content-Type: application/vscode-jsonrpc; charset=utf-8: sourcegraph: read; jrpc2: read; x/exp: read; go.lsp.dev: read; vscode-jsonrpc: read
Content-Type: application/vscode-jsonrpc; charset=utf-8|Content-Length: 31: sourcegraph: read; jrpc2: read; x/exp: read; go.lsp.dev: read; vscode-jsonrpc: read
Content-Length: 31|content-type: application/vscode-jsonrpc; charset=utf-8: sourcegraph: read; jrpc2: read; x/exp: read; go.lsp.dev: read; vscode-jsonrpc: read
Content-Length: 31|Content-Type: application/vscode-jsonrpc; charset=utf8: sourcegraph: read; jrpc2: content type mismatch; x/exp: read; go.lsp.dev: read; vscode-jsonrpc: read
Content-Length: 31|Content-Type: application/vscode-jsonrpc;charset=utf-8: sourcegraph: read; jrpc2: content type mismatch; x/exp: read; go.lsp.dev: read; vscode-jsonrpc: read
Content-Length: 31|X-Trace: 1: sourcegraph: read; jrpc2: read; x/exp: read; go.lsp.dev: read; vscode-jsonrpc: read
EOM
cmp -s seen want || { echo CHANGED; exit 1; }
