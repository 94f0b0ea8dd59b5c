#!/usr/bin/env bash
# Guess: a server's handler that reads a stream of requests is told by an error, or at least by the
# call's abort signal or flag, that the caller cancelled before the end.
# Seen: on Node, connect-node 2.1.2 and @grpc/grpc-js 1.14.7 end the stream of requests as if it were
# complete when the caller (here grpc-js) cancels: `for await` ends without an error, 'end' is
# emitted, and at that moment neither context.signal.aborted nor call.cancelled is set. Both are set a little
# later. grpc-js does so each time; with connect-node it is a race, which the handler loses in most rounds. So a handler that stores an upload when its requests have ended stores a part
# of one as the whole. (Node's http2 emits 'end' for a stream that was reset with CANCEL, before
# 'aborted'.) A handler has to look at the signal again after a turn of the event loop.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @grpc/grpc-js@1.14.7 @connectrpc/connect@2.1.2 \
  @connectrpc/connect-node@2.1.2 @bufbuild/protobuf@2.14.1 > /dev/null 2>&1
cat > main.js <<'EOF'
'use strict';
const http2 = require('node:http2');
const grpc = require('@grpc/grpc-js');
const { create, createFileRegistry } = require('@bufbuild/protobuf');
const wkt = require('@bufbuild/protobuf/wkt');
const { connectNodeAdapter } = require('@connectrpc/connect-node');

const version = (name) => require(require('node:path').join(__dirname, 'node_modules', name, 'package.json')).version;
console.log('node', process.version, 'grpc-js', version('@grpc/grpc-js'), 'connect-node', version('@connectrpc/connect-node'));

const bytes = '.google.protobuf.BytesValue';
const Store = createFileRegistry(create(wkt.FileDescriptorProtoSchema, {
  name: 'store.proto', package: 'store', syntax: 'proto3', dependency: ['google/protobuf/wrappers.proto'],
  service: [{ name: 'Store', method: [{ name: 'Put', clientStreaming: true, inputType: bytes, outputType: bytes }] }],
}), () => wkt.file_google_protobuf_wrappers).getService('store.Store');

const rounds = 10, seen = {};
const say = (line) => { seen[line] = (seen[line] || 0) + 1; };
const later = (f) => setTimeout(f, 200);

const connectServer = http2.createServer(connectNodeAdapter({
  routes: (router) => router.service(Store, {
    async put(messages, context) {
      let n = 0, how = 'without an error';
      try { for await (const _ of messages) n++; } catch { how = 'with an error'; }
      say(`connect-node: ends ${how} after ${n} of 5, aborted ${context.signal.aborted}`);
      later(() => say(`connect-node, later: aborted ${context.signal.aborted}`));
      return create(wkt.BytesValueSchema, {});
    },
  }),
}));
const raw = (b) => b;
const put = {
  path: '/store.Store/Put', requestStream: true, responseStream: false,
  requestSerialize: raw, requestDeserialize: raw, responseSerialize: raw, responseDeserialize: raw,
};
const grpcServer = new grpc.Server();
grpcServer.addService({ Put: put }, {
  Put(call, answer) {
    let n = 0;
    call.on('data', () => n++).on('error', () => say('grpc-js: error')).on('end', () => {
      say(`grpc-js: ends without an error after ${n} of 5, cancelled ${call.cancelled}`);
      later(() => say(`grpc-js, later: cancelled ${call.cancelled}`));
      answer(null, Buffer.alloc(0));
    });
  },
});

// upload sends 3 of 5 messages and cancels.
function upload(port) {
  const client = new grpc.Client('127.0.0.1:' + port, grpc.credentials.createInsecure());
  const call = client.makeClientStreamRequest(put.path, raw, raw, () => {});
  call.on('error', () => {});
  for (let i = 0; i < 3; i++) call.write(Buffer.alloc(0));
  return new Promise((done) => setTimeout(() => { call.cancel(); setTimeout(done, 400); }, 300));
}

connectServer.listen(0, '127.0.0.1', () => grpcServer.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), async (_, port) => {
  for (let i = 0; i < rounds; i++) {
    await upload(connectServer.address().port);
    await upload(port);
  }
  for (const [line, n] of Object.entries(seen)) console.log(`${n} of ${rounds}: ${line}`);
  const same = seen['connect-node: ends without an error after 3 of 5, aborted false'] > 0 && seen['connect-node, later: aborted true'] === rounds
    && seen['grpc-js: ends without an error after 3 of 5, cancelled false'] > 0 && seen['grpc-js, later: cancelled true'] === rounds;
  if (!same) console.log('CHANGED');
  process.exit(same ? 0 : 1);
}));
EOF
timeout 60 node main.js
