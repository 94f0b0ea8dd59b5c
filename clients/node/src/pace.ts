// When to try again.
import { fromBinary } from "@bufbuild/protobuf";
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { DurationSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";

const lost = 100, least = 250, most = 5_000, busy = 1_000, idle = 30_000; // as a client in Go
const old = 1_000; // the age from which on a connection, or an identity, was of use
const mostBrief = 4; // identities in a row that the host forgot before that age, of which the last has to wait
const mostAsked = 300_000; // that a host's word may add
const retryInfo = "google.rpc.RetryInfo";

/**
 * How long to wait after failures in a row, in milliseconds: any part of a bound that grows with the time that they have
 * lasted, so that a short interruption is over soon, and thousands of plugins do not come back at the same moment. Where
 * the host has too much to do it is longer, and what the host asks for comes on top. What held for less than a second, a
 * connection or an identity, does not end them.
 */
export class Pace {
  #since = 0; // when the failures in a row began; 0 for none
  #reached = 0; // when the host first took the plugin after the last failure; 0 for not yet
  #brief = 0; // identities in a row that were forgotten at once

  /** The host has taken the plugin, or still does. */
  reached(): void {
    this.#reached ||= performance.now();
  }

  /** An attempt failed. */
  failed(error: unknown): number {
    const lasted = this.#lasted();
    if (error instanceof ConnectError && error.code === Code.ResourceExhausted) {
      const bound = Math.min(Math.max(lasted / 2, busy), idle);
      return askedDelay(error) + busy / 2 + Math.random() * (bound - busy / 2);
    }
    return Math.random() * Math.min(Math.max(lasted / 4, least), most);
  }

  /** The connection ended, over which the host had taken the plugin. */
  lost(): number {
    const lasted = this.#lasted();
    return Math.random() * (lasted > 0 ? Math.min(Math.max(lasted / 4, least), most) : lost);
  }

  /** The host does not know the identity any more that it gave then, by performance.now. */
  forgotten(given: number): number {
    this.#lasted();
    this.#brief = performance.now() - given < old ? this.#brief + 1 : 0;
    if (this.#brief < mostBrief) return 0;
    return Math.min(lost * 2 ** (this.#brief - mostBrief), most) * (0.5 + Math.random() / 2);
  }

  /** How long the failures have lasted, of which there is one now. */
  #lasted(): number {
    const now = performance.now();
    if (!this.#since || (this.#reached && now - this.#reached >= old)) this.#since = now;
    this.#reached = 0;
    return now - this.#since;
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
