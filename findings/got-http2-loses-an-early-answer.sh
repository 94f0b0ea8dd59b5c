#!/usr/bin/env bash
# Guess: a caller that uploads over HTTP/2 and is answered before it is done, such as with 401 by a service in Go that does not read on, gets the answer: RFC 9113, section 8.1, has
# the service reset the stream with NO_ERROR then, and says that clients must not discard the answer for that.
# Seen: got 14.6.6 (npm, with http2-wrapper 2.2.4) with http2: true fails instead, mostly with "The server aborted pending request": the status and the text that say why are lost.
# undici 7.30.2 with allowH2, on a new connection, has the answer. The service is net/http of Go 1.26.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save got@14.6.6 http2-wrapper@2.2.4 undici@7.30.2 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0
EOT
cat > main.go <<'EOT'
package main

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
)

func main() {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, "who are you")
	}))
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	node := exec.Command("node", "main.mjs", s.URL)
	node.Stdout, node.Stderr = os.Stdout, os.Stderr
	if err := node.Run(); err != nil {
		panic(err)
	}
}
EOT
cat > main.mjs <<'EOT'
import got from 'got';
import { Agent, fetch } from 'undici';

const url = process.argv[2];
const body = Buffer.alloc(8 << 20);
const withGot = async () => {
  const r = await got.post(url, { body, http2: true, https: { rejectUnauthorized: false }, throwHttpErrors: false, retry: { limit: 0 } });
  return `${r.statusCode} ${r.body}`;
};
const withUndici = async () => {
  const r = await fetch(url, { method: 'POST', body, dispatcher: new Agent({ allowH2: true, connect: { rejectUnauthorized: false } }) });
  return `${r.status} ${await r.text()}`;
};
for (const [name, call] of [['got, HTTP/2', withGot], ['undici, HTTP/2', withUndici]]) {
  for (let n = 0; n < 3; n++) {
    console.log(`${name}: ${await call().catch(() => 'error')}`);
  }
}
process.exit(0);
EOT
for package in got http2-wrapper undici; do node -p "'$package ' + JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version"; done
GOTOOLCHAIN=local go build -o service .
timeout 300 ./service | tee seen
cat > want <<'EOT'
got, HTTP/2: error
got, HTTP/2: error
got, HTTP/2: error
undici, HTTP/2: 401 who are you
undici, HTTP/2: 401 who are you
undici, HTTP/2: 401 who are you
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
