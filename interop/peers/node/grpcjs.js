'use strict';
// The peer on @grpc/grpc-js: `grpcjs.js serve` or `grpcjs.js call CASE`, see common.js.
const grpc = require('@grpc/grpc-js');
const { job, base, grace, file, say, field, varint, encode, decode, untilEnd, call } = require('./common.js');

const limits = { 'grpc.max_receive_message_length': 64 << 20, 'grpc.max_send_message_length': 64 << 20 };
const method = (name, requestStream, responseStream) => ({
  path: base + name, requestStream, responseStream,
  requestSerialize: encode, requestDeserialize: decode, responseSerialize: encode, responseDeserialize: decode,
});
const service = {
  Unary: method('Unary', false, false), Fail: method('Fail', false, false), Sleep: method('Sleep', false, false),
  Count: method('Count', false, false), Client: method('Client', true, false), Server: method('Server', false, true),
  Bidi: method('Bidi', true, true),
};

let running = 0;

// track counts a call until the handler calls what is returned, or the call ends early.
function track(c, early = () => {}) {
  let over = false;
  const end = () => { if (!over) { over = true; running--; } };
  running++;
  c.on('cancelled', () => { end(); early(); }); // comes more than once
  return end;
}

const handlers = {
  Unary: (c, answer) => answer(null, c.request),
  Count: (c, answer) => answer(null, Buffer.from(String(running))),
  Fail(c, answer) {
    const [code, size] = c.request.toString().split(' ').map(Number);
    const any = Buffer.concat([
      field(1, Buffer.from('type.googleapis.com/google.protobuf.BytesValue')), field(2, encode(Buffer.alloc(size, 'd'))),
    ]);
    const status = Buffer.concat([Buffer.from([8, ...varint(code)]), field(2, Buffer.from('as asked')), field(3, any)]);
    const metadata = new grpc.Metadata();
    metadata.set('grpc-status-details-bin', status);
    answer({ code, details: 'as asked', metadata });
  },
  Sleep(c, answer) {
    const timer = setTimeout(() => { end(); answer(null, c.request); }, Number(c.request.toString()));
    const end = track(c, () => clearTimeout(timer));
  },
  Client(c, answer) {
    let total = 0;
    c.on('data', (m) => { total += m.length; }).on('end', () => answer(null, Buffer.from(String(total))));
  },
  Server(c) {
    for (let i = 0; i < Number(c.request.toString()); i++) c.write(Buffer.from(String(i)));
    c.end();
  },
  Bidi(c) {
    const end = track(c);
    c.on('data', (m) => c.write(m));
    c.on('end', () => { if (!c.cancelled) { end(); c.write(Buffer.from('done')); c.end(); } });
  },
};

function serve() {
  const server = new grpc.Server(limits);
  server.addService(service, handlers);
  const credentials = grpc.ServerCredentials.createSsl(
    file('ca.crt'), [{ private_key: file('tls.key'), cert_chain: file('tls.crt') }], true);
  server.bindAsync('127.0.0.1:0', credentials, (err, port) => {
    if (err) throw err;
    say({ port });
  });
  untilEnd(() => {
    server.tryShutdown(() => process.exit(0));
    setTimeout(() => { server.forceShutdown(); process.exit(0); }, grace).unref();
  });
}

class Caller {
  constructor() {
    const credentials = job.present
      ? grpc.credentials.createSsl(file('ca.crt'), file('tls.key'), file('tls.crt'))
      : grpc.credentials.createSsl(file('ca.crt'));
    this.stub = new grpc.Client(job.target, credentials, limits);
    this.prefix = job.prefix || '';
    this.metadata = new grpc.Metadata();
    if (job.token) {
      this.metadata.set('x-plugin-runtime-id', job.id);
      this.metadata.set('authorization', 'Bearer ' + job.token);
    }
  }

  path(name) { return this.prefix + base + name; }

  unary(name, data, { timeout, signal } = {}) {
    return new Promise((done, failed) => {
      const options = timeout ? { deadline: Date.now() + timeout } : {};
      const c = this.stub.makeUnaryRequest(this.path(name), encode, decode, data, this.metadata, options,
        (err, out) => (err ? failed(err) : done(out)));
      signal?.addEventListener('abort', () => c.cancel());
    });
  }

  client(messages) {
    return new Promise((done, failed) => {
      const c = this.stub.makeClientStreamRequest(this.path('Client'), encode, decode, this.metadata, {},
        (err, out) => (err ? failed(err) : done(out)));
      for (const m of messages) c.write(m);
      c.end();
    });
  }

  server(data) { return this.stub.makeServerStreamRequest(this.path('Server'), encode, decode, data, this.metadata, {}); }

  bidi(signal) {
    const c = this.stub.makeBidiStreamRequest(this.path('Bidi'), encode, decode, this.metadata, {});
    signal?.addEventListener('abort', () => c.cancel());
    const items = c[Symbol.asyncIterator]();
    c.on('error', () => {}); // next tells it
    return {
      send: (m) => new Promise((done) => { if (c.write(m)) done(); else c.once('drain', done); }),
      end: () => c.end(),
      next: async () => { const { done, value } = await items.next(); return done ? null : value; },
    };
  }

  failure(e) {
    return { code: e.code, text: e.details || e.message, detail: e.metadata?.get('grpc-status-details-bin')[0] };
  }
}

if (process.argv[2] === 'serve') serve();
else call(process.argv[3], new Caller());
