'use strict';
// The cases as a caller on Node plays them; see interop/echo/cases.go. A caller has
//   unary(method, bytes, { timeout, signal }) -> bytes
//   client(messages) -> bytes, server(bytes) -> async iterator, bidi(signal) -> { send, end, next }
//   failure(error) -> { code, text, detail }, prefix
// and next() gives null at the end.
const { isDeepStrictEqual } = require('node:util');

const QUIET = 150, FLIGHT = 20, LONG = 4, WORKERS = 4;
const DEADLINE = 4, NOT_FOUND = 5, FAILED = 9, UNAVAILABLE = 14;
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const text = (b) => (b === null ? null : Buffer.from(b).toString());

function check(what, got, want) {
  if (!isDeepStrictEqual(got, want)) {
    throw new Error(`${what}: got ${JSON.stringify(got)?.slice(0, 80)}, want ${JSON.stringify(want)?.slice(0, 80)}`);
  }
}

async function failure(caller, promise) {
  try { await promise; } catch (e) { return caller.failure(e); }
  throw new Error('no error');
}

async function exchange(stream, t) {
  await stream.send(Buffer.from(t));
  check('message', text(await stream.next()), t);
}

async function finish(stream) {
  stream.end();
  check('last', text(await stream.next()), 'done');
  check('end', await stream.next(), null);
}

async function open(caller, signal) {
  const stream = caller.bidi(signal);
  await exchange(stream, 'first');
  return stream;
}

async function untilRunning(caller, want) {
  let n;
  for (let i = 0; i < 200; i++) {
    n = Number(text(await caller.unary('Count', Buffer.alloc(0))));
    if (n === want) return;
    await pause(50);
  }
  throw new Error(`${n} calls run at the provider, want ${want}`);
}

const repeat = (n, f) => Array.from({ length: n }, (_, i) => f(i));

async function all(promises) {
  const failed = (await Promise.allSettled(promises)).filter((r) => r.status === 'rejected');
  if (failed.length) throw new Error(`${failed.length} of ${promises.length}: ${failed[0].reason.message}`);
}

async function many(caller, n, between) {
  const streams = new Array(n);
  await all(repeat(n, async (i) => { streams[i] = await open(caller); }));
  await between();
  await all(streams.map(async (s) => { await exchange(s, 'second'); await finish(s); }));
}

async function details(caller, size) {
  const f = await failure(caller, caller.unary('Fail', Buffer.from(`${FAILED} ${size}`)));
  check('code', f.code, FAILED);
  check('text', f.text.includes('as asked'), true);
  check('bytes of detail', f.detail?.length >= size && Buffer.from(f.detail).includes('d'.repeat(size)), true);
}

const cases = {
  async unary(caller) {
    for (let i = 0; i < 100; i++) check('message', text(await caller.unary('Unary', Buffer.alloc(256, 'u'))), 'u'.repeat(256));
  },
  async client(caller) {
    check('sum', text(await caller.client(repeat(100, () => Buffer.alloc(256, 'c')))), '25600');
  },
  async server(caller) {
    const got = [];
    for await (const m of caller.server(Buffer.from('100'))) got.push(text(m));
    check('messages', got, repeat(100, String));
  },
  async bidi(caller) {
    const stream = await open(caller);
    for (let i = 0; i < 50; i++) await exchange(stream, String(i));
    await finish(stream);
  },
  async 'half-close'(caller) {
    const stream = caller.bidi();
    for (const m of ['a', 'b', 'c']) await stream.send(Buffer.from(m));
    stream.end();
    for (const m of ['a', 'b', 'c', 'done', null]) check('message', text(await stream.next()), m);
  },
  async deadline(caller) {
    const f = await failure(caller, caller.unary('Sleep', Buffer.from('20000'), { timeout: 300 }));
    check('code', f.code, DEADLINE);
    await untilRunning(caller, 0);
  },
  async cancel(caller) {
    const abort = new AbortController();
    const sleeping = repeat(5, () => failure(caller, caller.unary('Sleep', Buffer.from('20000'), { signal: abort.signal })));
    const streams = await Promise.all(repeat(5, () => open(caller, abort.signal)));
    await untilRunning(caller, 10);
    const ends = streams.map((s) => failure(caller, s.next()));
    abort.abort();
    await all([...sleeping, ...ends]);
    await untilRunning(caller, 0);
  },
  details: (caller) => details(caller, 1000),
  'details-20k': (caller) => details(caller, 20000),
  streams: (caller, job) => many(caller, job.streams, () => {}),
  silence: (caller, job, ready) => many(caller, QUIET, async () => { await ready(); await pause(job.silence); }),
  async large(caller, job) {
    const data = Buffer.alloc(job.large, 'l');
    check('unary', data.equals(await caller.unary('Unary', data)), true);
    const stream = await open(caller);
    await stream.send(data);
    check('stream', data.equals(await stream.next()), true);
    await finish(stream);
  },
  async stop(caller, job, ready) {
    let loading = true, good = 0, refused = 0;
    const load = async () => {
      while (loading) {
        try {
          await caller.unary('Unary', Buffer.from('load'));
          good++;
        } catch (e) {
          const f = caller.failure(e);
          if (f.code !== UNAVAILABLE && f.code !== NOT_FOUND) throw new Error(`load: ${f.code}: ${f.text}`);
          refused++;
          await pause(5);
        }
      }
    };
    const span = async (s) => { await pause(2000); await exchange(s, 'second'); await finish(s); };
    const streams = await Promise.all(repeat(LONG, () => open(caller)));
    const flight = all([...streams.map(span), ...repeat(FLIGHT, () => caller.unary('Sleep', Buffer.from('3000')))]);
    const workers = all(repeat(WORKERS, load));
    flight.catch(() => {});
    workers.catch(() => {});
    await untilRunning(caller, FLIGHT + LONG);
    await ready();
    loading = false;
    await flight;
    await workers;
    return `${good} short calls, ${refused} refused`;
  },
  async kill(caller, job, ready) {
    const streams = await Promise.all(repeat(LONG, () => open(caller)));
    const flight = repeat(FLIGHT, () => failure(caller, caller.unary('Sleep', Buffer.from('20000'))));
    await untilRunning(caller, FLIGHT + LONG);
    for (const s of streams) flight.push(failure(caller, s.next()));
    flight.forEach((f) => f.catch(() => {}));
    caller.prefix = await ready();
    for (const f of await Promise.all(flight)) check('in flight: ' + f.text, f.code, UNAVAILABLE);
    for (let tries = 1; tries < 200; tries++) {
      try {
        await caller.unary('Unary', Buffer.from('again'));
        return `answers again at try ${tries}`;
      } catch (e) {
        check('again', caller.failure(e).code, UNAVAILABLE);
        await pause(50);
      }
    }
    throw new Error('does not answer again');
  },
};

module.exports.play = (name, caller, job, ready) => cases[name](caller, job, ready);
