#!/usr/bin/env bash
# Guess: with OpenTelemetry's instrumentations of Node for HTTP, gRPC and fetch, calls of Connect for TypeScript belong to their caller's
# trace whatever they run over, as those of connect-node over HTTP/1.1, of connect-web on fetch, and of grpc-js do.
# Seen: with @opentelemetry/instrumentation-http 0.301.0, instrumentation-grpc 0.300.0 and instrumentation-undici 0.34.0 (SDK 3.1.1) a
# client of @connectrpc/connect-node 2.3.0 over HTTP/2, in Connect, gRPC and gRPC-Web, sends no traceparent, and a server of connect-node over
# HTTP/2 makes no span, also where the caller did send one: what it calls in turn begins a trace of its own. The instrumentation of
# gRPC knows grpc-js alone, that of HTTP node:http alone, and nothing says so. gRPC in connect-node is never over HTTP/1.1.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
case "$(uname -m)" in aarch64) platform=linux-arm64 ;; *) platform=linux-x64 ;; esac
npm install --silent --no-audit --no-fund --no-save @opentelemetry/{api@1.10.0,core@3.1.0,context-async-hooks@3.1.1,sdk-trace@3.1.1} \
  @opentelemetry/{instrumentation@0.301.0,instrumentation-http@0.301.0,instrumentation-grpc@0.300.0,instrumentation-undici@0.34.0} \
  @connectrpc/{connect@2.3.0,connect-node@2.3.0,connect-web@2.3.0} @bufbuild/protobuf@2.17.0 @grpc/grpc-js@1.14.7 "node-$platform@22.23.3" > /dev/null 2>&1
cat > main.js <<'EOT'
'use strict';
const { context, propagation, trace } = require('@opentelemetry/api');
const { AsyncLocalStorageContextManager } = require('@opentelemetry/context-async-hooks');
const { W3CTraceContextPropagator } = require('@opentelemetry/core');
const { TracerProvider } = require('@opentelemetry/sdk-trace');
const { registerInstrumentations } = require('@opentelemetry/instrumentation');
context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
propagation.setGlobalPropagator(new W3CTraceContextPropagator());
trace.setGlobalTracerProvider(new TracerProvider());
registerInstrumentations({ instrumentations: [
  new (require('@opentelemetry/instrumentation-http').HttpInstrumentation)(),
  new (require('@opentelemetry/instrumentation-grpc').GrpcInstrumentation)(),
  new (require('@opentelemetry/instrumentation-undici').UndiciInstrumentation)(),
] });
// Everything else comes after them.
const http = require('node:http');
const http2 = require('node:http2');
const grpc = require('@grpc/grpc-js');
const node = require('@connectrpc/connect-node');
const web = require('@connectrpc/connect-web');
const { createClient } = require('@connectrpc/connect');
const { create, createFileRegistry } = require('@bufbuild/protobuf');
const { FileDescriptorProtoSchema, FileDescriptorSetSchema, file_google_protobuf_wrappers } = require('@bufbuild/protobuf/wkt');

const type = '.google.protobuf.StringValue';
const file = create(FileDescriptorProtoSchema, {
  name: 'e.proto', package: 'e', syntax: 'proto3', dependency: ['google/protobuf/wrappers.proto'],
  service: [{ name: 'Trace', method: [{ name: 'Look', inputType: type, outputType: type }] }],
});
const service = createFileRegistry(create(FileDescriptorSetSchema, { file: [file_google_protobuf_wrappers.proto, file] })).getService('e.Trace');
// Answers with the traceparent that came, and the trace that the handler is in.
const look = (sent) => `${sent ?? 'none'} ${trace.getActiveSpan()?.spanContext().traceId ?? 'none'}`;
const routes = (router) => router.service(service, { look: (_, context) => ({ value: look(context.requestHeader.get('traceparent')) }) });
const listen = (server) => new Promise((done) => server.listen(0, '127.0.0.1', () => done('http://127.0.0.1:' + server.address().port)));
const raw = (b) => b;
const name = (path) => JSON.parse(require('node:fs').readFileSync(`node_modules/${path}/package.json`)).version;

const seen = [];
// Calls within a span and says whether the traceparent was of its trace, and the handler in it.
async function within(what, call) {
  await trace.getTracer('finding').startActiveSpan('caller', async (span) => {
    const { traceId } = span.spanContext();
    const [sent, inside] = (await call()).split(' ');
    seen.push(`${what}: traceparent ${sent.includes(traceId)}, the handler is in the trace ${inside === traceId}`);
    console.log(seen.at(-1));
    span.end();
  });
}

(async () => {
  console.log('node', process.version, 'connect-node', name('@connectrpc/connect-node'), 'instrumentation-http', name('@opentelemetry/instrumentation-http'));
  const one = await listen(http.createServer(node.connectNodeAdapter({ routes }))), two = await listen(http2.createServer(node.connectNodeAdapter({ routes })));
  const client = (transport, headers) => async () => (await createClient(service, transport).look({}, headers)).value;
  await within('connect-node, HTTP/1.1, Connect', client(node.createConnectTransport({ baseUrl: one, httpVersion: '1.1' })));
  await within('connect-web on fetch, Connect', client(web.createConnectTransport({ baseUrl: one })));
  for (const [protocol, transport] of [['Connect', node.createConnectTransport], ['gRPC', node.createGrpcTransport], ['gRPC-Web', node.createGrpcWebTransport]]) {
    await within('connect-node, HTTP/2, ' + protocol, client(transport({ baseUrl: two, httpVersion: '2' })));
  }
  await within('connect-node, HTTP/2, Connect, by hand', () => {
    const headers = {};
    propagation.inject(context.active(), headers);
    return client(node.createConnectTransport({ baseUrl: two, httpVersion: '2' }), { headers })();
  });
  const method = { path: '/e.Trace/Look', requestStream: false, responseStream: false, requestSerialize: raw, requestDeserialize: raw, responseSerialize: raw, responseDeserialize: raw };
  const server = new grpc.Server();
  server.addService({ Look: method }, { Look: (call, answer) => answer(null, Buffer.from(look(call.metadata.get('traceparent')[0]))) });
  const port = await new Promise((done, failed) => server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (err, p) => (err ? failed(err) : done(p))));
  const Client = grpc.makeGenericClientConstructor({ Look: method }, 'Trace');
  const caller = new Client('127.0.0.1:' + port, grpc.credentials.createInsecure());
  await within('grpc-js', () => new Promise((done, failed) => caller.Look(Buffer.alloc(0), (err, b) => (err ? failed(err) : done(String(b))))));
  const line = (what, sent, inside) => `${what}: traceparent ${sent}, the handler is in the trace ${inside}`;
  const same = seen.join('\n') === [
    line('connect-node, HTTP/1.1, Connect', true, true), line('connect-web on fetch, Connect', true, true),
    ...['Connect', 'gRPC', 'gRPC-Web'].map((protocol) => line('connect-node, HTTP/2, ' + protocol, false, false)),
    line('connect-node, HTTP/2, Connect, by hand', true, false), line('grpc-js', true, true),
  ].join('\n');
  if (!same) console.log('CHANGED');
  process.exit(same ? 0 : 1);
})();
EOT
timeout 60 "node_modules/node-$platform/bin/node" main.js
