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
  assert.ok(Math.abs(pace.notBefore - performance.now() - wait) < 1_000);
  const other = new Pace();
  assert.ok(other.failed(after("9", Code.Unavailable)) <= 5_000);
  assert.equal(other.notBefore, 0);
});
