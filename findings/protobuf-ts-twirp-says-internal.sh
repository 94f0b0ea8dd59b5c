#!/usr/bin/env bash
# Guess: a call of Twirp that did not reach its service has in TypeScript the code that it has in Go: Twirp's specification says which of its codes an answer
# of a proxy is, that is one without Twirp's JSON, by its HTTP status.
# Seen: @protobuf-ts/twirp-transport 2.11.1 (npm) makes "internal" of all of them, where the client that github.com/twitchtv/twirp v8.1.3 generates has
# unauthenticated for 401, permission_denied for 403, bad_route for 404, resource_exhausted for 429 and unavailable for 502, 503 and 504, as is written:
# whoever tries again what is unavailable does not in TypeScript. A redirect, which is to be an error, is followed with GET. A server that is away, internal
# in Go, and a call that an AbortSignal ended are "UNKNOWN" in capitals, which is no code of Twirp's. The option `timeout` ends nothing: the service is waited
# for. Errors that the service made, with text and metadata, are alike.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @bufbuild/buf@1.75.0 @protobuf-ts/plugin@2.11.1 @protobuf-ts/twirp-transport@2.11.1 > /dev/null 2>&1
mkdir plugins proto client
cat > plugins/go.mod <<'EOT'
module plugins

go 1.26.0

tool (
	github.com/twitchtv/twirp/protoc-gen-twirp
	google.golang.org/protobuf/cmd/protoc-gen-go
)

require (
	github.com/twitchtv/twirp v8.1.3+incompatible
	google.golang.org/protobuf v1.36.12
)
EOT
(cd plugins && GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1 && GOTOOLCHAIN=local go build -o . tool)
cat > buf.gen.yaml <<'EOT'
version: v2
inputs: [{directory: proto}]
plugins:
  - {local: plugins/protoc-gen-go, out: proto, opt: paths=source_relative}
  - {local: plugins/protoc-gen-twirp, out: proto, opt: paths=source_relative}
  - {local: node_modules/.bin/protoc-gen-ts, out: ts, opt: [output_javascript, force_optimize_speed], strategy: all}
EOT
cat > proto/echo.proto <<'EOT'
syntax = "proto3";
package e;
option go_package = "finding/proto";

service Echo {
  rpc Say(Text) returns (Text);
}

message Text {
  string value = 1;
}
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/twitchtv/twirp v8.1.3+incompatible
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"time"

	"finding/proto"
	"github.com/twitchtv/twirp"
)

type echo struct{}

func (echo) Say(ctx context.Context, t *proto.Text) (*proto.Text, error) {
	if t.Value == "slow" {
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Second):
		}
	}
	return nil, twirp.NewError(twirp.ResourceExhausted, "too much: 100 %").WithMeta("limit", "1")
}

func say(ctx context.Context, url, text string) string {
	_, err := proto.NewEchoProtobufClient(url, http.DefaultClient).Say(ctx, &proto.Text{Value: text})
	failure := err.(twirp.Error)
	return string(failure.Code())
}

func main() {
	mux := http.NewServeMux()
	mux.Handle("/twirp/", proto.NewEchoServer(echo{}))
	mux.HandleFunc("/proxy/{status}/", func(w http.ResponseWriter, r *http.Request) {
		status, _ := strconv.Atoi(r.PathValue("status"))
		w.Header().Set("Location", "/twirp/e.Echo/Say")
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(status)
		fmt.Fprintln(w, "<h1>proxy</h1>")
	})
	s := httptest.NewServer(mux)
	ctx := context.Background()
	for _, status := range []string{"302", "400", "401", "403", "404", "429", "500", "502", "503", "504"} {
		fmt.Println("Go", status, say(ctx, s.URL+"/proxy/"+status, ""))
	}
	soon, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	fmt.Println("Go deadline", say(soon, s.URL, "slow"))
	fmt.Println("Go away", say(ctx, "http://127.0.0.1:1", ""))
	_, err := proto.NewEchoProtobufClient(s.URL, http.DefaultClient).Say(ctx, &proto.Text{})
	fmt.Println("Go service", err.(twirp.Error).Code(), err.(twirp.Error).Msg(), err.(twirp.Error).Meta("limit"))
	node := exec.Command("node", "main.mjs", s.URL)
	node.Stdout, node.Stderr = os.Stdout, os.Stderr
	if err := node.Run(); err != nil {
		panic(err)
	}
}
EOT
cat > main.mjs <<'EOT'
import { TwirpFetchTransport } from '@protobuf-ts/twirp-transport';
import { EchoClient } from './ts/echo.client.js';

const url = process.argv[2];
const say = (baseUrl, value = '', options) => new EchoClient(new TwirpFetchTransport({ baseUrl })).say({ value }, options).then(() => 'ok', (err) => err);
for (const status of [302, 400, 401, 403, 404, 429, 500, 502, 503, 504]) {
  const err = await say(`${url}/proxy/${status}/twirp`);
  console.log('TypeScript', status, err.code, status === 302 ? err.message : '');
}
console.log('TypeScript deadline', (await say(`${url}/twirp`, 'slow', { timeout: 200 })).code);
console.log('TypeScript abort', (await say(`${url}/twirp`, 'slow', { abort: AbortSignal.timeout(200) })).code);
console.log('TypeScript away', (await say('http://127.0.0.1:1')).code);
const err = await say(`${url}/twirp`);
console.log('TypeScript service', err.code, err.message, err.meta.limit);
EOT
cat > want <<'EOT'
Go 302 internal
Go 400 internal
Go 401 unauthenticated
Go 403 permission_denied
Go 404 bad_route
Go 429 resource_exhausted
Go 500 unknown
Go 502 unavailable
Go 503 unavailable
Go 504 unavailable
Go deadline internal
Go away internal
Go service resource_exhausted too much: 100 % 1
TypeScript 302 bad_route unsupported method "GET" (only POST is allowed)
TypeScript 400 internal 
TypeScript 401 internal 
TypeScript 403 internal 
TypeScript 404 internal 
TypeScript 429 internal 
TypeScript 500 internal 
TypeScript 502 internal 
TypeScript 503 internal 
TypeScript 504 internal 
TypeScript deadline resource_exhausted
TypeScript abort UNKNOWN
TypeScript away UNKNOWN
TypeScript service resource_exhausted too much: 100 % 1
EOT
node_modules/.bin/buf generate > /dev/null
sed -i -E 's#from "(\./[a-z.]+)"#from "\1.js"#' ts/*.js
echo '{"type": "module"}' > ts/package.json
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/twitchtv/twirp
node -p '"@protobuf-ts/twirp-transport " + JSON.parse(require("fs").readFileSync("node_modules/@protobuf-ts/twirp-transport/package.json")).version'
GOTOOLCHAIN=local go build -o finding .
timeout 60 ./finding | tee seen
cmp -s seen want || { echo CHANGED; exit 1; }
