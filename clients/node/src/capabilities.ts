// Calls of the host's own capabilities, each with a grant of the host's.
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient, type Interceptor, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { connected, hostForgot, newsWait, type Protocol } from "./calls.js";
import { Closed, shown, Unreachable } from "./errors.js";
import { type HostLink, maxMessage, tellLoss } from "./link.js";
import { renewAfter, type Session } from "./session.js";
import { CapabilityBroker, type CapabilityGrant } from "./wire/plugin/v1/broker_pb.js";

const confirmAfter = 60_000; // a grant is asked for again where its capability is, and it is older than this, and than such a part of its life
const confirmPart = 8;
const unknown = "the host has none of this name and version, or its policy (PluginPolicy.Capabilities) does not give it to this plugin: ";

/** What is asked for. */
export interface Wanted {
  readonly capabilityType: string;
  readonly minVersion?: string;
  readonly reason?: string;
}

interface Grant {
  readonly path: string;
  readonly header: () => string; // not printed
  readonly owner: string; // the runtime id that it was given to
  readonly at: number; // when, by performance.now
  readonly life: number; // infinite: used until the host refuses it
}

/** Asks the host for a grant, and once more where it did not know the plugin's identity any more. Returns to which runtime id
 * it was given, and the time by the host's clock as its answer has it (RFC 9110, 6.6.1), too. */
export async function requestGrant(
  session: Session, link: HostLink, wanted: Wanted, waitMs: number, timeoutMs: number,
): Promise<{ grant: CapabilityGrant; owner: string; date: string }> {
  const broker = createClient(CapabilityBroker, createGrpcTransport({
    baseUrl: link.url, sessionManager: link.calls, readMaxBytes: maxMessage, interceptors: [tellLoss(link)],
  }));
  for (let again = true; ; again = false) {
    const identity = await session.identity(waitMs);
    try {
      let date = "";
      const onHeader = (head: Headers) => { date = head.get("date") ?? ""; };
      const { grant } = await broker.requestCapability(wanted, { headers: identity.headers(), timeoutMs, onHeader });
      if (!grant) throw new ConnectError("the answer holds no grant", Code.Internal);
      return { grant, owner: identity.runtimeId, date };
    } catch (e) {
      if (!(e instanceof ConnectError)) throw e;
      if (!again || !hostForgot(e)) throw shown(e, e.code === Code.NotFound ? unknown : "");
      session.refused(identity);
    }
  }
}

/** Leads to a capability of the host. It asks for a grant when a call needs one: the first time, when two thirds of the grant's
 * life are over, when the plugin has another identity, and when the host refused it. */
export class CapabilityRoute {
  #grant: Grant | undefined;
  #stale = false; // the grant is good, and there may be a better one
  #asking: Promise<Grant> | undefined;

  constructor(private readonly session: Session, private readonly link: HostLink, private readonly wanted: Wanted, private readonly timeoutMs: number) {}

  /** A transport for createClient. The grant goes to its capability at the host and nowhere else. A call that came with a grant
   * which the host does not take any more fails, and the next has another; a unary one is made once more where the host had
   * lost the plugin, and the grant with it. */
  transport(protocol: Protocol): Transport {
    return connected(this.link, protocol, this.#interceptor(this.link.url));
  }

  /** Has the next call ask the host again where the grant is not recent: it may offer another version by now. */
  confirm(): void {
    const g = this.#grant;
    if (g && performance.now() - g.at >= Math.max(confirmAfter, g.life / confirmPart)) this.#stale = true;
  }

  #interceptor(base: string): Interceptor {
    return (next) => async (req) => {
      const path = req.url.slice(base.length);
      const send = async () => {
        const grant = await this.#obtain(req.signal);
        req.header.delete("x-plugin-constraint");
        req.header.set("x-plugin-runtime-id", grant.owner);
        req.header.set("authorization", grant.header());
        return { grant, answer: next({ ...req, url: base + grant.path + path }) };
      };
      const { grant, answer } = await send();
      const drop = (e: unknown): boolean => {
        if (!hostForgot(e)) return false;
        if (this.#grant === grant) this.#grant = undefined;
        return true;
      };
      async function* messages<T>(all: AsyncIterable<T>): AsyncGenerator<T> {
        try {
          yield* all;
        } catch (e) {
          drop(e);
          throw e;
        }
      }
      try {
        const got = await answer;
        return got.stream ? { ...got, message: messages(got.message) } : got;
      } catch (e) {
        // Another grant tells whether the host lost the plugin, or took the grant away: then the call stays refused.
        if (!drop(e) || req.stream || (await this.#obtain(req.signal)).owner === grant.owner) throw e;
        return (await send()).answer;
      }
    };
  }

  /** A grant that lives, at most until the signal. */
  async #obtain(signal: AbortSignal): Promise<Grant> {
    try {
      await this.session.identity(newsWait, signal);
      return this.#usable() ?? await within(signal, this.#asking ??= this.#ask().finally(() => { this.#asking = undefined; }));
    } catch (e) {
      throw e instanceof Unreachable || e instanceof Closed ? new ConnectError(e.message, Code.Unavailable) : e;
    }
  }

  #usable(): Grant | undefined {
    return !this.#stale && this.#lives(this.#grant) ? this.#grant : undefined;
  }

  #lives(g: Grant | undefined): boolean {
    return g !== undefined && g.owner === this.session.current()?.runtimeId && performance.now() < g.at + g.life * renewAfter;
  }

  async #ask(): Promise<Grant> {
    try {
      const { grant, owner, date } = await requestGrant(this.session, this.link, this.wanted, newsWait, this.timeoutMs);
      this.#grant = grantOf(grant, this.wanted.capabilityType, owner, date);
    } catch (e) {
      const full = e instanceof ConnectError && e.code === Code.ResourceExhausted; // the plugin has as many as it may
      if (!full || !this.#grant || !this.#lives(this.#grant)) throw e;
    }
    this.#stale = false;
    return this.#grant;
  }
}

/** Waits for a promise of others, at most until a signal. */
function within<T>(signal: AbortSignal, promise: Promise<T>): Promise<T> {
  return new Promise((done, failed) => {
    const end = () => failed(ConnectError.from(signal.reason, Code.Canceled));
    if (signal.aborted) end();
    else signal.addEventListener("abort", end);
    void promise.then(done, failed).finally(() => signal.removeEventListener("abort", end));
  });
}

/** How long it is until an end by the clock of the host, which date was read from, to the second. This machine's is the finer one,
 * as far as both agree. */
function left(end: number, date: number, now: number): number {
  const own = end - now;
  const most = end - date;
  const least = Math.max(most - 1000, most / 2);
  return !(most > 0) || (least <= own && own <= most) ? own : least;
}

/** Takes the path alone of a grant's URL: calls go to the host that the plugin knows, wherever the URL says that it points. */
function grantOf(m: CapabilityGrant, type: string, owner: string, date: string): Grant {
  const base = "https://host.invalid";
  const path = URL.canParse(m.endpointUrl, base) ? new URL(m.endpointUrl, base).pathname.replace(/\/$/, "") : "";
  const head = `/capabilities/${type}/`;
  if (!path.startsWith(head) || !/^[A-Za-z0-9_~-][A-Za-z0-9._~-]*$/.test(path.slice(head.length)) || !/^[!-~]{1,512}$/.test(m.bearerToken)) {
    throw new ConnectError(`capability ${JSON.stringify(type)}: the host's grant is malformed`, Code.Internal);
  }
  // A life that is over already is that of a clock which differs from that of a host which does not say its time.
  const life = m.expiresAt ? left(timestampMs(m.expiresAt), Date.parse(date), Date.now()) : 0;
  const header = `Bearer ${m.bearerToken}`;
  return { path, header: () => header, owner, at: performance.now(), life: life > 0 ? life : Infinity };
}
