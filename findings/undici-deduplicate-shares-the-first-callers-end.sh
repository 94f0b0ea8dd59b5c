#!/usr/bin/env bash
# Guess: with the interceptor `deduplicate` of undici, which lets callers that ask the same at the same time share one request, each caller keeps its own end: one that
# cancels, or whose time is up, has its own error, and the others have the answer that they wait for.
# Seen: with undici 8.12.4 (npm, Node 22.23.3) everything goes by the caller that came first. If it cancels, the request is cancelled, and each other caller, who has cancelled
# nothing, fails: request() with an AbortError, fetch() with "fetch failed". Of calls of @connectrpc/connect-web 2.3.0 (useHttpGet) on that fetch, of a handler of
# connectrpc.com/connect v1.21.1, the other has unknown, though the service was there all the time. A headersTimeout of the first holds for the others, also for one
# that allows more; that of another one does not hold at all. If another one cancels, it alone ends, as guessed.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; wait; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save node@22.23.3 undici@8.12.4 @connectrpc/connect@2.3.0 @connectrpc/connect-web@2.3.0 @bufbuild/protobuf@2.17.0 > /dev/null 2>&1
cat > go.mod <<'EOM'
module finding

go 1.26.0

require (
	connectrpc.com/connect v1.21.1
	google.golang.org/protobuf v1.36.12
)
EOM
cat > main.go <<'EOM'
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type text = wrapperspb.StringValue

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	panic(http.Serve(l, connect.NewUnaryHandler("/e.S/Get", func(ctx context.Context, r *connect.Request[text]) (*connect.Response[text], error) {
		select {
		case <-time.After(3 * time.Second):
			return connect.NewResponse(r.Msg), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}, connect.WithIdempotency(connect.IdempotencyNoSideEffects))))
}
EOM
cat > main.mjs <<'EOM'
import { Agent, interceptors, fetch, request } from 'undici';
import { createConnectTransport } from '@connectrpc/connect-web';
import { createClient, Code } from '@connectrpc/connect';
import { create, createFileRegistry } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema, FileDescriptorSetSchema, MethodOptions_IdempotencyLevel, file_google_protobuf_wrappers } from '@bufbuild/protobuf/wkt';

const baseUrl = 'http://' + process.argv[2];
const type = '.google.protobuf.StringValue';
const file = create(FileDescriptorProtoSchema, {
  name: 'e.proto', package: 'e', syntax: 'proto3', dependency: ['google/protobuf/wrappers.proto'],
  service: [{ name: 'S', method: [{ name: 'Get', inputType: type, outputType: type, options: { idempotencyLevel: MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS } }] }],
});
const service = createFileRegistry(create(FileDescriptorSetSchema, { file: [file_google_protobuf_wrappers.proto, file] })).getService('e.S');
const dispatcher = new Agent().compose(interceptors.deduplicate());
const client = createClient(service, createConnectTransport({ baseUrl, useHttpGet: true, fetch: (url, init) => fetch(url, { ...init, dispatcher }) }));
const url = (value) => `${baseUrl}/e.S/Get?connect=v1&encoding=json&message=${encodeURIComponent(JSON.stringify(value))}`;
const ways = {
  'request()': (value, signal) => request(url(value), { dispatcher, signal }).then(async (r) => 'answered ' + (await r.body.json()), (e) => e.name),
  'fetch()': (value, signal) => fetch(url(value), { dispatcher, signal }).then(async (r) => 'answered ' + (await r.json()), (e) => `${e.name}, ${e.message}`),
  'connect-web': (value, signal) => client.get({ value }, { signal }).then((r) => 'answered ' + r.value, (e) => Code[e.code]),
};
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
for (const [name, call] of Object.entries(ways)) {
  for (const who of ['first', 'second']) {
    const stop = new AbortController();
    const first = call(`${name} ${who}`, who === 'first' ? stop.signal : undefined);
    await pause(200);
    const second = call(`${name} ${who}`, who === 'second' ? stop.signal : undefined);
    await pause(800);
    stop.abort();
    console.log(`${name}, the ${who} cancels. first: ${await first} | second: ${await second}`);
  }
}
for (const [a, b] of [[1000, 60000], [60000, 1000]]) {
  const call = (headersTimeout) => request(url(`${a}`), { dispatcher, headersTimeout }).then(async (r) => 'answered ' + (await r.body.json()), (e) => e.name);
  const first = call(a);
  await pause(200);
  const second = call(b);
  console.log(`headersTimeout ${a} and ${b}. first: ${await first} | second: ${await second}`);
}
await dispatcher.close();
EOM
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m connectrpc.com/connect
node_modules/.bin/node -p '"node " + process.version'
for package in undici @connectrpc/connect-web; do node -p "'$package ' + JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version"; done
GOTOOLCHAIN=local go build -o finding .
./finding > address &
until [ -s address ]; do sleep 0.1; done
timeout 90 node_modules/.bin/node main.mjs "$(cat address)" | tee seen
cat > want <<'EOM'
request(), the first cancels. first: AbortError | second: AbortError
request(), the second cancels. first: answered request() second | second: AbortError
fetch(), the first cancels. first: AbortError, This operation was aborted | second: TypeError, fetch failed
fetch(), the second cancels. first: answered fetch() second | second: AbortError, This operation was aborted
connect-web, the first cancels. first: Canceled | second: Unknown
connect-web, the second cancels. first: answered connect-web second | second: Canceled
headersTimeout 1000 and 60000. first: HeadersTimeoutError | second: HeadersTimeoutError
headersTimeout 60000 and 1000. first: answered 60000 | second: answered 60000
EOM
cmp -s seen want || { echo CHANGED; exit 1; }
