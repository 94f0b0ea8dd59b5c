// When to try again.
import { Code, ConnectError } from "@connectrpc/connect";

const least = 250, most = 5_000, busy = 1_000, idle = 30_000;

/**
 * How long to wait after failures in a row, in milliseconds: any part of a bound that grows with the time that they have
 * lasted, so that a short interruption is over soon, and thousands of plugins do not come back at the same moment. Where
 * the host has too much to do it is longer.
 */
export class Pace {
  #since = 0;

  over(): void {
    this.#since = 0;
  }

  failed(error: unknown): number {
    const now = performance.now();
    this.#since ||= now;
    const lasted = now - this.#since;
    if (error instanceof ConnectError && error.code === Code.ResourceExhausted) {
      const bound = Math.min(Math.max(lasted / 2, busy), idle);
      return busy / 2 + Math.random() * (bound - busy / 2);
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
