'use strict';
// What the two peers on Node share: the job, the lines, the service and the wire of its messages.
const fs = require('node:fs');
const path = require('node:path');
const readline = require('node:readline');

const job = JSON.parse(process.env.INTEROP_JOB);
const base = '/interop.v1.Echo/';
const grace = 5000;

const file = (name) => fs.readFileSync(path.join(job.dir, name));
const say = (line) => process.stdout.write(JSON.stringify(line) + '\n');
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// google.protobuf.BytesValue: one field, number 1, of bytes.
function field(number, value) {
  const head = [...varint((number << 3) | 2), ...varint(value.length)];
  return Buffer.concat([Buffer.from(head), value]);
}

function varint(n) {
  const out = [];
  for (; n > 0x7f; n >>>= 7) out.push((n & 0x7f) | 0x80);
  out.push(n);
  return out;
}

const encode = (value) => (value.length ? field(1, Buffer.from(value)) : Buffer.alloc(0));

function decode(data) {
  if (!data.length) return Buffer.alloc(0);
  let size = 0, i = 1;
  for (let shift = 0; ; shift += 7) {
    size += (data[i] & 0x7f) * 2 ** shift;
    if (!(data[i++] & 0x80)) return data.subarray(i, i + size);
  }
}

// lines gives the runner's lines one by one, null at the end.
const waiting = [], arrived = [];
let input;
function nextLine() {
  input ??= readline.createInterface({ input: process.stdin })
    .on('line', (l) => (waiting.length ? waiting.shift()(l) : arrived.push(l)))
    .on('close', () => (waiting.length ? waiting.shift()(null) : arrived.push(null)));
  return arrived.length ? Promise.resolve(arrived.shift()) : new Promise((got) => waiting.push(got));
}

async function ready() {
  say({ ready: true });
  const line = await nextLine();
  if (line === null) throw new Error('the runner has ended');
  return line.trim();
}

// untilEnd calls end once: at SIGTERM, or when the runner has ended.
function untilEnd(end) {
  let ended = false;
  const once = () => { if (!ended) { ended = true; end(); } };
  process.on('SIGTERM', once);
  nextLine().then(once);
  setTimeout(once, job.life * 1000).unref();
}

// call plays a case and says how it went.
async function call(name, caller) {
  setTimeout(() => { say({ why: 'not done in time' }); process.exit(0); }, (job.life - 1) * 1000).unref();
  try {
    const note = await require('./cases.js').play(name, caller, job, ready);
    say({ ok: true, note: note || '' });
  } catch (e) {
    say({ why: String(e.message || e) });
  }
  process.exit(0);
}

module.exports = { job, base, grace, file, say, pause, field, varint, encode, decode, untilEnd, call };
