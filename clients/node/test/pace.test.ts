// When to try again.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { askedDelay, Pace } from "../src/pace.js";

/** An error with a RetryInfo of some seconds and a half, as it arrives. */
function refusal(seconds: number, type = "google.rpc.RetryInfo", cut = 0): ConnectError {
  const value = Uint8Array.from([1 << 3 | 2, 8, 1 << 3, seconds, 2 << 3, 0x80, 0xca, 0xb5, 0xee, 0x01]);
  const error = new ConnectError("too many requests", Code.ResourceExhausted);
  error.details = [{ type, value: value.slice(0, value.length - cut) }];
  return error;
}

function after(text: string, code = Code.ResourceExhausted): ConnectError {
  return new ConnectError("too many requests", code, { "retry-after": text });
}

test("what a host asks", () => {
  const both = refusal(7);
  both.metadata.set("retry-after", "12");
  for (const [name, error, want] of [
    ["a RetryInfo", refusal(7), 7_500], ["seconds", after("12"), 12_000], ["both", both, 7_500],
    ["another detail", refusal(7, "a.B"), 0], ["a word", after("soon"), 0], ["for ever", after("9".repeat(30)), 300_000],
    ["cut off", refusal(7, undefined, 3), 0], ["nothing", new ConnectError("x", Code.ResourceExhausted), 0],
  ] as const) assert.equal(askedDelay(error), want, name);
});

test("what a host asks comes on top", () => {
  const pace = new Pace();
  const wait = pace.failed(after("9"));
  assert.ok(wait >= 9_400, String(wait));
  const other = new Pace();
  assert.ok(other.failed(after("9", Code.Unavailable)) <= 5_000);
});

test("what held for less than a second was of no use", (t) => {
  let now = 100_000;
  t.mock.method(performance, "now", () => now);
  t.mock.method(Math, "random", () => 1);
  const error = new ConnectError("x", Code.Unavailable);
  let pace = new Pace();
  const wait = (much: number, made: number, held = 0) => {
    assert.equal(made, much);
    now += made;
    pace.reached();
    now += held;
  };
  wait(100, pace.lost(), 900);
  wait(250, pace.failed(error), 900);
  wait(537.5, pace.lost(), 900);
  pace = new Pace();
  wait(250, pace.failed(error), 900);
  for (let i = 0, made; i < 30; i++) wait((made = pace.lost()), made, 900);
  wait(5_000, pace.failed(error), 1_000);
  wait(250, pace.failed(error), 1_000);
  wait(100, pace.lost(), 60_000);
  wait(100, pace.lost());
});

test("identities that a host forgets at once", (t) => {
  t.mock.method(performance, "now", () => 100_000);
  t.mock.method(Math, "random", () => 1);
  const pace = new Pace();
  const waits = (...given: number[]) => given.map((g) => pace.forgotten(g));
  assert.deepEqual(waits(...Array<number>(11).fill(99_100)), [0, 0, 0, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
  for (let i = 0; i < 2_000; i++) assert.ok(pace.forgotten(99_100) === 5_000);
  assert.deepEqual(waits(99_000, 99_100, 99_100, 99_100, 99_100), [0, 0, 0, 0, 100]);
});
