// When to try again.
import { fromBinary } from "@bufbuild/protobuf";
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { DurationSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";

const least = 250, most = 5_000, busy = 1_000, idle = 30_000;
const mostAsked = 300_000; // that a host's word may add
const retryInfo = "google.rpc.RetryInfo";

/**
 * How long to wait after failures in a row, in milliseconds: any part of a bound that grows with the time that they have
 * lasted, so that a short interruption is over soon, and thousands of plugins do not come back at the same moment. Where
 * the host has too much to do it is longer, and what the host asks for comes on top.
 */
export class Pace {
  #since = 0;
  /** Before then, by performance.now, nothing is to be tried, whatever else is due. */
  notBefore = 0;

  over(): void {
    this.#since = 0;
  }

  failed(error: unknown): number {
    const now = performance.now();
    this.#since ||= now;
    const lasted = now - this.#since;
    if (error instanceof ConnectError && error.code === Code.ResourceExhausted) {
      const bound = Math.min(Math.max(lasted / 2, busy), idle);
      const wait = askedDelay(error) + busy / 2 + Math.random() * (bound - busy / 2);
      this.notBefore = now + wait;
      return wait;
    }
    return Math.random() * Math.min(Math.max(lasted / 4, least), most);
  }
}

/** Waits, at most until a signal. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      done();
    };
    const timer = setTimeout(end, ms);
    if (signal.aborted) end();
    else signal.addEventListener("abort", end);
  });
}

/** How many milliseconds a host asks its client to wait: the retry_delay of a google.rpc.RetryInfo, or Retry-After. */
export function askedDelay(error: ConnectError): number {
  for (const detail of error.details) {
    if ("type" in detail && detail.type === retryInfo) return bounded(retryDelay(detail.value));
  }
  const after = error.metadata.get("retry-after") ?? "";
  return /^[0-9]+$/.test(after) ? bounded(Number(after) * 1_000) : 0;
}

function bounded(ms: number): number {
  return Math.min(Math.max(ms, 0), mostAsked);
}

/** Reads a RetryInfo, whose generated code is a package of its own. What is malformed asks for nothing. */
function retryDelay(message: Uint8Array): number {
  try {
    let delay = 0;
    for (const reader = new BinaryReader(message); reader.pos < reader.len; ) {
      const [field, kind] = reader.tag();
      if (field === 1) {
        const { seconds, nanos } = fromBinary(DurationSchema, reader.bytes());
        delay = Number(seconds) * 1_000 + nanos / 1e6;
      } else {
        reader.skip(kind);
      }
    }
    return delay;
  } catch {
    return 0;
  }
}
