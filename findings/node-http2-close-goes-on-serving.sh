#!/usr/bin/env bash
# Guess: close() of a server of node:http2, on which connect-node and Node's frameworks build, ends it as Shutdown does one of net/http and tryShutdown one of
# grpc-js: connections are told to go (GOAWAY), calls in flight end, and then it is closed.
# Seen: with Node 22.23.3 and @connectrpc/connect-node 2.3.0 close() tells the connections nothing: a client that has one goes on as before, its later calls,
# begun long after close(), are served, and the server is never closed while the client is there, idle or not. So whoever waits for it waits for the clients.
# Node 24.21.0 does as guessed. For both it is enough to call close() of each session as well, which Node keeps no list of: it comes with the event 'session'.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @connectrpc/connect@2.3.0 @connectrpc/connect-node@2.3.0 @bufbuild/protobuf@2.17.0 > /dev/null 2>&1
for version in 22.23.3 24.21.0; do
  npm install --silent --no-audit --no-fund --no-save --prefix "node-$version" "node@$version" > /dev/null 2>&1
done
cat > main.mjs <<'EOT'
import { once } from 'node:events';
import { createServer } from 'node:http2';
import { setTimeout as sleep } from 'node:timers/promises';
import { create, createFileRegistry } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema, FileDescriptorSetSchema, file_google_protobuf_wrappers } from '@bufbuild/protobuf/wkt';
import { createClient } from '@connectrpc/connect';
import { connectNodeAdapter, createConnectTransport, Http2SessionManager } from '@connectrpc/connect-node';

const type = '.google.protobuf.Int32Value';
const file = create(FileDescriptorProtoSchema, {
  name: 'e.proto', package: 'e', syntax: 'proto3', dependency: ['google/protobuf/wrappers.proto'],
  service: [{ name: 'E', method: [{ name: 'Wait', inputType: type, outputType: type }] }],
});
const service = createFileRegistry(create(FileDescriptorSetSchema, { file: [file_google_protobuf_wrappers.proto, file] })).getService('e.E');

for (const [what, value, sessionsToo] of [['idle', 0, false], ['in flight', 1000, false], ['in flight, sessions too', 1000, true]]) {
  const sessions = new Set();
  const routes = (router) => router.service(service, { wait: async (request) => { await sleep(request.value); return request; } });
  const server = createServer(connectNodeAdapter({ routes })).on('session', (s) => sessions.add(s));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const baseUrl = `http://127.0.0.1:${server.address().port}`;
  const sessionManager = new Http2SessionManager(baseUrl);
  const client = createClient(service, createConnectTransport({ baseUrl, httpVersion: '2', sessionManager }));
  const call = (ms) => client.wait({ value: ms }).then(() => 'ok', () => 'refused');
  await call(0);
  const inFlight = call(value);
  await sleep(300);
  const closed = new Promise((done) => server.close(() => done('closed')));
  if (sessionsToo) for (const session of sessions) session.close();
  await sleep(500);
  const later = await call(0);
  const outcome = await Promise.race([closed, sleep(5000, 'not closed')]);
  console.log(`node ${process.versions.node.split('.')[0]}, ${what}: the call ${await inFlight}, one that begins later ${later}, the server ${outcome}`);
  sessionManager.abort();
}
process.exit(0);
EOT
for version in 22.23.3 24.21.0; do
  "node-$version/node_modules/.bin/node" --version
  timeout 60 "node-$version/node_modules/.bin/node" main.mjs
done | tee seen
cat > want <<'EOT'
v22.23.3
node 22, idle: the call ok, one that begins later ok, the server not closed
node 22, in flight: the call ok, one that begins later ok, the server not closed
node 22, in flight, sessions too: the call ok, one that begins later refused, the server closed
v24.21.0
node 24, idle: the call ok, one that begins later refused, the server closed
node 24, in flight: the call ok, one that begins later refused, the server closed
node 24, in flight, sessions too: the call ok, one that begins later refused, the server closed
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
