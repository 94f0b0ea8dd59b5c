'use strict';
// The peer on connect-node: `connectnode.js serve`, or `connectnode.js call[-grpc|-web] CASE`, see common.js.
const http2 = require('node:http2');
const { create, createFileRegistry } = require('@bufbuild/protobuf');
const wkt = require('@bufbuild/protobuf/wkt');
const { ConnectError, createClient } = require('@connectrpc/connect');
const node = require('@connectrpc/connect-node');
const { job, grace, file, say, untilEnd, call } = require('./common.js');

// The service is described here, in place of generated code.
const BytesValue = wkt.BytesValueSchema;
const method = (name, clientStreaming, serverStreaming) => ({
  name, clientStreaming, serverStreaming, inputType: '.google.protobuf.BytesValue', outputType: '.google.protobuf.BytesValue',
});
const registry = createFileRegistry(create(wkt.FileDescriptorProtoSchema, {
  name: 'interop/v1/echo.proto', package: 'interop.v1', syntax: 'proto3', dependency: ['google/protobuf/wrappers.proto'],
  service: [{
    name: 'Echo',
    method: [
      ...['Unary', 'Fail', 'Sleep', 'Count'].map((name) => method(name, false, false)),
      method('Client', true, false), method('Server', false, true), method('Bidi', true, true),
    ],
  }],
}), (name) => (name === 'google/protobuf/wrappers.proto' ? wkt.file_google_protobuf_wrappers : undefined));
const Echo = registry.getService('interop.v1.Echo');
const message = (value) => create(BytesValue, { value });

let running = 0;
const implementation = {
  unary: (m) => m,
  count: () => message(Buffer.from(String(running))),
  fail(m) {
    const [code, size] = Buffer.from(m.value).toString().split(' ').map(Number);
    throw new ConnectError('as asked', code, undefined, [{ desc: BytesValue, value: message(Buffer.alloc(size, 'd')) }]);
  },
  async sleep(m, context) {
    running++;
    try {
      await new Promise((done, failed) => {
        const timer = setTimeout(done, Number(Buffer.from(m.value).toString()));
        context.signal.addEventListener('abort', () => { clearTimeout(timer); failed(context.signal.reason); });
      });
      return m;
    } finally {
      running--;
    }
  },
  async client(messages) {
    let total = 0;
    for await (const m of messages) total += m.value.length;
    return message(Buffer.from(String(total)));
  },
  async *server(m) {
    for (let i = 0; i < Number(Buffer.from(m.value).toString()); i++) yield message(Buffer.from(String(i)));
  },
  async *bidi(messages) {
    running++;
    try {
      for await (const m of messages) yield m;
      yield message(Buffer.from('done'));
    } finally {
      running--;
    }
  },
};

function serve() {
  const server = http2.createSecureServer({
    key: file('tls.key'), cert: file('tls.crt'), ca: file('ca.crt'), requestCert: true, rejectUnauthorized: true,
  }, node.connectNodeAdapter({ routes: (router) => router.service(Echo, implementation) }));
  const sessions = new Set();
  server.on('session', (s) => { sessions.add(s); s.on('close', () => sessions.delete(s)); });
  server.on('sessionError', () => {}); // a caller was killed
  server.listen(0, '127.0.0.1', () => say({ port: server.address().port }));
  untilEnd(() => {
    server.close(() => process.exit(0));
    for (const s of sessions) s.close(); // GOAWAY, and the calls in flight go on
    setTimeout(() => process.exit(0), grace).unref();
  });
}

class Caller {
  constructor(create) {
    const nodeOptions = { ca: file('ca.crt') };
    if (job.present) Object.assign(nodeOptions, { key: file('tls.key'), cert: file('tls.crt') });
    const headers = job.token ? { 'x-plugin-runtime-id': job.id, authorization: 'Bearer ' + job.token } : {};
    // One session for all prefixes, as one transport would have.
    const sessionManager = new node.Http2SessionManager('https://' + job.target, {}, nodeOptions);
    this.headers = headers;
    this.make = (prefix) => createClient(Echo, create({
      baseUrl: 'https://' + job.target + prefix, httpVersion: '2', useBinaryFormat: true, nodeOptions, sessionManager,
    }));
    this.prefix = job.prefix || '';
  }

  set prefix(p) { this.stub = this.make(p); }

  async unary(name, data, { timeout, signal } = {}) {
    const out = await this.stub[name.toLowerCase()](message(data), { headers: this.headers, timeoutMs: timeout, signal });
    return out.value;
  }

  async client(messages) {
    async function* all() { for (const m of messages) yield message(m); }
    return (await this.stub.client(all(), { headers: this.headers })).value;
  }

  async *server(data) {
    for await (const m of this.stub.server(message(data), { headers: this.headers })) yield m.value;
  }

  bidi(signal) {
    const queue = [];
    let wake = () => {}, ended = false;
    async function* requests() {
      for (;;) {
        while (queue.length) yield message(queue.shift());
        if (ended) return;
        await new Promise((w) => { wake = w; });
      }
    }
    const items = this.stub.bidi(requests(), { headers: this.headers, signal })[Symbol.asyncIterator]();
    // Nothing is sent before the first next.
    return {
      send: async (m) => { queue.push(m); wake(); },
      end: () => { ended = true; wake(); },
      next: async () => { const { done, value } = await items.next(); return done ? null : value.value; },
    };
  }

  failure(e) {
    const f = ConnectError.from(e);
    return { code: f.code, text: f.rawMessage, detail: f.findDetails(BytesValue)[0]?.value };
  }
}

const transports = {
  call: node.createConnectTransport, 'call-grpc': node.createGrpcTransport, 'call-web': node.createGrpcWebTransport,
};
if (process.argv[2] === 'serve') serve();
else call(process.argv[3], new Caller(transports[process.argv[2]]));
